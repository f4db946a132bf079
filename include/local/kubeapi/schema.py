"""Custom resources against their schema: defaults, pruning, strictness, every violation at once."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from include.endpoint.schema import check
from include.local.kubeapi.kinds import Kind
from include.local.kubeapi.store import ApiFault


def admit(kind: Kind, item: dict[str, Any], field_validation: str) -> list[str]:
    """Fill defaults in place, prune or refuse unknown fields, check the rest; return warnings.

    :raises ApiFault: 400 for unknown fields under Strict, 422 with all causes for invalid ones.
    """
    if kind.schema is None:
        return []
    schema = dict(kind.schema)
    unknown = list(_prune(item, schema, ""))
    if unknown and field_validation == "Strict":
        said = ", ".join(f'unknown field "{path}"' for path in unknown)
        raise ApiFault(400, "BadRequest", f"strict decoding error: {said}")
    _default(item, schema)
    problems = [
        found
        for part in ("spec", "status")
        if part in schema.get("properties", {}) and (part in item or part in schema.get("required", ()))
        for found in check(item.get(part, {}), schema["properties"][part], at=part)
    ]
    if problems:
        name = item.get("metadata", {}).get("name", "")
        causes = [{"reason": "FieldValueInvalid", "message": f"{p.value}: {p.fix}", "field": p.field} for p in problems]
        said = ", ".join(f"{p.field}: Invalid value: {p.value}: {p.fix}" for p in problems)
        details = {"name": name, "group": kind.group, "kind": kind.kind, "causes": causes}
        raise ApiFault(422, "Invalid", f'{kind.kind}.{kind.group} "{name}" is invalid: {said}', details)
    return [f'unknown field "{path}"' for path in unknown] if field_validation == "Warn" else []


def _prune(value: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _prune(item, schema.get("items") or {}, f"{path}[{index}]")
        return
    if not isinstance(value, dict) or schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    properties = schema.get("properties")
    extra = schema.get("additionalProperties")
    if properties is None:
        if isinstance(extra, dict):
            for name, item in value.items():
                yield from _prune(item, extra, f"{path}.{name}".lstrip("."))
        return
    for name in list(value):
        where = f"{path}.{name}".lstrip(".")
        if not path and name in ("apiVersion", "kind", "metadata"):
            continue
        if name in properties:
            yield from _prune(value[name], properties[name], where)
        elif not extra:
            del value[name]
            yield where


def _default(value: Any, schema: dict[str, Any]) -> None:
    if isinstance(value, list):
        for item in value:
            _default(item, schema.get("items") or {})
    if not isinstance(value, dict):
        return
    for name, part in (schema.get("properties") or {}).items():
        if name not in value and "default" in part:
            value[name] = part["default"]
        if name in value:
            _default(value[name], part)
