"""Remove what a schema does not know, and fill in what it gives a default."""

from __future__ import annotations

import copy
from typing import Any

from include.local.kube.schema.notation import Schema

_ROOT = frozenset({"apiVersion", "kind", "metadata"})


def prune(value: Any, schema: Schema, path: str = "", *, root: bool = True) -> list[str]:
    """Remove unknown fields in place.

    :param root: the value is a whole object, whose apiVersion, kind and metadata are always known.
    :returns: the paths removed, such as ``spec.worker.imagee``.
    """
    if isinstance(value, dict):
        return _prune_object(value, schema, path, root=root)
    if isinstance(value, list):
        items = schema.get("items")
        if items is None:
            return []
        return [gone for index, item in enumerate(value) for gone in prune(item, items, f"{path}[{index}]", root=False)]
    return []


def _prune_object(value: dict[str, Any], schema: Schema, path: str, *, root: bool) -> list[str]:
    properties = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    open_ended = schema.get("x-kubernetes-preserve-unknown-fields") or additional is True
    removed: list[str] = []
    for key in list(value):
        where = f"{path}.{key}" if path else key
        if root and key in _ROOT:
            continue
        if key in properties:
            removed += prune(value[key], properties[key], where, root=False)
        elif isinstance(additional, dict):
            removed += prune(value[key], additional, where, root=False)
        elif not open_ended and "type" in schema:
            del value[key]
            removed.append(where)
    return removed


def fill_defaults(value: Any, schema: Schema) -> None:
    """Set absent (and null, where null is not allowed) fields to their defaults, in place."""
    if isinstance(value, dict):
        for key, child in schema.get("properties", {}).items():
            if value.get(key, ...) is None and not child.get("nullable") and "default" in child:
                del value[key]
            if key not in value and "default" in child:
                value[key] = copy.deepcopy(child["default"])
            if key in value:
                fill_defaults(value[key], child)
        additional = schema.get("additionalProperties")
        if isinstance(additional, dict):
            for item in value.values():
                fill_defaults(item, additional)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            fill_defaults(item, schema["items"])


def drop_nulls(value: Any, schema: Schema) -> None:
    """Remove null properties that the schema does not call nullable, in place."""
    if isinstance(value, dict):
        for key, child in schema.get("properties", {}).items():
            if key in value and value[key] is None and not child.get("nullable"):
                del value[key]
            elif key in value:
                drop_nulls(value[key], child)
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            drop_nulls(item, schema["items"])
