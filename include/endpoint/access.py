"""What the pipeline's identity must be allowed to do; the manifests in deploy/ and preflight both follow this."""

from __future__ import annotations

from dataclasses import dataclass

from include.endpoint import resources
from include.endpoint.resources import Resource


@dataclass(frozen=True)
class Access:
    """Verbs on one resource.

    :param where: ``own`` namespace of the endpoint, the ``operator``'s, or ``cluster`` scope.
    :param optional: without it a check is skipped, nothing fails.
    """

    resource: Resource
    verbs: tuple[str, ...]
    where: str = "own"
    subresource: str = ""
    optional: bool = False


READ = ("get", "list")
WATCH = ("get", "list", "watch")

REQUIRED: tuple[Access, ...] = (
    Access(resources.ENDPOINT_CONFIGS, (*WATCH, "create", "patch", "delete")),
    Access(resources.JUMPSTART_MODELS, (*WATCH, "create", "patch", "delete")),
    Access(resources.REGISTRATIONS, WATCH),
    Access(resources.DEPLOYMENTS, (*WATCH, "create", "patch", "delete")),
    Access(resources.PODS, WATCH),
    Access(resources.PODS, ("get",), subresource="log"),
    Access(resources.EVENTS, ("list", "watch")),
    Access(resources.SERVICES, ("get", "create", "delete")),
    Access(resources.ENDPOINT_SLICES, ("list",)),
    Access(resources.INGRESSES, ("get",)),
    Access(resources.CLAIMS, ("get", "create", "delete")),
    Access(resources.LEASES, ("get", "create", "update", "delete")),
    Access(resources.SECRETS, ("get",), optional=True),
    # A load that comes from pods gets its orders by a Secret beside its Job.
    Access(resources.SECRETS, ("create", "delete"), optional=True),
    Access(resources.CONFIG_MAPS, ("get",), optional=True),
    Access(resources.WORKLOADS, WATCH, optional=True),
    Access(resources.LOCAL_QUEUES, ("get",), optional=True),
    Access(resources.SCALED_OBJECTS, ("get",), optional=True),
    Access(resources.PODS, ("create",), subresource="portforward", optional=True),
    Access(resources.PODS, ("get",), subresource="proxy", optional=True),
    Access(resources.SERVICES, ("get", "create"), subresource="proxy", optional=True),
    Access(resources.JOBS, ("get", "create", "delete"), optional=True),
    Access(resources.DEPLOYMENTS, ("get", "list"), where="operator", optional=True),
    Access(resources.INGRESSES, ("get",), where="operator", optional=True),
    Access(resources.SERVICES, ("get",), where="operator", optional=True),
    Access(resources.ENDPOINT_SLICES, ("list",), where="operator", optional=True),
    Access(resources.NODES, ("get", "list"), where="cluster", optional=True),
    Access(resources.DEFINITIONS, ("get",), where="cluster", optional=True),
    Access(resources.CSI_DRIVERS, ("get",), where="cluster", optional=True),
    Access(resources.VOLUMES, ("get", "create", "delete"), where="cluster", optional=True),
    Access(resources.PODS, ("list",), where="cluster", optional=True),
)
