"""Kubernetes timestamps."""

from __future__ import annotations

import datetime as dt


def utcnow() -> dt.datetime:
    """Current time, UTC."""
    return dt.datetime.now(dt.UTC)


def stamp(moment: dt.datetime | None = None) -> str:
    """RFC 3339 with seconds, as ``metav1.Time``."""
    return (moment or utcnow()).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse(text: str) -> dt.datetime:
    """Read either form."""
    return dt.datetime.fromisoformat(text.replace("Z", "+00:00"))


def seconds_since(text: str) -> float:
    """Seconds from an RFC 3339 timestamp to now."""
    return (utcnow() - parse(text)).total_seconds()
