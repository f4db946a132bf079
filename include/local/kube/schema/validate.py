"""Check a value against a structural schema and report every violation at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from include.local.kube.schema import causes
from include.local.kube.schema.causes import Cause
from include.local.kube.schema.notation import Schema

_INTEGER_RANGES = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def validate(value: Any, schema: Schema, path: str = "") -> list[Cause]:
    """Return all violations below ``path``, an empty list when there are none."""
    return list(_check(value, schema, path))


def _check(value: Any, schema: Schema, path: str) -> Iterator[Cause]:
    if value is None and schema.get("nullable"):
        return
    expected = _type_error(value, schema)
    if expected:
        yield causes.wrong_type(path, value, expected)
        return
    if "enum" in schema and value not in schema["enum"]:
        yield causes.unsupported(path, value, schema["enum"])
    if isinstance(value, str):
        yield from _check_string(value, schema, path)
    elif isinstance(value, dict):
        yield from _check_object(value, schema, path)
    elif isinstance(value, list):
        yield from _check_list(value, schema, path)
    elif not isinstance(value, bool):
        yield from _check_number(value, schema, path)


def _type_error(value: Any, schema: Schema) -> str | None:
    """Return the expected type's name when the value's JSON type is another."""
    actual = causes.json_type(value)
    if schema.get("x-kubernetes-int-or-string"):
        return None if actual in ("integer", "string") else "integer,string"
    expected = schema.get("type")
    if expected is None or actual == expected or (expected == "number" and actual == "integer"):
        return None
    if expected == "integer" and actual == "number" and float(value).is_integer():
        return None
    return str(expected)


@lru_cache(maxsize=1024)
def _pattern(text: str) -> re.Pattern[str]:
    """Compile an RE2 pattern: there ``$`` is the very end, and classes are ASCII."""
    translated, bracket, index = "", False, 0
    while index < len(text):
        char = text[index]
        if char == "\\":
            translated += text[index : index + 2]
            index += 2
            continue
        if char in "[]":
            bracket = char == "["
        translated += r"\Z" if char == "$" and not bracket else char
        index += 1
    return re.compile(translated, re.ASCII)


def _check_string(value: str, schema: Schema, path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxLength", len(value)):
        yield causes.too_long(path, schema["maxLength"])
    if len(value) < schema.get("minLength", 0):
        least = schema["minLength"]
        yield causes.invalid(path, value, f"{path} in body should be at least {least} chars long")
    if "pattern" in schema and not _pattern(schema["pattern"]).search(value):
        yield causes.invalid(path, value, f"{path} in body should match '{schema['pattern']}'")
    if schema.get("format") == "date-time" and not _is_time(value):
        yield causes.invalid(path, value, f'{path} in body must be of type date-time: "{value}"')


def _is_time(value: str) -> bool:
    if not _DATE_TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value[:19].upper())
    except ValueError:
        return False
    return True


def _check_number(value: float, schema: Schema, path: str) -> Iterator[Cause]:
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and value < low:
        yield causes.invalid(path, value, f"{path} in body should be greater than or equal to {low}")
    if high is not None and value > high:
        yield causes.invalid(path, value, f"{path} in body should be less than or equal to {high}")
    bounds = _INTEGER_RANGES.get(schema.get("format", ""))
    if bounds and not bounds[0] <= value <= bounds[1]:
        yield causes.invalid(path, value, f"{path} in body must be of type {schema['format']}: {value}")


def _check_object(value: dict[str, Any], schema: Schema, path: str) -> Iterator[Cause]:
    for name in schema.get("required", ()):
        if name not in value:
            yield causes.required(_join(path, name))
    properties = schema.get("properties", {})
    additional = schema.get("additionalProperties")
    for key, item in value.items():
        if key in properties:
            yield from _check(item, properties[key], _join(path, key))
        elif isinstance(additional, dict):
            yield from _check(item, additional, _join(path, key))


def _check_list(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    if len(value) > schema.get("maxItems", len(value)):
        yield causes.too_many(path, len(value), schema["maxItems"])
    if len(value) < schema.get("minItems", 0):
        least = schema["minItems"]
        yield causes.invalid(path, len(value), f"{path} in body should have at least {least} items")
    items = schema.get("items", {})
    for index, item in enumerate(value):
        yield from _check(item, items, f"{path}[{index}]")
    yield from _check_unique(value, schema, path)


def _check_unique(value: list[Any], schema: Schema, path: str) -> Iterator[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in ("map", "set"):
        return
    seen: list[Any] = []
    for index, item in enumerate(value):
        key: Any = item
        if kind == "map":
            if not isinstance(item, dict):
                continue
            key = {name: item.get(name) for name in schema["x-kubernetes-list-map-keys"]}
            key = {name: part for name, part in key.items() if part is not None}
        if key in seen:
            yield causes.duplicate(f"{path}[{index}]", key)
        seen.append(key)


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key
