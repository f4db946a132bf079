"""The way back: registration, SageMaker objects, load balancer, certificate, workloads, and last the finalizer."""

from __future__ import annotations

from include.local.controller.api import ApiError
from include.local.controller.resources import (
    CLAIMS,
    DEPLOYMENTS,
    INGRESSES,
    SCALED_OBJECTS,
    SERVICES,
    VOLUMES,
    WORKLOADS,
    Object,
    Resource,
    key_of,
)
from include.local.faults import Fault
from include.local.operator import objects, tls
from include.local.operator.registration import unregister
from include.local.operator.world import World

FINALIZER = "inference.sagemaker.aws.amazon.com/finalizer"
POLL_SECONDS = 0.2


async def delete(world: World, item: Object) -> float | None:
    """Bring a deletion a step further; seconds after which to look again, ``None`` when it is done."""
    if FINALIZER not in (item["metadata"].get("finalizers") or ()):
        return None
    state = (item.get("status") or {}).get("state", "")
    if not state.startswith("Deletion"):
        await world.status(item, {"state": "DeletionPending"})
        return 0.0
    if rule := await world.fault(item, Fault.DELETE_FAILED):
        text = rule.text("message", "failed to delete the load balancer: DependencyViolation")
        await world.events.warning(item, "DeletionFailed", text)
        await world.status(item, {"state": "DeletionFailed"})
        return 5.0
    await world.status(item, {"state": "DeletionInProgress"})
    if not await unregister(world, item):
        return POLL_SECONDS
    if not await _removed(world, item):
        return POLL_SECONDS
    await tls.remove(world, item)
    if await world.fault(item, Fault.STUCK_DELETE):
        return 2.0
    left = [name for name in item["metadata"]["finalizers"] if name != FINALIZER]
    try:
        await world.api.patch(world.resource, *key_of(item), {"metadata": {"finalizers": left or None}})
    except ApiError as error:
        if error.status != 404:
            raise
    return None


async def _removed(world: World, item: Object) -> bool:
    """Delete the Kubernetes objects one after the other; true once all are gone."""
    for resource, namespace, name in owned_objects(item):
        if await world.api.get(resource, namespace, name) is not None:
            await world.api.delete(resource, namespace, name)
            if await world.api.get(resource, namespace, name) is not None:
                return False
    return True


def owned_objects(item: Object) -> list[tuple[Resource, str, str]]:
    """Every object of an endpoint in the order of deletion. Pure."""
    namespace = item["metadata"]["namespace"]
    found: list[tuple[Resource, str, str]] = [(INGRESSES, *objects.ingress_key(item))]
    kinds = {"Deployment": DEPLOYMENTS, "Service": SERVICES}
    found += [(kinds[kind], *key_of(made)) for kind, made in objects.router(item)]
    scaled, workload = objects.scaled_object(item), objects.workload(item)
    if scaled is not None:
        found.append((SCALED_OBJECTS, *key_of(scaled)))
    found.append((SERVICES, *key_of(objects.service(item))))
    found += [(DEPLOYMENTS, *key_of(made)) for made in objects.deployments(item)]
    if workload is not None:
        found.append((WORKLOADS, *key_of(workload)))
    volumes = objects.volumes(item)
    if volumes is not None:
        found += [(CLAIMS, namespace, volumes[1]["metadata"]["name"]), (VOLUMES, "", volumes[0]["metadata"]["name"])]
    return found
