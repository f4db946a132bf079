"""Preflight checks of the cluster: API, rights, operator, drivers, room, quota."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.access import REQUIRED, Access
from include.endpoint.assemble import DEEP_CHECK_LABEL, HEALTH_LABEL, conditions, operator_facts
from include.endpoint.clients import Clients
from include.endpoint.model import Check
from include.endpoint.preflight.room import Demand, NodeRoom, demand_of, node_room
from include.endpoint.resources import (
    CSI_DRIVERS,
    DEFINITIONS,
    DEPLOYMENTS,
    ENDPOINT_KINDS,
    LOCAL_QUEUES,
    NODES,
    PODS,
)
from include.errors import FailureClass, PipelineError

API = "Kubernetes API reachable"
DRIVERS = {"s3": "s3.csi.aws.com", "fsx": "fsx.csi.aws.com"}
CLUSTER_READ = "AccessDenied"


def passed(name: str, observed: str, expected: str = "") -> Check:
    """Return a passed check."""
    return Check(name=name, verdict="pass", expected=expected, observed=observed)


def failed(
    name: str, expected: str, observed: str, fix: str, failure_class: FailureClass = FailureClass.CONFIGURATION
) -> Check:
    """Return a failed check."""
    return Check(name=name, verdict="fail", expected=expected, observed=observed, fix=fix, failure_class=failure_class)


def skipped(name: str, why: str) -> Check:
    """Return a check that could not be made."""
    return Check(name=name, verdict="skip", observed=why)


def api_reachable(_plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The API server answers."""
    host = clients.kube.configuration.host
    try:
        clients.api.raw("/version")
    except (PipelineError, LookupError) as error:
        fix = getattr(error, "fix", "") or "check the cluster's connection"
        yield failed(API, "an answer", f"{host}: {error}", fix)
        return
    yield passed(API, str(host))


