"""The registration with SageMaker: its own object, its own states, lagging behind the Deployment."""

from __future__ import annotations

import asyncio

from include.local.controller.clock import seconds_since
from include.local.controller.resources import REGISTRATIONS, Object, is_deleting
from include.local.faults import Fault
from include.local.operator import objects, pods
from include.local.operator.statuses import with_condition
from include.local.operator.tls import Tls
from include.local.operator.world import World

FINALIZER = "inference.sagemaker.aws.amazon.com/registration"
POLL_SECONDS = 0.5
EXECUTION_ROLE = (
    "Please ensure that the execution role for variant AllTraffic has sufficient permissions: "
    "ec2:CreateNetworkInterface, ec2:CreateNetworkInterfacePermission."
)
CA_TIMEOUT = "Error downloading CA certificate: Connect timeout on endpoint URL"


async def register(world: World, item: Object, host: str, tls: Tls) -> tuple[Object, float | None]:
    """Bring the registration a step further.

    :returns: ``status.endpoints`` of the custom resource, and seconds after which to look again.
    """
    wanted = objects.registration(item, host, tls.bucket, [tls.key])
    wanted["metadata"]["finalizers"] = [FINALIZER]
    live = await world.apply(REGISTRATIONS, wanted)
    if is_deleting(live):
        return _endpoints("CreationInProgress", {}), POLL_SECONDS
    failure = await _failure(world, item)
    if failure:
        await _report(world, live, "CreationFailed", "False", "Failed", failure, {})
        return _endpoints("CreationFailed", {}), 5.0
    if await _held(world, item, live):
        await _report(world, live, "CreationInProgress", "False", "InProgress", "Creating endpoint", {}, host)
        return _endpoints("CreationInProgress", {}), POLL_SECONDS
    tags = list(item["spec"].get("tags") or [])
    made = await asyncio.to_thread(world.aws.register, objects.sagemaker_name(item), pods.image_of(item), tags)
    if made.status == "Failed":
        await _report(world, live, "CreationFailed", "False", "Failed", made.failure or "Endpoint failed", made.arns)
        return _endpoints("CreationFailed", made.arns), 5.0
    if made.status != "InService":
        await _report(world, live, "CreationInProgress", "False", "InProgress", "Creating endpoint", made.arns, host)
        return _endpoints("CreationInProgress", made.arns), POLL_SECONDS
    text = "Endpoint has been successfully created."
    await _report(world, live, "CreationCompleted", "True", "Success", text, made.arns, host)
    return _endpoints("CreationCompleted", made.arns), None


async def unregister(world: World, item: Object) -> bool:
    """Delete the registration and what it stands for; true once it is gone."""
    name, namespace = objects.sagemaker_name(item), item["metadata"]["namespace"]
    if not name:
        return True
    live = await world.api.get(REGISTRATIONS, namespace, name)
    orphan = await world.fault(item, Fault.ORPHAN_ON_DELETE)
    if live is None:
        # The registration may be gone while a killed operator never got to SageMaker's side.
        return orphan is not None or await asyncio.to_thread(world.aws.unregister, name)
    if not is_deleting(live):
        await world.api.delete(REGISTRATIONS, namespace, name, uid=live["metadata"]["uid"])
        live = await world.api.get(REGISTRATIONS, namespace, name)
        if live is None:
            return False
    await _report(world, live, "DeletionInProgress", "False", "Deleting", "Deleting endpoint", {})
    if orphan is None and not await asyncio.to_thread(world.aws.unregister, name):
        return False
    await world.api.patch(REGISTRATIONS, namespace, name, {"metadata": {"finalizers": None}})
    return await world.api.get(REGISTRATIONS, namespace, name) is None


async def _failure(world: World, item: Object) -> str:
    if rule := await world.fault(item, Fault.REGISTRATION_FAILED):
        return rule.text("message", EXECUTION_ROLE)
    if rule := await world.fault(item, Fault.CERT_DOWNLOAD_TIMEOUT):
        return rule.text("message", CA_TIMEOUT)
    return ""


async def _held(world: World, item: Object, live: Object) -> bool:
    if await world.fault(item, Fault.STUCK_REGISTRATION):
        return True
    slow = await world.fault(item, Fault.SLOW_REGISTRATION)
    age = seconds_since(live["metadata"]["creationTimestamp"])
    return slow is not None and age < slow.number("seconds", 30)


async def _report(
    world: World,
    live: Object,
    state: str,
    completed: str,
    reason: str,
    message: str,
    arns: dict[str, str],
    host: str = "",
) -> None:
    generation = int(live["metadata"]["generation"])
    before = live.get("status") or {}
    kind = "DeletionCompleted" if state.startswith("Deletion") else "CreationCompleted"
    status: Object = {
        "state": state,
        "conditions": with_condition(before, kind, completed, reason, message, generation),
        "observedGeneration": generation,
    }
    if arns:
        status["endpoint"] = {"arn": arns["endpointArn"], "configArn": arns["configArn"], "modelArn": arns["modelArn"]}
    if host:
        status["loadBalancer"] = {"hostName": host}
    await world.set_status(REGISTRATIONS, live, status)


def _endpoints(state: str, arns: dict[str, str]) -> Object:
    return {"sagemaker": {"state": state, **arns}}
