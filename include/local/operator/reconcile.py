"""From a custom resource to a serving endpoint and back: the documented chain of states."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from include.local.controller.api import Api, ApiError
from include.local.controller.clock import seconds_since, stamp
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.recorder import Recorder
from include.local.controller.resources import (
    CLAIMS,
    DEPLOYMENTS,
    INGRESSES,
    REGISTRATIONS,
    SERVICES,
    VOLUMES,
    Object,
    Resource,
    is_deleting,
    key_of,
)
from include.local.faults import Fault
from include.local.operator import objects
from include.local.operator.sagemaker import SageMakerPlane

logger = logging.getLogger(__name__)
FINALIZER = "inference.sagemaker.aws.amazon.com/finalizer"


class EndpointReconciler:
    """Reconciles one kind of custom resource.

    :param resource: InferenceEndpointConfig.
    """

    def __init__(self, api: Api, resource: Resource, faults: FaultBook, items: Informer, deployments: Informer) -> None:
        self._api = api
        self._resource = resource
        self._faults = faults
        self._items = items
        self._deployments = deployments
        self._events = Recorder(api, "hyperpod-inference-operator")
        self._sagemaker = SageMakerPlane()

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Bring one endpoint a step further."""
        if self._faults.any(Fault.OPERATOR_DOWN):
            return 1.0
        item = self._items.get(*key)
        if item is None:
            return None
        if is_deleting(item):
            return await self._delete(item)
        if slow := await self._fault(item, Fault.SLOW_STATUS):
            left = slow.number("seconds", 10) - seconds_since(item["metadata"]["creationTimestamp"])
            if left > 0:
                return left
        if FINALIZER not in (item["metadata"].get("finalizers") or ()):
            finalizers = [*(item["metadata"].get("finalizers") or ()), FINALIZER]
            item = await self._api.patch(self._resource, *key, {"metadata": {"finalizers": finalizers}})
        return await self._deploy(item)

    async def _deploy(self, item: Object) -> float | None:
        state = (item.get("status") or {}).get("state")
        if rule := await self._fault(item, Fault.DEPLOYMENT_FAILED):
            await self._fail(item, "DeploymentFailed", rule.text("message", "the deployment failed"))
            return None
        if state is None:
            await self._status(item, "DeploymentPending", {})
            await self._events.normal(item, "DeploymentStarted", "creating the endpoint's objects")
        persistent, claim = objects.volumes(item)
        ingress = objects.ingress(item)
        wanted = objects.deployment(item)
        for resource, made in (
            (VOLUMES, persistent), (CLAIMS, claim), (DEPLOYMENTS, wanted), (SERVICES, objects.service(item)),
            (INGRESSES, ingress),
        ):  # fmt: skip
            await self._ensure(resource, made)
        balancer = {"loadBalancer": {"ingress": [{"hostname": objects.host_name(item)}]}}
        await self._set_status(INGRESSES, ingress, balancer)
        live = self._deployments.get(*key_of(wanted))
        if live and live["spec"].get("replicas") != wanted["spec"]["replicas"]:
            change = {"spec": {"replicas": wanted["spec"]["replicas"]}}
            live = await self._api.patch(DEPLOYMENTS, *key_of(wanted), change)
        status = (live or {}).get("status") or {}
        ready = int(status.get("readyReplicas") or 0) >= int(wanted["spec"]["replicas"])
        limit = float(item["spec"].get("maxDeployTimeInSeconds", 3600))
        if not ready and state != "DeploymentComplete" and seconds_since(item["metadata"]["creationTimestamp"]) > limit:
            return await self._fail(
                item, "DeploymentFailed", f"not ready within {limit:.0f} s (maxDeployTimeInSeconds)"
            )
        if not ready:
            await self._status(item, "DeploymentInProgress", _deployment_status(item, status, "DeploymentInProgress"))
            return 1.0
        return await self._register(item, status)

    async def _register(self, item: Object, deployment: Object) -> float | None:
        name = objects.model_name_of(item)
        done = _deployment_status(item, deployment, "DeploymentComplete")
        if not name:
            await self._status(item, "DeploymentComplete", done)
            return None
        registration = objects.registration(item, name)
        await self._ensure(REGISTRATIONS, registration)
        if await self._fault(item, Fault.STUCK_REGISTRATION):
            await self._set_status(REGISTRATIONS, registration, {"state": "CreationInProgress"})
            await self._status(item, "DeploymentComplete", {**done, "endpoints": _sagemaker("CreationInProgress", {})})
            return 5.0
        if rule := await self._fault(item, Fault.REGISTRATION_FAILED):
            said = rule.text("message", "Please ensure that the execution role for variant AllTraffic can be assumed")
            failed = _condition("CreationFailed", "Failed", said)
            await self._set_status(REGISTRATIONS, registration, {"state": "CreationFailed", "conditions": [failed]})
            await self._status(item, "DeploymentComplete", {**done, "endpoints": _sagemaker("CreationFailed", {})})
            return 5.0
        image = item["spec"]["worker"]["image"]
        arns = await asyncio.to_thread(self._sagemaker.create, name, image, item["spec"].get("tags") or [])
        endpoint = {"arn": arns["endpointArn"], "configArn": arns["configArn"], "modelArn": arns["modelArn"]}
        created = _condition("CreationCompleted", "Success", "Endpoint has been successfully created.")
        status = {"state": "CreationCompleted", "endpoint": endpoint, "conditions": [created]}
        await self._set_status(REGISTRATIONS, registration, status)
        complete = {**done, "endpoints": _sagemaker("CreationCompleted", arns)}
        if await self._status(item, "DeploymentComplete", complete):
            await self._events.normal(item, "DeploymentComplete", "the endpoint is deployed")
        return None

    async def _delete(self, item: Object) -> float | None:
        if FINALIZER not in (item["metadata"].get("finalizers") or ()):
            return None
        name = objects.model_name_of(item)
        await self._status(item, "DeletionInProgress", {})
        if name and not await self._fault(item, Fault.ORPHAN_ON_DELETE):
            await asyncio.to_thread(self._sagemaker.delete, name)
        if name:
            await self._api.delete(REGISTRATIONS, item["metadata"]["namespace"], name)
        for resource, made in ((INGRESSES, objects.ingress(item)), (SERVICES, objects.service(item))):
            await self._api.delete(resource, *key_of(made))
        await self._api.delete(DEPLOYMENTS, *key_of(item))
        if await self._fault(item, Fault.STUCK_DELETE):
            return 2.0
        if await self._fault(item, Fault.DELETE_FAILED):
            await self._status(item, "DeletionFailed", {})
            return 5.0
        left = [value for value in item["metadata"]["finalizers"] if value != FINALIZER]
        try:
            await self._api.patch(self._resource, *key_of(item), {"metadata": {"finalizers": left}})
        except ApiError as error:
            if error.status != 404:
                raise
        return None

    async def _fail(self, item: Object, state: str, message: str) -> None:
        condition = _condition("DeploymentFailed", "DeploymentFailed", message)
        detail = {"deploymentStatus": _overall(item, state, message), "conditions": [condition]}
        if await self._status(item, state, detail):
            await self._events.warning(item, "DeploymentFailed", message)

    async def _status(self, item: Object, state: str, more: dict[str, Any]) -> bool:
        """Write the status when it differs; true when it did."""
        wanted = {"state": state, "observedGeneration": item["metadata"]["generation"], **more}
        current = item.get("status") or {}
        if all(_same(current.get(name), value) for name, value in wanted.items()):
            return False
        try:
            await self._api.patch(self._resource, *key_of(item), {"status": wanted}, subresource="status")
        except ApiError as error:
            if error.status != 404:
                raise
        return True

    async def _ensure(self, resource: Resource, item: Object) -> None:
        try:
            await self._api.create(resource, item)
        except ApiError as error:
            if error.status != 409:
                raise

    async def _set_status(self, resource: Resource, item: Object, status: dict[str, Any]) -> None:
        live = await self._api.get(resource, *key_of(item))
        if live is not None and not all(_same((live.get("status") or {}).get(k), v) for k, v in status.items()):
            await self._api.patch(resource, *key_of(item), {"status": status}, subresource="status")

    async def _fault(self, item: Object, kind: Fault) -> Any:
        if not self._faults.any(kind):
            return None
        meta = item["metadata"]
        return await self._faults.active(kind, meta["namespace"], meta["name"], meta["uid"])


