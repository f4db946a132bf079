"""One violated rule: the field, and the words and reason that an API server gives for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Cause:
    """A violated rule as it stands in ``details.causes`` of a 422 answer."""

    field: str
    reason: str
    message: str

    def text(self) -> str:
        """Return the form used in the answer's summary sentence."""
        return f"{self.field}: {self.message}"

    def as_dict(self) -> dict[str, str]:
        """Return the form used in ``details.causes``."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


def shown(value: Any) -> str:
    """Return a value as an API server quotes it."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def required(field: str, why: str = "") -> Cause:
    """A required field is absent."""
    return Cause(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def invalid(field: str, value: Any, why: str) -> Cause:
    """A value breaks a rule."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {shown(value)}: {why}")


def wrong_type(field: str, value: Any, expected: str) -> Cause:
    """A value has another JSON type."""
    actual = json_type(value)
    why = f"{field} in body must be of type {expected}: {shown(actual)}"
    return Cause(field, "FieldValueTypeInvalid", f"Invalid value: {shown(actual)}: {why}")


def unsupported(field: str, value: Any, allowed: list[Any]) -> Cause:
    """A value is not one of an enumeration."""
    choices = ", ".join(shown(item) for item in allowed)
    return Cause(field, "FieldValueNotSupported", f"Unsupported value: {shown(value)}: supported values: {choices}")


def duplicate(field: str, value: Any) -> Cause:
    """A second list entry has the same key."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {shown(value)}")


def too_long(field: str, maximum: int) -> Cause:
    """A string is longer than allowed."""
    return Cause(field, "FieldValueTooLong", f"Too long: may not be more than {maximum} bytes")


def too_many(field: str, count: int, maximum: int) -> Cause:
    """A list has more items than allowed."""
    return Cause(field, "FieldValueTooMany", f"Too many: {count}: must have at most {maximum} items")


def json_type(value: Any) -> str:
    """Return the OpenAPI name of a value's JSON type."""
    if value is None:
        return "null"
    for kind, name in (
        (bool, "boolean"),
        (int, "integer"),
        (float, "number"),
        (str, "string"),
        (list, "array"),
    ):
        if isinstance(value, kind):
            return name
    return "object"
