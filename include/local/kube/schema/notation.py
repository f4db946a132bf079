"""A compact way to write structural schemas, expanded into OpenAPI v3.

An expression is one of::

    string | boolean | integer | int32 | int64 | number | date-time | quantity | int-or-string | object | any
    TypeName                      a type of the ``types`` section
    [X]                           array of X
    {'*': X}                      map from string to X
    {a: X, b!: Y}                 object; ``!`` marks a required property
    {$type: X, minimum: 1, ...}   X with OpenAPI keywords; ``keys``, ``set`` and ``atomic`` are list and map types
    {$enum: [a, b], default: a}   string with these values

``object`` keeps unknown fields.
"""

from __future__ import annotations

import copy
from typing import Any

Schema = dict[str, Any]

QUANTITY = (
    r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
    r"(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$"
)
_INT_OR_STRING: Schema = {
    "anyOf": [{"type": "integer"}, {"type": "string"}],
    "x-kubernetes-int-or-string": True,
}
SCALARS: dict[str, Schema] = {
    "string": {"type": "string"},
    "boolean": {"type": "boolean"},
    "integer": {"type": "integer"},
    "int32": {"type": "integer", "format": "int32"},
    "int64": {"type": "integer", "format": "int64"},
    "number": {"type": "number"},
    "date-time": {"type": "string", "format": "date-time"},
    "int-or-string": _INT_OR_STRING,
    "quantity": _INT_OR_STRING | {"pattern": QUANTITY},
    "object": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    "any": {"x-kubernetes-preserve-unknown-fields": True},
}


class Notation:
    """Expands expressions against a set of named types."""

    def __init__(self, types: dict[str, Any]) -> None:
        self._types = types
        self._expanded: dict[str, Schema] = {}

    def expand(self, expression: Any) -> Schema:
        """Return the OpenAPI schema of an expression.

        :raises ValueError: for a name that is neither a scalar nor a type.
        """
        if isinstance(expression, str):
            return self._named(expression)
        if isinstance(expression, list):
            return {"type": "array", "items": self.expand(expression[0])}
        if "$enum" in expression:
            rest = {key: value for key, value in expression.items() if key != "$enum"}
            return {"type": "string", "enum": expression["$enum"], **rest}
        if "$type" in expression:
            return self._constrained(expression)
        if set(expression) == {"*"}:
            return {"type": "object", "additionalProperties": self.expand(expression["*"])}
        return self._object(expression)

    def _named(self, name: str) -> Schema:
        if name in SCALARS:
            return SCALARS[name]
        if name not in self._types:
            raise ValueError(f"unknown type {name!r}")
        if name not in self._expanded:
            self._expanded[name] = self.expand(self._types[name])
        return self._expanded[name]

    def _constrained(self, expression: dict[str, Any]) -> Schema:
        schema = copy.copy(self.expand(expression["$type"]))
        for key, value in expression.items():
            if key == "keys":
                schema |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": value}
            elif key == "set":
                schema["x-kubernetes-list-type"] = "set"
            elif key == "atomic":
                schema["x-kubernetes-map-type"] = "atomic"
            elif key != "$type":
                schema[key] = value
        return schema

    def _object(self, expression: dict[str, Any]) -> Schema:
        schema: Schema = {"type": "object"}
        if expression:
            schema["properties"] = {key.rstrip("!"): self.expand(value) for key, value in expression.items()}
        required = [key[:-1] for key in expression if key.endswith("!")]
        if required:
            schema["required"] = required
        return schema