def _deployment_status(item: Object, status: Object, state: str) -> dict[str, Any]:
    kept = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas")
    counts = {name: status[name] for name in kept if name in status}
    message = f"{counts.get('readyReplicas', 0)} of {item['spec'].get('replicas', 1)} replicas are ready"
    overall = {**_overall(item, state, message), "status": counts}
    return {
        "deploymentStatus": overall,
        "replicas": counts.get("replicas", 0),
        "selector": f"app={item['metadata']['name']}",
    }


def _overall(item: Object, state: str, message: str) -> dict[str, Any]:
    name = item["metadata"]["name"]
    return {"name": name, "deploymentObjectOverallState": state, "message": message, "lastUpdated": stamp()}


def _sagemaker(state: str, arns: dict[str, str]) -> dict[str, Any]:
    return {"sagemaker": {"state": state, **arns}}


def _condition(kind: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": stamp()}


def _same(current: Any, wanted: Any) -> bool:
    """Equal but for the times."""
    if isinstance(wanted, dict):
        times = ("lastUpdated", "lastTransitionTime")
        return isinstance(current, dict) and all(_same(current.get(k), v) for k, v in wanted.items() if k not in times)
    if isinstance(wanted, list):
        return isinstance(current, list) and len(current) == len(wanted) and all(map(_same, current, wanted))
    return bool(current == wanted)
