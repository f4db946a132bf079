"""Times and generated names in the form of the Kubernetes API."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


def timestamp(seconds_ahead: int = 0) -> str:
    """Return the time (RFC 3339, UTC, whole seconds)."""
    return (datetime.now(UTC) + timedelta(seconds=seconds_ahead)).strftime("%Y-%m-%dT%H:%M:%SZ")


def suffix(length: int = 5) -> str:
    """Return random characters for a generated name."""
    return "".join(secrets.choice(_LETTERS) for _ in range(length))
