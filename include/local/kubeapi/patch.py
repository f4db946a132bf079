"""Patches: JSON merge (RFC 7386), JSON patch (RFC 6902), strategic and server-side apply as far as we need them."""

from __future__ import annotations

import copy
from typing import Any

from include.local.kubeapi.store import ApiFault

MERGE_KEYS = {
    "containers": "name", "initContainers": "name", "volumes": "name", "env": "name", "ports": "port",
    "conditions": "type", "ownerReferences": "uid", "tolerations": "key",
}  # fmt: skip


def merge(target: Any, patch: Any) -> Any:
    """JSON merge patch."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Any, patch: Any, field: str = "") -> Any:
    """Strategic merge: as a merge patch, but lists of named things merge by their key."""
    if isinstance(patch, list) and isinstance(target, list) and field in MERGE_KEYS:
        key = MERGE_KEYS[field]
        result = [copy.deepcopy(item) for item in target]
        for item in patch:
            place = next((i for i, old in enumerate(result) if old.get(key) == item.get(key)), None)
            if item.get("$patch") == "delete":
                result = [old for old in result if old.get(key) != item.get(key)]
            elif place is None:
                result.append(item)
            else:
                result[place] = strategic(result[place], item)
        return result
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    merged: dict[str, Any] = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = strategic(merged.get(name), value, name)
    return merged


def json_patch(target: Any, operations: list[dict[str, Any]]) -> Any:
    """JSON patch.

    :raises ApiFault: 422 when a ``test`` fails or a path does not exist.
    """
    document = copy.deepcopy(target)
    for operation in operations:
        document = _apply(document, operation)
    return document


def _apply(document: Any, operation: dict[str, Any]) -> Any:
    parts = [part.replace("~1", "/").replace("~0", "~") for part in str(operation["path"]).split("/")[1:]]
    try:
        parent = document
        for part in parts[:-1]:
            parent = parent[int(part)] if isinstance(parent, list) else parent[part]
        last: Any = parts[-1]
        if isinstance(parent, list):
            last = len(parent) if last == "-" else int(last)
        _change(parent, last, operation)
    except (KeyError, IndexError, ValueError, TypeError) as error:
        raise ApiFault(422, "Invalid", f"jsonpatch {operation['op']} {operation['path']}: {error}") from error
    return document


def _change(parent: Any, last: Any, operation: dict[str, Any]) -> None:
    op = operation["op"]
    if op == "test":
        if parent[last] != operation["value"]:
            raise ValueError("test failed")
    elif op == "remove":
        del parent[last]
    elif op == "add" and isinstance(parent, list):
        parent.insert(last, operation["value"])
    elif op in ("add", "replace"):
        if op == "replace":
            parent[last]
        parent[last] = operation["value"]
    else:
        raise ValueError(f"operation {op} is not supported")
