"""Which pods fit: instance type, schedulability, requests against what is allocatable. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import Decimal

from include.local.controller.resources import Object


def quantity(text: object) -> Decimal:
    """Return the value of a Kubernetes quantity: ``500m`` is 0.5, ``1Gi`` is 1073741824."""
    from kubernetes.utils.quantity import parse_quantity

    return Decimal(parse_quantity(text))


def requests_of(pod: Object) -> dict[str, Decimal]:
    """Sum of the containers' requests; limits stand in for extended resources without a request."""
    total: dict[str, Decimal] = {}
    for container in pod["spec"]["containers"]:
        resources = container.get("resources") or {}
        wanted = {**(resources.get("limits") or {}), **(resources.get("requests") or {})}
        for name, amount in wanted.items():
            total[name] = total.get(name, Decimal(0)) + quantity(amount)
    return total


def why_not(pod: Object, node: Object, others: Iterable[Object]) -> str | None:
    """Return why the pod does not fit on the node, in the scheduler's words; ``None`` when it fits."""
    labels = node["metadata"].get("labels") or {}
    selector = pod["spec"].get("nodeSelector") or {}
    if any(labels.get(name) != value for name, value in selector.items()) or not _affine(pod, labels):
        return "node(s) didn't match Pod's node affinity/selector"
    if node["spec"].get("unschedulable"):
        return "node(s) were unschedulable"
    taint = _intolerable(pod, node)
    if taint:
        return f"node(s) had untolerated taint {{{taint}: }}"
    placed = [other for other in others if other["spec"].get("nodeName") == node["metadata"]["name"]]
    if any(_repelled(pod, other) for other in placed):
        return "node(s) didn't match pod anti-affinity rules"
    return _no_room(pod, node, placed)


def _no_room(pod: Object, node: Object, placed: list[Object]) -> str | None:
    allocatable = {name: quantity(amount) for name, amount in node["status"]["allocatable"].items()}
    if len(placed) + 1 > allocatable.get("pods", Decimal(110)):
        return "Too many pods"
    used: dict[str, Decimal] = {}
    for other in placed:
        if (other.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
            continue
        for name, amount in requests_of(other).items():
            used[name] = used.get(name, Decimal(0)) + amount
    for name, amount in requests_of(pod).items():
        if amount > allocatable.get(name, Decimal(0)) - used.get(name, Decimal(0)):
            return f"Insufficient {name}"
    return None


def preference(pod: Object, node: Object) -> int:
    """Sum of the weights of the preferred node terms that a node meets."""
    labels = node["metadata"].get("labels") or {}
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    return sum(
        int(term["weight"])
        for term in affinity.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        if _term(term["preference"], labels)
    )


def _repelled(pod: Object, other: Object) -> bool:
    """True when a required anti-affinity of the pod is about another on the same node; the topology is the node."""
    if (other.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return False
    meta, affinity = other["metadata"], (pod["spec"].get("affinity") or {}).get("podAntiAffinity") or {}
    for term in affinity.get("requiredDuringSchedulingIgnoredDuringExecution") or ():
        wanted = (term.get("labelSelector") or {}).get("matchLabels") or {}
        spaces = term.get("namespaces") or [pod["metadata"].get("namespace")]
        labels = meta.get("labels") or {}
        if meta.get("namespace") in spaces and all(labels.get(name) == value for name, value in wanted.items()):
            return True
    return False


def _affine(pod: Object, labels: dict[str, str]) -> bool:
    affinity = (pod["spec"].get("affinity") or {}).get("nodeAffinity") or {}
    required = affinity.get("requiredDuringSchedulingIgnoredDuringExecution")
    return not required or any(_term(term, labels) for term in required["nodeSelectorTerms"])


def _term(term: Object, labels: dict[str, str]) -> bool:
    return all(_expression(expression, labels) for expression in term.get("matchExpressions") or ())


def _expression(expression: Object, labels: dict[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or []
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return value is not None and int(value) > int(values[0])
        case "Lt":
            return value is not None and int(value) < int(values[0])
    return False


def _intolerable(pod: Object, node: Object) -> str:
    """Key of a taint of the node that the pod does not tolerate; empty when there is none."""
    tolerations = pod["spec"].get("tolerations") or ()
    for taint in node["spec"].get("taints") or ():
        if taint["effect"] == "PreferNoSchedule":
            continue
        if not any(t.get("key") in (None, "", taint["key"]) for t in tolerations):
            return str(taint["key"])
    return ""
