"""Refusals of what a person typed: one sentence with option, value and fix."""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import ValidationError

from include.catalog.specs import Spec
from include.errors import ConfigurationError

_S = TypeVar("_S", bound=Spec)
# Options whose names are not those of the fields that they fill.
_OPTIONS = {
    "base_url": "url",
    "duration_s": "duration",
    "trace": "replay",
    "client_cert_file": "client-cert",
    "client_key_file": "client-key",
}


def checked(kind: type[_S], values: dict[str, Any], **names: str) -> _S:
    """Return a model of the values.

    :param names: of options, for fields that another option than usual has filled.
    :raises ConfigurationError: ``BadOption`` with option, value and what would be right, for every bad one.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = []
        for item in error.errors(include_url=False):
            message = item["msg"]
            if not item["loc"]:  # of several fields together
                problems.append(message)
                continue
            field = str(item["loc"][0])
            name = "--" + names.get(field, _OPTIONS.get(field, field)).replace("_", "-")
            if field == "base_url":
                message = "should be http://host:port or https://host:port"
            problems.append(f"{name} {item.get('input')!r}: {message[:1].lower() + message[1:]}")
        raise bad_option("; ".join(problems), "correct the option; --help lists them") from error


def bad_option(message: str, fix: str) -> ConfigurationError:
    """Return the refusal."""
    return ConfigurationError("BadOption", message, fix=fix)
