"""Strict validation of an object against a structural schema, as an API server does it, but all at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from jsonschema import Draft4Validator
from jsonschema import ValidationError as SchemaError
from jsonschema.validators import extend

from include.canonical import canonical_json
from include.endpoint.problems import Problem, problem

INTEGER_BITS = {"int32": 31, "int64": 63}


def _unknown_fields(
    _validator: Any, properties: Mapping[str, Any], instance: Any, schema: Any
) -> Iterator[SchemaError]:
    open_ended = schema.get("additionalProperties") or schema.get("x-kubernetes-preserve-unknown-fields")
    if not isinstance(instance, dict) or open_ended or schema.get("x-open"):
        return
    for name in instance:
        if name not in properties:
            near = difflib.get_close_matches(name, properties, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            yield SchemaError(f"no such field; {hint}remove or correct it", path=[name], validator="unknown")


def _list_map_keys(_validator: Any, keys: list[str], instance: Any, _schema: Any) -> Iterator[SchemaError]:
    if not isinstance(instance, list):
        return
    seen: set[tuple[str, ...]] = set()
    for index, item in enumerate(instance):
        if not isinstance(item, dict):
            continue
        identity = tuple(repr(item.get(key)) for key in keys)
        if identity in seen:
            named = " and ".join(keys)
            yield SchemaError(f"a second entry with the same {named}; keep one", path=[index])
        seen.add(identity)


def _list_type(_validator: Any, kind: str, instance: Any, _schema: Any) -> Iterator[SchemaError]:
    if kind == "set" and isinstance(instance, list):
        for index, item in enumerate(instance):
            if item in instance[:index]:
                yield SchemaError("written twice in a set; keep one", path=[index])


def _int_format(_validator: Any, name: str, instance: Any, _schema: Any) -> Iterator[SchemaError]:
    bits = INTEGER_BITS.get(name)
    if bits and isinstance(instance, int) and not -(2**bits) <= instance < 2**bits:
        yield SchemaError(f"does not fit into {name}", validator="format")


def _properties(validator: Any, properties: Any, instance: Any, schema: Any) -> Iterator[SchemaError]:
    yield from _unknown_fields(validator, properties, instance, schema)
    yield from Draft4Validator.VALIDATORS["properties"](validator, properties, instance, schema)


_Validator: Any = extend(  # type: ignore[no-untyped-call]
    Draft4Validator,
    {
        "properties": _properties,
        "x-kubernetes-list-map-keys": _list_map_keys,
        "x-kubernetes-list-type": _list_type,
        "format": _int_format,
    },
)


@lru_cache(maxsize=16)
def _compiled(schema: bytes) -> Any:
    import json

    return _Validator(json.loads(schema))


def check(value: Any, schema: Mapping[str, Any], *, at: str = "spec") -> list[Problem]:
    """Return every violation of ``schema`` (OpenAPI v3, structural) in ``value``.

    Unknown fields, types, enums, patterns, bounds, lengths, required fields, repeated keys of list-maps.

    :param at: dotted path of ``value``, for the report.
    """
    found: list[Problem] = []
    for error in _compiled(canonical_json(schema)).iter_errors(value):
        found += _explain(error, at)
    return sorted(found, key=lambda item: item.field)


def _explain(error: SchemaError, at: str) -> Iterator[Problem]:
    where = at + "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.absolute_path)
    if error.validator == "required":
        missing = re.match(r"'(.+)' is a required property", error.message)
        name = missing.group(1) if missing else "?"
        yield problem(f"{where}.{name}", "absent", "this field is required; add it")
        return
    value = "present" if error.validator == "unknown" else error.instance
    yield problem(where, value, _fix(error))


def _fix(error: SchemaError) -> str:
    limit = error.validator_value
    sentences = {
        "type": f"must be of type {limit}",
        "enum": f"must be one of {limit}",
        "pattern": f"must match {limit}",
        "minimum": f"must be at least {limit}",
        "maximum": f"must be at most {limit}",
        "maxLength": f"must have at most {limit} characters",
        "minLength": f"must have at least {limit} characters",
        "maxItems": f"must have at most {limit} entries",
        "minItems": f"must have at least {limit} entries",
        "maxProperties": f"must have at most {limit} entries",
        "anyOf": "must be a whole number or a string",
    }
    return sentences.get(str(error.validator), error.message)


def paths_in(value: Any, schema: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths in ``value`` that ``schema`` does not know; list indexes are left out."""
    if isinstance(value, dict) and "properties" in schema:
        for name, item in value.items():
            path = f"{prefix}.{name}" if prefix else name
            if name in schema["properties"]:
                yield from paths_in(item, schema["properties"][name], path)
            else:
                yield path
    elif isinstance(value, list) and "items" in schema:
        for item in value:
            yield from paths_in(item, schema["items"], prefix)
