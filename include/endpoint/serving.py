"""What an endpoint is served by, as the cluster shows it: goes into the provenance of every result."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.endpoint import names
from include.endpoint.resources import PODS
from include.errors import PipelineError

if TYPE_CHECKING:
    from include.catalog.plan import ReleasePlan
    from include.endpoint.clients import Clients
    from include.endpoint.model import EndpointRef

# NVIDIA's GPU feature discovery; the parts are its older form.
DRIVER_LABEL = "nvidia.com/cuda.driver-version.full"
OLD_DRIVER_LABELS = ("nvidia.com/cuda.driver.major", "nvidia.com/cuda.driver.minor", "nvidia.com/cuda.driver.rev")
VERSION_TIMEOUT_S = 10.0


@dataclass(frozen=True)
class Serving:
    """Facts that the plan does not say; empty where the cluster does not tell.

    :param image_digest: of the model server's container, ``sha256:…``; several, with a comma, when replicas differ.
    :param engine_version: as the model server's ``/version`` says.
    :param accelerators: devices of all replicas.
    """

    image_digest: str = ""
    engine_version: str = ""
    instance_type: str = ""
    node_names: tuple[str, ...] = ()
    accelerators: int = 0
    driver_version: str = ""
    operator_version: str = ""


def observe_serving(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> Serving:
    """Look at the pods, nodes and operator behind an endpoint.

    :raises PipelineError: when the Kubernetes API cannot be reached.
    """
    from include.endpoint.lifecycle import accelerators
    from include.endpoint.observe import operator_deployments, own_nodes

    apps = f"app in ({','.join(names.workload_names(ref.name))})"
    pods = clients.api.list(PODS, ref.namespace, labels=apps)
    nodes = own_nodes(pods, clients)
    return Serving(
        image_digest=_joined(_digests(ref, pods)),
        engine_version=_engine_version(ref, plan, clients),
        instance_type=_joined(names.label(node, names.INSTANCE_LABEL) for node in nodes),
        node_names=tuple(sorted(str(names.metadata_of(node)["name"]) for node in nodes)),
        accelerators=accelerators(plan),
        driver_version=_joined(map(driver_version, nodes)),
        operator_version=_joined(map(_tag, operator_deployments(clients) or ())),
    )


def driver_version(node: Mapping[str, Any]) -> str:
    """Return the accelerator driver that a node's labels state; empty when they state none."""
    whole = names.label(node, DRIVER_LABEL)
    return whole or ".".join(filter(None, (names.label(node, key) for key in OLD_DRIVER_LABELS)))


def _digests(ref: EndpointRef, pods: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    workloads = names.workload_names(ref.name)
    for pod in pods:
        for status in (pod.get("status") or {}).get("containerStatuses") or ():
            if status.get("name") in workloads:
                yield str(status.get("imageID") or "").rpartition("@")[2]


def _tag(deployment: Mapping[str, Any]) -> str:
    """Return the version of an operator's Deployment: its image's tag, or digest."""
    if str(names.metadata_of(deployment)["name"]) not in names.OPERATOR_DEPLOYMENTS:
        return ""
    image = str(deployment["spec"]["template"]["spec"]["containers"][0].get("image") or "")
    return image.rpartition("@")[2] if "@" in image else image.rpartition("/")[2].partition(":")[2]


def _engine_version(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> str:
    from include.endpoint.asking import Asker
    from include.endpoint.invocation import resolve

    try:
        invocation = resolve(plan, ref, clients)
    except PipelineError:
        return ""
    if invocation.protocol == "sagemaker":
        return ""
    answer = Asker(invocation, clients, VERSION_TIMEOUT_S).get("/version")
    said = answer.json if answer.ok else None
    return str(said.get("version") or "") if isinstance(said, dict) else ""


def _joined(values: Iterable[str]) -> str:
    return ",".join(sorted(set(values) - {""}))
