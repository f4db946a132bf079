"""Refusals in the form of the Kubernetes API: a ``Status`` object and an HTTP code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.local.kube.schema.causes import Cause


class ApiError(Exception):
    """An answer other than success.

    :param details: ``details`` of the Status object.
    :param headers: extra response headers, such as ``Retry-After``.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        details: dict[str, Any] | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers = headers or {}

    def status(self) -> dict[str, Any]:
        """Return the Status object."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        if self.details:
            body["details"] = self.details
        return body


def qualified(plural: str, group: str) -> str:
    """Return ``deployments.apps`` or, for the core group, ``pods``."""
    return f"{plural}.{group}" if group else plural


def _details(name: str, plural: str, group: str) -> dict[str, Any]:
    details: dict[str, Any] = {"name": name, "kind": plural}
    if group:
        details["group"] = group
    return details


def not_found(name: str, plural: str, group: str = "") -> ApiError:
    """The object does not exist."""
    message = f'{qualified(plural, group)} "{name}" not found'
    return ApiError(404, "NotFound", message, _details(name, plural, group))


def no_such_path() -> ApiError:
    """No resource is served at this path."""
    return ApiError(404, "NotFound", "the server could not find the requested resource", {})


def already_exists(name: str, plural: str, group: str) -> ApiError:
    """An object of that name exists."""
    message = f'{qualified(plural, group)} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, _details(name, plural, group))


def conflict(name: str, plural: str, group: str, why: str) -> ApiError:
    """The write is based on another state."""
    message = f'Operation cannot be fulfilled on {qualified(plural, group)} "{name}": {why}'
    return ApiError(409, "Conflict", message, _details(name, plural, group))


def stale(name: str, plural: str, group: str) -> ApiError:
    """The write carries an old resource version."""
    why = "the object has been modified; please apply your changes to the latest version and try again"
    return conflict(name, plural, group, why)


def bad_request(message: str) -> ApiError:
    """The request cannot be understood."""
    return ApiError(400, "BadRequest", message)


def forbidden(name: str, plural: str, group: str, why: str) -> ApiError:
    """The request is understood and not allowed."""
    subject = f' "{name}"' if name else ""
    message = f"{qualified(plural, group)}{subject} is forbidden: {why}"
    return ApiError(403, "Forbidden", message, _details(name, plural, group))


def unauthorized() -> ApiError:
    """No known token came with the request."""
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> ApiError:
    """The resource version is older than the history kept."""
    return ApiError(410, "Expired", message)


def invalid_object(kind: str, group: str, name: str, causes: Sequence[Cause]) -> ApiError:
    """The object breaks rules; all of them are listed."""
    unique = list(dict.fromkeys(causes))
    texts = ", ".join(cause.text() for cause in unique)
    listed = f"[{texts}]" if len(unique) > 1 else texts
    details: dict[str, Any] = {"name": name}
    if group:
        details["group"] = group
    details |= {"kind": kind, "causes": [cause.as_dict() for cause in unique]}
    message = f'{qualified(kind, group)} "{name}" is invalid: {listed}'
    return ApiError(422, "Invalid", message, details)


def method_not_allowed() -> ApiError:
    """The resource does not have this verb."""
    return ApiError(405, "MethodNotAllowed", "the server does not allow this method on the requested resource")


def unsupported_media_type(allowed: Sequence[str]) -> ApiError:
    """The body has a content type that is not spoken here (protobuf, for instance)."""
    message = "the body of the request was in an unknown format - accepted media types include: "
    return ApiError(415, "UnsupportedMediaType", message + ", ".join(allowed))