def identity_allowed(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The identity may do what this plan needs (SelfSubjectAccessReview)."""
    name, denied = "identity allowed", []
    asked = 0
    for access in REQUIRED:
        if access.optional or not _needed(access, plan):
            continue
        for verb in access.verbs:
            asked += 1
            allowed, _ = clients.api.allowed(verb, access.resource, plan.cluster.namespace, access.subresource)
            if not allowed:
                tail = f"/{access.subresource}" if access.subresource else ""
                denied.append(f"{verb} {access.resource.plural}{tail}")
    if denied:
        fix = f"bind this identity to deploy/kubernetes/rbac.yaml in namespace {plan.cluster.namespace}"
        yield failed(name, f"{asked} permissions", f"denied: {', '.join(denied)}", fix)
        return
    yield passed(name, f"{asked} permissions")


def _needed(access: Access, plan: ReleasePlan) -> bool:
    kind = plan.model.deployment.kind
    if access.resource.kind in names_of_kinds() and kind != "direct":
        return access.resource.kind == kind
    direct_only = ("create", "delete", "patch")
    if access.resource.kind in ("Deployment", "Service", "PersistentVolumeClaim") and kind != "direct":
        return not any(verb in direct_only for verb in access.verbs)
    return True


def names_of_kinds() -> tuple[str, ...]:
    """Return the kinds of custom resources that can be an endpoint."""
    return tuple(kind for kind in ENDPOINT_KINDS if kind != "direct")


def definition_served(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The custom resource is installed, in the version that we write."""
    if plan.model.deployment.kind == "direct":
        return
    resource = ENDPOINT_KINDS[plan.model.deployment.kind]
    name = f"{resource.kind} served"
    wanted = f"{resource.plural}.{resource.group}"
    item = clients.api.get(DEFINITIONS, wanted)
    served = [entry["name"] for entry in (item or {}).get("spec", {}).get("versions", []) if entry.get("served")]
    if resource.version in served:
        yield passed(name, f"{wanted} {', '.join(served)}")
    else:
        fix = "install the add-on amazon-sagemaker-hyperpod-inference, or upgrade it"
        yield failed(name, resource.api_version, ", ".join(served) or "not installed", fix)


def operator_alive(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The inference operator runs, under either of its names."""
    if plan.model.deployment.kind == "direct":
        return
    name = "operator alive"
    found = operator_facts(clients.api.list(DEPLOYMENTS, names.OPERATOR_NAMESPACE))
    if found.available:
        yield passed(name, f"{found.name} {found.version}, {found.available} available")
        return
    fix = f"bring it up in namespace {names.OPERATOR_NAMESPACE}; Kueue or a scale-down may have set it to 0"
    wanted = " or ".join(names.OPERATOR_DEPLOYMENTS)
    if found.found:
        # Its pod may just be starting again.
        yield failed(name, wanted, f"{found.name} has no available replica", fix, FailureClass.TRANSIENT)
    else:
        yield failed(name, wanted, "no such Deployment", fix)


def drivers_installed(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The CSI driver of the model's store is installed."""
    deployment = plan.model.deployment
    driver = DRIVERS.get(deployment.model_source)
    if deployment.kind == "JumpStartModel" or driver is None:
        return
    name = "CSI driver"
    if clients.api.get(CSI_DRIVERS, driver) is None:
        yield failed(name, driver, "not installed", f"install the EKS add-on of {driver}")
    else:
        yield passed(name, driver)


def addons_installed(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """What the plan's options need besides the operator: KEDA, Kueue, cert-manager."""
    deployment = plan.model.deployment
    wanted = {}
    if plan.keep and (deployment.autoscaling or deployment.router_autoscaling):
        wanted["KEDA"] = "scaledobjects.keda.sh"
    if plan.cluster.queue_name:
        wanted["Kueue"] = "workloads.kueue.x-k8s.io"
    if plan.cluster.invocation == "alb":
        wanted["cert-manager"] = "certificates.cert-manager.io"
    for addon, definition in wanted.items():
        if clients.api.get(DEFINITIONS, definition) is None:
            yield failed(addon, definition, "not installed", f"install {addon} on the cluster")
        else:
            yield passed(addon, definition)


def room_on_nodes(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """Healthy nodes of the type have room for the pods: accelerators, CPU, memory and pod slots."""
    name, deployment = "room on nodes", plan.model.deployment
    types = [item for item in (deployment.instance_type, *deployment.instance_types) if item]
    nodes = clients.api.list(NODES)
    fitting = [node for node in nodes if not types or names.label(node, names.INSTANCE_LABEL) in types]
    if not fitting:
        present = sorted({names.label(node, names.INSTANCE_LABEL) for node in nodes} - {""})
        fix = f"add an instance group of that type, or use one of: {', '.join(present) or 'none'}"
        yield failed(name, " or ".join(types), "no such node", fix)
        return
    healthy = [node for node in fitting if not unfit(node)]
    if not healthy:
        why = "; ".join(f"{node['metadata']['name']}: {unfit(node)}" for node in fitting[:5])
        yield failed(name, "a schedulable healthy node", why, "wait for the repair, or add instances")
        return
    yield _fits(name, demand_of(plan), _rooms(healthy, clients))


def _rooms(nodes: list[dict[str, Any]], clients: Clients) -> list[NodeRoom]:
    own = {node["metadata"]["name"] for node in nodes}
    pods = [pod for pod in clients.api.list(PODS) if (pod.get("spec") or {}).get("nodeName") in own]
    return [node_room(node, pods) for node in nodes]


def _fits(name: str, demand: Demand, rooms: list[NodeRoom]) -> Check:
    slots = sum(room.fits(demand) for room in rooms)
    need = f"{demand.pods} x {demand}"
    if slots >= demand.pods:
        return passed(name, f"room for {slots}", need)
    free = "; ".join(str(room) for room in rooms[:5])
    fix = "wait for capacity, add instances, or ask for less"
    return failed(name, need, f"room for {slots}; free: {free}", fix, FailureClass.CAPACITY)


def unfit(node: dict[str, Any]) -> str:
    """Return why a node takes no new pods, an empty string when it does."""
    if (node.get("spec") or {}).get("unschedulable"):
        return "cordoned"
    held = {item.type: item.status for item in conditions(node.get("status") or {})}
    if held.get("Ready", "True") != "True":
        return "not ready"
    health, deep = names.label(node, HEALTH_LABEL), names.label(node, DEEP_CHECK_LABEL)
    if health and not health.startswith("Schedulable"):
        return f"node health {health}"
    return f"deep health check {deep}" if deep in ("InProgress", "Failed") else ""


def quota(plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    """The queue exists and takes work."""
    queue = plan.cluster.queue_name
    if not queue:
        return
    name = "queue"
    item = clients.api.get(LOCAL_QUEUES, queue, plan.cluster.namespace)
    if item is None:
        fix = "create the team's compute quota (task governance), or correct queue_name on the cluster"
        yield failed(name, f"{plan.cluster.namespace}/{queue}", "no such LocalQueue", fix)
        return
    status = item.get("status") or {}
    stopped = [entry for entry in conditions(status) if entry.type == "Active" and entry.status == "False"]
    if stopped:
        yield failed(name, "active", stopped[0].message or "inactive", "resume the queue or its cluster queue")
        return
    yield passed(
        name, f"{queue}: {status.get('pendingWorkloads', 0)} waiting, {status.get('admittedWorkloads', 0)} admitted"
    )
