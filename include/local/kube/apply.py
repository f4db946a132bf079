"""Server-side apply: merge by ownership, conflicts, removal of what is no longer applied."""

from __future__ import annotations

import copy
import json
from typing import Any

from include.local.kube.errors import ApiError, bad_request
from include.local.kube.managed import Leaves, Managers, Path, child_schema, key_step, leaves, readable
from include.local.kube.schema.notation import Schema

Object = dict[str, Any]


def track_update(
    old: Object | None, new: Object, schema: Schema, manager: str, subresource: str, api_version: str, now: str
) -> None:
    """Record in ``new`` that ``manager`` changed what differs from ``old``."""
    before: Leaves = leaves(old, schema) if old else {}
    after = leaves(new, schema)
    changed = {path for path, value in after.items() if path not in before or before[path] != value}
    removed = set(before) - set(after)
    managers = Managers((old or new)["metadata"].get("managedFields") if old else None)
    mine = managers.owned(manager, "Update", subresource)
    managers.release(changed | removed, keep=(manager, "Update"))
    managers.assign(manager, "Update", subresource, (mine - removed) | changed, api_version, now)
    new["metadata"]["managedFields"] = managers.entries()


def apply(
    live: Object, wanted: Object, schema: Schema, manager: str, *, force: bool, subresource: str, now: str
) -> Object:
    """Return ``live`` with the applied configuration merged in.

    :raises ApiError: 409 when another manager owns a field that would change, unless ``force``.
    """
    if wanted.get("metadata", {}).get("managedFields"):
        raise bad_request("metadata.managedFields must be nil")
    applied = leaves(wanted, schema)
    current = leaves(live, schema)
    managers = Managers(live["metadata"].get("managedFields"))
    taken = _conflicts(managers, manager, applied, current)
    if taken and not force:
        raise _conflict_error(taken)
    abandoned = managers.owned(manager, "Apply", subresource) - set(applied)
    for fields in (set(applied), *(fields for _, _, fields, _ in managers.others(manager, "Apply"))):
        abandoned -= {path[:length] for path in fields for length in range(1, len(path) + 1)}
    result: Object = _merge(live, wanted, schema)
    _remove(result, abandoned, schema)
    managers.release({path for *_, path in taken} | abandoned, keep=(manager, "Apply"))
    api_version: str = wanted.get("apiVersion") or live.get("apiVersion") or ""
    managers.assign(manager, "Apply", subresource, set(applied), api_version, now)
    result["metadata"] = {**result["metadata"], "managedFields": managers.entries()}
    return result


def _conflicts(managers: Managers, manager: str, applied: Leaves, current: Leaves) -> list[tuple[str, str, Path]]:
    """Return (owner, api version, path) of every field that somebody else owns with another value."""
    found = []
    for name, operation, fields, api_version in managers.others(manager, "Apply"):
        label = f'"{name}"' + ("" if operation == "Apply" else f" using {api_version}")
        for path in sorted(fields & set(applied)):
            if path in current and current[path] != applied[path]:
                found.append((label, api_version, path))
    return found


def _conflict_error(taken: list[tuple[str, str, Path]]) -> ApiError:
    noun = "conflict" if len(taken) == 1 else "conflicts"
    lines = [f"conflict with {owner}: {readable(path)}" for owner, _, path in taken]
    causes = [
        {"reason": "FieldManagerConflict", "message": f"conflict with {owner}", "field": readable(path)}
        for owner, _, path in taken
    ]
    message = f"Apply failed with {len(taken)} {noun}: " + "; ".join(lines)
    return ApiError(409, "Conflict", message, {"causes": causes})


def _merge(current: Any, wanted: Any, schema: Schema) -> Any:
    if isinstance(wanted, dict) and isinstance(current, dict):
        if schema.get("x-kubernetes-map-type") == "atomic":
            return copy.deepcopy(wanted)
        result = dict(current)
        for key, value in wanted.items():
            child = child_schema(schema, key)
            result[key] = _merge(current[key], value, child) if key in current else copy.deepcopy(value)
        return result
    if isinstance(wanted, list) and isinstance(current, list):
        return _merge_list(current, wanted, schema)
    return copy.deepcopy(wanted)


def _merge_list(current: list[Any], wanted: list[Any], schema: Schema) -> list[Any]:
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        return current + [item for item in wanted if item not in current]
    if kind != "map":
        return copy.deepcopy(wanted)
    merged = list(current)
    places = {key_step(item, schema): index for index, item in enumerate(current)}
    for item in wanted:
        at = places.get(key_step(item, schema))
        if at is None:
            merged.append(copy.deepcopy(item))
        else:
            merged[at] = _merge(merged[at], item, schema.get("items", {}))
    return merged


def _remove(item: Object, paths: set[Path], schema: Schema) -> None:
    """Delete fields in place; containers along the way are copied, because ``item`` shares them."""
    for path in sorted(paths, key=len, reverse=True):
        _remove_one(item, path, schema)


def _remove_one(container: Any, path: Path, schema: Schema) -> Any:
    step, rest = path[0], path[1:]
    if step.startswith("f:") and isinstance(container, dict):
        key = step[2:]
        if key in container:
            if rest:
                container[key] = _remove_one(copy.copy(container[key]), rest, child_schema(schema, key))
            if not rest or container[key] in ({}, []):
                del container[key]
    elif step.startswith("k:") and isinstance(container, list):
        return _remove_entry(container, step, rest, schema)
    elif step.startswith("v:") and isinstance(container, list):
        return [item for item in container if leaf_text(item) != step[2:]]
    return container


def _remove_entry(container: list[Any], step: str, rest: Path, schema: Schema) -> list[Any]:
    kept = []
    for item in container:
        if key_step(item, schema) != step:
            kept.append(item)
        elif rest and rest != (".",):
            kept.append(_remove_one(copy.copy(item), rest, schema.get("items", {})))
    return kept


def leaf_text(item: Any) -> str:
    """Return the text by which a set entry is named."""
    return json.dumps(item, separators=(",", ":"), sort_keys=True)
