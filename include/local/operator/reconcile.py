"""From a custom resource to a serving endpoint: the documented chain of states, one step at a time."""

from __future__ import annotations

from include.local.controller.clock import seconds_since
from include.local.controller.informer import Informer
from include.local.controller.resources import (
    CLAIMS,
    DEPLOYMENTS,
    INGRESSES,
    PODS,
    SCALED_OBJECTS,
    SERVICES,
    VOLUMES,
    WORKLOADS,
    Key,
    Object,
    is_deleting,
    key_of,
)
from include.local.faults import Fault
from include.local.operator import objects, tls
from include.local.operator.aws import AwsFailureError
from include.local.operator.deletion import FINALIZER, delete
from include.local.operator.registration import register
from include.local.operator.statuses import deployment_status, is_rolled_out, metrics_status, with_condition
from include.local.operator.validity import problems
from include.local.operator.world import World

PROGRESS = "DeploymentInProgress"
FAILED = "DeploymentFailed"
COMPLETE = "DeploymentComplete"
POLL_SECONDS = 0.5
SLOW_POLL_SECONDS = 2.0
IRSA = (
    "AssumeRoleWithWebIdentity: AccessDenied, status code: 403: not authorized to perform sts:AssumeRoleWithWebIdentity"
)


class FailedDeploymentError(Exception):
    """The deployment has failed for good: ``reason`` and message go into the condition."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class EndpointReconciler:
    """Reconciles one kind of custom resource.

    :param items: informer on that kind.
    """

    def __init__(self, world: World, items: Informer) -> None:
        self._world = world
        self._items = items

    async def reconcile(self, key: Key) -> float | None:
        """Bring one endpoint a step further."""
        world = self._world
        if world.faults.any(Fault.OPERATOR_DOWN):
            return 1.0
        if self._items.get(*key) is None:
            return None
        # Asked, not taken from the watch: a decision on an old state would undo a newer one.
        item = await world.api.get(world.resource, *key)
        if item is None:
            return None
        if is_deleting(item):
            return await delete(world, item)
        if slow := await world.fault(item, Fault.SLOW_STATUS):
            left = slow.number("seconds", 10) - seconds_since(item["metadata"]["creationTimestamp"])
            if left > 0:
                return left
        try:
            return await self._deploy(await self._begun(item))
        except FailedDeploymentError as failure:
            await self._fail(item, failure)
            return None

    async def _begun(self, item: Object) -> Object:
        """Set the finalizer and the first state; a new generation starts over."""
        world = self._world
        meta = item["metadata"]
        if FINALIZER not in (meta.get("finalizers") or ()):
            finalizers = [*(meta.get("finalizers") or ()), FINALIZER]
            item = await world.api.patch(world.resource, *key_of(item), {"metadata": {"finalizers": finalizers}})
        status = item.get("status") or {}
        if status.get("observedGeneration") == meta["generation"] and status.get("state"):
            return item
        text = "Creating the endpoint's objects" if not status.get("state") else "Updating the endpoint's objects"
        kept = [c for c in status.get("conditions") or [] if c["type"] not in (PROGRESS, FAILED)]
        started = with_condition({"conditions": kept}, PROGRESS, "True", "Started", text, meta["generation"])
        state = "DeploymentPending" if not status.get("state") else PROGRESS
        await world.status(item, {"state": state, "conditions": started})
        await world.events.normal(item, "DeploymentStarted", text)
        return await world.api.get(world.resource, *key_of(item)) or item

    async def _deploy(self, item: Object) -> float | None:
        status = item["status"]
        if status["state"] == FAILED:
            return None
        await self._refuse(item)
        if not await self._admitted(item):
            return 1.0
        live = await self._apply_objects(item)
        if not all(map(is_rolled_out, live)):
            return await self._in_progress(item, live)
        host = await self._host(item)
        if host is None:
            return await self._in_progress(item, live, "Waiting for the load balancer")
        return await self._complete(item, live, host)

    async def _refuse(self, item: Object) -> None:
        wrong = problems(item)
        if wrong:
            raise FailedDeploymentError("InvalidSpec", "; ".join(wrong))
        if rule := await self._world.fault(item, Fault.DEPLOYMENT_FAILED):
            raise FailedDeploymentError("DeploymentFailed", rule.text("message", "the deployment failed"))
        if rule := await self._world.fault(item, Fault.IRSA_DENIED):
            raise FailedDeploymentError("AccessDenied", rule.text("message", IRSA))

    async def _admitted(self, item: Object) -> bool:
        """Wait for Kueue; without a queue everything is admitted at once."""
        wanted = objects.workload(item)
        if wanted is None:
            return True
        live = await self._world.apply(WORKLOADS, wanted)
        refused = await self._world.fault(item, Fault.KUEUE_NOT_ADMITTED)
        value, reason = ("False", "Pending") if refused else ("True", "QuotaReserved")
        text = (
            refused.text("message", "couldn't assign flavors: insufficient unused quota for nvidia.com/gpu")
            if refused
            else "Quota reserved in ClusterQueue"
        )
        status = live.get("status") or {}
        conditions = with_condition(status, "QuotaReserved", value, reason, text, 1)
        conditions = with_condition({"conditions": conditions}, "Admitted", value, reason, text, 1)
        await self._world.set_status(WORKLOADS, live, {"conditions": conditions})
        if refused:
            await self._world.status(item, {"state": "DeploymentPending"})
        return refused is None

    async def _apply_objects(self, item: Object) -> list[Object]:
        world = self._world
        volumes = objects.volumes(item)
        if volumes is not None:
            await world.apply(VOLUMES, volumes[0])
            await world.apply(CLAIMS, volumes[1])
        live = [await self._apply_deployment(item, made) for made in objects.deployments(item)]
        await world.apply(SERVICES, objects.service(item))
        for kind, made in objects.router(item):
            applied = await world.apply(DEPLOYMENTS if kind == "Deployment" else SERVICES, made)
            live += [applied] if kind == "Deployment" else []
        await world.apply(INGRESSES, objects.ingress(item))
        scaled = objects.scaled_object(item)
        if scaled is not None:
            await world.apply(SCALED_OBJECTS, scaled)
        return live

    async def _apply_deployment(self, item: Object, wanted: Object) -> Object:
        world = self._world
        if rule := await world.fault(item, Fault.WRONG_IMAGE):
            wanted["spec"]["template"]["spec"]["containers"][0]["image"] = rule.text("image", "hyperpod.local/echo:1")
        if rule := await world.fault(item, Fault.WRONG_REPLICAS):
            wanted["spec"]["replicas"] = int(rule.number("replicas", 1))
        lag = await world.fault(item, Fault.SCALE_LAG)
        live = await world.api.get(DEPLOYMENTS, *key_of(wanted))
        resized = live is not None and live["spec"].get("replicas") != wanted["spec"]["replicas"]
        if live and lag and resized and seconds_since(_since(item, PROGRESS)) < lag.number("seconds", 30):
            return live | {"status": {}}
        if item["spec"].get("autoScalingSpec") and live is not None:
            wanted["spec"]["replicas"] = live["spec"].get("replicas", 1)
        return await world.apply(DEPLOYMENTS, wanted)

    async def _in_progress(self, item: Object, live: list[Object], waits: str = "") -> float | None:
        limit = float(item["spec"].get("maxDeployTimeInSeconds", 3600))
        if rule := await self._world.fault(item, Fault.DEPLOY_TIMEOUT):
            limit = rule.number("seconds", 1)
        left = limit - seconds_since(_since(item, PROGRESS))
        if left <= 0:
            text = f"Deployment did not become ready within {limit:g} seconds (maxDeployTimeInSeconds)"
            raise FailedDeploymentError("DeploymentTimedOut", text)
        await self._check_download(item)
        ready = sum(int((d.get("status") or {}).get("readyReplicas") or 0) for d in live)
        total = sum(int(d["spec"].get("replicas", 1)) for d in live)
        message = waits or f"{ready} of {total} replicas are ready"
        # An endpoint that was complete stays so while one of its pods is replaced; the counts tell.
        state = COMPLETE if item["status"]["state"] == COMPLETE else PROGRESS
        wanted = {"state": state} | deployment_status(item, live, PROGRESS, "MinimumReplicasUnavailable", message)
        await self._world.status(item, wanted)
        # Its parts tell when they change; what they do not tell is looked for less and less often.
        return min(left, POLL_SECONDS if waits else max(SLOW_POLL_SECONDS, (limit - left) / 5))

    async def _check_download(self, item: Object) -> None:
        source = item["spec"].get("modelSourceConfig") or {}
        if source.get("modelSourceType") != "huggingface":
            return
        selector = f"app={item['metadata']['name']}"
        for pod in (await self._world.api.list(PODS, item["metadata"]["namespace"], selector=selector))["items"]:
            for status in (pod.get("status") or {}).get("initContainerStatuses") or ():
                if status["name"] == "hf-model-downloader" and int(status["restartCount"]) >= 1:
                    text = f"Failed to download {source['huggingFaceModel']['modelId']} from Hugging Face"
                    await self._world.events.warning(item, "HuggingFaceDownloadFailed", text)
                    raise FailedDeploymentError("HuggingFaceDownloadFailed", text)

    async def _host(self, item: Object) -> str | None:
        live = await self._world.api.get(INGRESSES, *objects.ingress_key(item))
        entries = (((live or {}).get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        return str(entries[0]["hostname"]) if entries else None

    async def _complete(self, item: Object, live: list[Object], host: str) -> float | None:
        world = self._world
        try:
            secured = await tls.provide(world, item, host)
        except AwsFailureError as error:
            raise FailedDeploymentError("TlsBucketNotWritable", str(error)) from error
        generation = item["metadata"]["generation"]
        text = "Deployment is complete"
        conditions = with_condition(item["status"], PROGRESS, "False", "Complete", text, generation)
        conditions = with_condition({"conditions": conditions}, COMPLETE, "True", "Complete", text, generation)
        wanted: Object = {
            "state": COMPLETE,
            "conditions": conditions,
            "metricsStatus": metrics_status(item["spec"]),
            "tlsCertificate": secured.status,
        }
        wanted |= deployment_status(item, live, COMPLETE, "MinimumReplicasAvailable", text)
        wanted |= await self._dns(item)
        if objects.sagemaker_name(item) and "endpoints" not in item["status"]:
            wanted["endpoints"] = {"sagemaker": {"state": "CreationInProgress"}}
        if item["status"]["state"] != COMPLETE:
            await world.events.normal(item, "DeploymentComplete", text)
        await world.status(item, wanted)
        if not objects.sagemaker_name(item):
            return None
        endpoints, again = await register(world, item, host, secured)
        await world.set_status(world.resource, item, {"endpoints": endpoints})
        return again

    async def _dns(self, item: Object) -> Object:
        dns = item["spec"].get("dnsConfig")
        if not dns:
            return {}
        broken = await self._world.fault(item, Fault.DNS_ERROR)
        status = {
            "managedByOperator": True,
            "dnsHealth": "Error" if broken else "Active",
            "hostedZoneId": dns["hostedZoneId"],
            "recordName": item["spec"]["tlsConfig"]["customCertificateConfig"]["domainName"],
        }
        if broken:
            status["message"] = broken.text("message", "the record did not resolve within 10 minutes")
        return {"dnsStatus": status}

    async def _fail(self, item: Object, failure: FailedDeploymentError) -> None:
        world, text = self._world, str(failure)
        live = [await world.api.get(DEPLOYMENTS, *key_of(made)) for made in _wanted_deployments(item)]
        current = await world.api.get(world.resource, *key_of(item)) or item
        generation = item["metadata"]["generation"]
        conditions = with_condition(current.get("status") or {}, FAILED, "True", failure.reason, text, generation)
        conditions = with_condition({"conditions": conditions}, PROGRESS, "False", failure.reason, text, generation)
        wanted: Object = {"state": FAILED, "conditions": conditions}
        wanted |= deployment_status(item, [d for d in live if d is not None], FAILED, failure.reason, text)
        if await world.status(item, wanted):
            await world.events.warning(item, FAILED, text)


def _wanted_deployments(item: Object) -> list[Object]:
    return [] if problems(item) else objects.deployments(item)


def _since(item: Object, kind: str) -> str:
    """When a condition got its value; the object's creation when it has none."""
    for condition in (item.get("status") or {}).get("conditions") or ():
        if condition["type"] == kind:
            return str(condition["lastTransitionTime"])
    return str(item["metadata"]["creationTimestamp"])
