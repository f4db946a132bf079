"""Lists as tables, which is how kubectl asks for them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from include.local.kube.resources import Resource

Object = dict[str, Any]
Cell = Callable[[Object], Any]
MEDIA_TYPE = "as=Table"


def path(text: str, default: Any = "<none>") -> Cell:
    """Return a column that shows one field."""
    keys = text.lstrip(".").split(".")

    def cell(item: Object) -> Any:
        value: Any = item
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        return default if value is None else value

    return cell


def age(item: Object) -> str:
    """Return how long ago an object was created, as kubectl writes it."""
    text = item["metadata"].get("creationTimestamp")
    if not text:
        return "<unknown>"
    seconds = int((datetime.now(UTC) - datetime.fromisoformat(text.replace("Z", "+00:00"))).total_seconds())
    for size, unit, below in ((1, "s", 120), (60, "m", 7200), (3600, "h", 172800)):
        if seconds < below:
            return f"{max(0, seconds) // size}{unit}"
    return f"{seconds // 86400}d"


def _containers(item: Object) -> list[Object]:
    found: list[Object] = item.get("status", {}).get("containerStatuses", [])
    return found


def _pod_ready(item: Object) -> str:
    ready = sum(bool(status.get("ready")) for status in _containers(item))
    return f"{ready}/{len(item['spec'].get('containers', ()))}"


def _pod_status(item: Object) -> str:
    if item["metadata"].get("deletionTimestamp"):
        return "Terminating"
    for status in _containers(item):
        state = status.get("state", {})
        for kind in ("waiting", "terminated"):
            if state.get(kind, {}).get("reason"):
                return str(state[kind]["reason"])
    status = item.get("status", {})
    return str(status.get("reason") or status.get("phase", "Unknown"))


def _restarts(item: Object) -> int:
    return sum(status.get("restartCount", 0) for status in _containers(item))


def _ready_replicas(item: Object) -> str:
    return f"{item.get('status', {}).get('readyReplicas', 0)}/{item['spec'].get('replicas', 1)}"


def _node_status(item: Object) -> str:
    for condition in item.get("status", {}).get("conditions", ()):
        if condition["type"] == "Ready":
            ready = "Ready" if condition["status"] == "True" else "NotReady"
            return ready + (",SchedulingDisabled" if item["spec"].get("unschedulable") else "")
    return "Unknown"


def _involved(item: Object) -> str:
    involved = item["involvedObject"]
    return f"{involved.get('kind', '').lower()}/{involved.get('name', '')}"


def _service_ports(item: Object) -> str:
    ports = item["spec"].get("ports", ())
    return ",".join(f"{port['port']}/{port.get('protocol', 'TCP')}" for port in ports) or "<none>"


def _job_status(item: Object) -> str:
    for condition in item.get("status", {}).get("conditions", ()):
        if condition["status"] == "True":
            return str(condition["type"])
    return "Running"


def _job_done(item: Object) -> str:
    return f"{item.get('status', {}).get('succeeded', 0)}/{item['spec'].get('completions', 1)}"


_COLUMNS: dict[str, tuple[tuple[str, Cell], ...]] = {
    "/pods": (("Ready", _pod_ready), ("Status", _pod_status), ("Restarts", _restarts)),
    "/nodes": (("Status", _node_status), ("Version", path("status.nodeInfo.kubeletVersion"))),
    "/namespaces": (("Status", path("status.phase")),),
    "/services": (
        ("Type", path("spec.type")),
        ("Cluster-IP", path("spec.clusterIP")),
        ("Port(s)", _service_ports),
    ),
    "/events": (
        ("Type", path("type")),
        ("Reason", path("reason")),
        ("Object", _involved),
        ("Message", path("message")),
    ),
    "/persistentvolumeclaims": (("Status", path("status.phase")), ("Volume", path("spec.volumeName", ""))),
    "/persistentvolumes": (("Status", path("status.phase")), ("Claim", path("spec.claimRef.name", ""))),
    "apps/deployments": (
        ("Ready", _ready_replicas),
        ("Up-to-date", path("status.updatedReplicas", 0)),
        ("Available", path("status.availableReplicas", 0)),
    ),
    "apps/replicasets": (("Desired", path("spec.replicas")), ("Ready", path("status.readyReplicas", 0))),
    "batch/jobs": (("Status", _job_status), ("Completions", _job_done)),
    "coordination.k8s.io/leases": (("Holder", path("spec.holderIdentity", "")),),
}  # fmt: skip


def columns(resource: Resource) -> tuple[tuple[str, Cell], ...]:
    """Return the columns between name and age."""
    if resource.columns:
        return tuple(
            (column["name"], path(column["jsonPath"]))
            for column in resource.columns
            if column["jsonPath"] != ".metadata.creationTimestamp"
        )
    return _COLUMNS.get(resource.key, ())


def table(resource: Resource, items: list[Object], metadata: Object, *, include: str = "Metadata") -> Object:
    """Return objects as a ``meta.k8s.io/v1`` Table.

    :param include: what of each object comes along: Metadata, Object or None.
    """
    shown = columns(resource)
    definitions = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "", "priority": 0}
        for name in ("Name", *(name for name, _ in shown), "Age")
    ]
    rows = [
        {"cells": [item["metadata"]["name"], *(cell(item) for _, cell in shown), age(item)]} | _along(item, include)
        for item in items
    ]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": definitions,
        "rows": rows,
    }


def _along(item: Object, include: str) -> Object:
    if include == "None":
        return {}
    if include == "Object":
        return {"object": item}
    partial = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item["metadata"]}
    return {"object": partial}
