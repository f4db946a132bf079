"""The scale subresource: replicas of any kind that has them, in one shape."""

from __future__ import annotations

import copy
from typing import Any

from include.local.kube.errors import bad_request, no_such_path
from include.local.kube.resources import Resource

Object = dict[str, Any]


def read(resource: Resource, item: Object) -> Object:
    """Return the ``autoscaling/v1`` Scale of an object.

    :raises ApiError: 404 when the kind has no scale.
    """
    if resource.scale is None:
        raise no_such_path()
    meta = item["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _at(item, resource.scale["statusReplicasPath"]) or 0}
    selector = _selector(resource, item)
    if selector:
        status["selector"] = selector
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": _at(item, resource.scale["specReplicasPath"]) or 0},
        "status": status,
    }


def _selector(resource: Resource, item: Object) -> str:
    if resource.custom:
        return str(_at(item, (resource.scale or {}).get("labelSelectorPath", "")) or "")
    labels = item["spec"].get("selector", {}).get("matchLabels", {})
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items()))


def write(resource: Resource, item: Object, scale: Any) -> Object:
    """Return a copy of an object with the replicas of a Scale.

    :raises ApiError: 400 when it is not a Scale.
    """
    spec = scale.get("spec") if isinstance(scale, dict) else None
    replicas = (spec or {}).get("replicas", 0)
    if not isinstance(replicas, int) or isinstance(replicas, bool) or replicas < 0:
        raise bad_request(f"spec.replicas: Invalid value: {replicas!r}: must be a number from 0 up")
    result = copy.deepcopy(item)
    keys = (resource.scale or {})["specReplicasPath"].lstrip(".").split(".")
    node = result
    for key in keys[:-1]:
        node = node.setdefault(key, {})
    node[keys[-1]] = replicas
    version = (scale.get("metadata") or {}).get("resourceVersion")
    if version:
        result["metadata"]["resourceVersion"] = version
    return result


def _at(item: Object, path: str) -> Any:
    node: Any = item
    for key in path.lstrip(".").split("."):
        node = node.get(key) if isinstance(node, dict) else None
    return node
