"""Label and field selectors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

TERM = re.compile(
    r"^\s*(?P<key>[^\s=!]+)\s*(?:(?P<op>=|==|!=)\s*(?P<value>\S*)|(?P<set>in|notin)\s*\((?P<values>[^)]*)\))?\s*$"
)


def matches(item: Mapping[str, Any], query: Mapping[str, str]) -> bool:
    """True when an object is selected by ``labelSelector`` and ``fieldSelector``."""
    labels = item.get("metadata", {}).get("labels") or {}
    wanted = _split(query.get("labelSelector") or "")
    if not all(_label(labels, term) for term in wanted):
        return False
    return all(_field(item, term) for term in _split(query.get("fieldSelector") or ""))


def _split(selector: str) -> list[str]:
    return [term for term in re.split(r",(?![^(]*\))", selector) if term.strip()]


def _label(labels: Mapping[str, str], term: str) -> bool:
    if term.strip().startswith("!"):
        return term.strip()[1:] not in labels
    found = TERM.match(term)
    if found is None:
        return False
    value = labels.get(found["key"])
    if found["set"]:
        inside = value in [part.strip() for part in found["values"].split(",")]
        return inside if found["set"] == "in" else not inside
    if found["op"] is None:
        return value is not None
    return value != found["value"] if found["op"] == "!=" else value == found["value"]


def _field(item: Mapping[str, Any], term: str) -> bool:
    path, operator, value = re.split(r"(!=|==|=)", term, maxsplit=1)
    found: Any = item
    for part in path.strip().split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    same = str(found if found is not None else "") == value.strip()
    return not same if operator == "!=" else same
