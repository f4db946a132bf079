"""Delete: preconditions, grace, finalizers, and what the answer contains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from include.local.kube.clock import timestamp
from include.local.kube.cluster import Cluster
from include.local.kube.errors import bad_request, conflict
from include.local.kube.resources import Resource
from include.local.kube.store import Record

Object = dict[str, Any]
ORPHAN, FOREGROUND = "orphan", "foregroundDeletion"
_POLICIES = ("Background", "Foreground", "Orphan")


@dataclass(frozen=True)
class DeleteOptions:
    """What a client asked for in a deletion."""

    uid: str | None = None
    version: str | None = None
    policy: str | None = None
    grace_seconds: int | None = None
    dry_run: bool = False


def options_of(body: Any, query: dict[str, str]) -> DeleteOptions:
    """Read DeleteOptions from a request's body and query; the body wins.

    :raises ApiError: 400 when an option has no valid value.
    """
    if body is None:
        body = {}
    if not isinstance(body, dict):
        raise bad_request("the body of a delete request must be DeleteOptions")
    preconditions = body.get("preconditions") or {}
    orphan = body.get("orphanDependents")
    policy = body.get("propagationPolicy") or query.get("propagationPolicy")
    if policy is None and orphan is not None:
        policy = "Orphan" if orphan else "Background"
    if policy is not None and policy not in _POLICIES:
        raise bad_request(f'invalid propagationPolicy "{policy}": supported values: {", ".join(_POLICIES)}')
    grace = body.get("gracePeriodSeconds", query.get("gracePeriodSeconds"))
    dry_run = body.get("dryRun") or [value for key, value in query.items() if key == "dryRun" and value]
    try:
        seconds = None if grace is None else max(0, int(grace))
    except (TypeError, ValueError):
        raise bad_request(f"invalid gracePeriodSeconds: {grace!r}") from None
    return DeleteOptions(
        uid=preconditions.get("uid"),
        version=preconditions.get("resourceVersion"),
        policy=policy,
        grace_seconds=seconds,
        dry_run=bool(dry_run),
    )


def delete(cluster: Cluster, resource: Resource, record: Record, options: DeleteOptions) -> tuple[bool, Record]:
    """Delete an object, or mark it when something has to happen first.

    :returns: whether it is gone, and its last version.
    :raises ApiError: 409 when a precondition does not hold.
    """
    _check(resource, record, options)
    meta = dict(record.object["metadata"])
    item = {**record.object, "metadata": meta}
    grace = _grace(resource, record, options)
    finalizers = _finalizers(resource, meta, options)
    waits = bool(finalizers) or grace > 0 or _has_content_to_delete(resource, item)
    if options.dry_run:
        return not waits, record
    if not waits:
        return True, cluster.store.remove(resource.key, record)
    if meta.get("deletionTimestamp") and meta.get("deletionGracePeriodSeconds", 0) <= grace:
        return False, _write_if(cluster, resource, record, item, finalizers)
    meta["deletionTimestamp"] = meta.get("deletionTimestamp") or timestamp(grace)
    meta["deletionGracePeriodSeconds"] = grace
    if meta.get("generation"):
        meta["generation"] += 1
    if resource.kind == "Namespace":
        item["status"] = {**item.get("status", {}), "phase": "Terminating"}
    return False, _write_if(cluster, resource, record, item, finalizers)


def _write_if(cluster: Cluster, resource: Resource, record: Record, item: Object, finalizers: list[str]) -> Record:
    if finalizers:
        item["metadata"]["finalizers"] = finalizers
    if item == record.object:
        return record
    return cluster.store.write(resource.key, item)


def _check(resource: Resource, record: Record, options: DeleteOptions) -> None:
    meta = record.object["metadata"]
    pairs = (("UID", options.uid, meta["uid"]), ("ResourceVersion", options.version, meta["resourceVersion"]))
    for label, wanted, actual in pairs:
        if wanted is not None and wanted != actual:
            why = f"Precondition failed: {label} in precondition: {wanted}, {label} in object meta: {actual}"
            raise conflict(meta["name"], resource.plural, resource.group, why)


def _grace(resource: Resource, record: Record, options: DeleteOptions) -> int:
    """Seconds that a pod gets to stop; a pod that runs nowhere gets none."""
    if resource.key != "/pods":
        return 0
    spec, status = record.object["spec"], record.object.get("status", {})
    if not spec.get("nodeName") or status.get("phase") in ("Succeeded", "Failed"):
        return 0
    grace = options.grace_seconds
    return int(spec.get("terminationGracePeriodSeconds", 30)) if grace is None else grace


def _finalizers(resource: Resource, meta: Object, options: DeleteOptions) -> list[str]:
    finalizers = list(meta.get("finalizers", ()))
    policy = options.policy
    if policy is None and resource.key == "batch/jobs":
        policy = "Orphan"
    if policy is None:
        return finalizers
    finalizers = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    if policy == "Orphan":
        finalizers.append(ORPHAN)
    elif policy == "Foreground":
        finalizers.append(FOREGROUND)
    return finalizers


def _has_content_to_delete(resource: Resource, item: Object) -> bool:
    return resource.kind == "Namespace" and bool(item.get("spec", {}).get("finalizers"))


def answer(resource: Resource, gone: bool, record: Record) -> Object:
    """Return the body of a DELETE answer: the object while it exists, then an object or a Status by kind."""
    if not gone or resource.returns_object:
        return record.object
    meta = record.object["metadata"]
    details = {"name": meta["name"], "kind": resource.plural, "uid": meta["uid"]}
    if resource.group:
        details["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}
