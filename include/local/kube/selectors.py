"""Label and field selectors: the query syntax, and matching."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from include.local.kube.errors import bad_request

Matcher = Callable[[Mapping[str, Any]], bool]

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
_SET = re.compile(rf"\s*({_KEY})\s+(in|notin)\s*\(([^()]*)\)\s*", re.ASCII)
_EQUAL = re.compile(rf"\s*({_KEY})\s*(==|=|!=|>|<)\s*({_VALUE})\s*", re.ASCII)
_EXISTS = re.compile(rf"\s*(!?)\s*({_KEY})\s*", re.ASCII)
_FIELD = re.compile(r"([A-Za-z][\w.]*)\s*(==|!=|=)\s*(.*)", re.ASCII)


def label_selector(text: str) -> Matcher:
    """Parse ``a=b,c in (d,e),!f`` into a predicate over a labels mapping.

    :raises ApiError: 400 when it does not parse.
    """
    requirements = [_requirement(part) for part in _split(text) if part.strip()]
    return lambda labels: all(requirement(labels) for requirement in requirements)


def _split(text: str) -> list[str]:
    """Split at commas outside parentheses."""
    return re.split(r",(?![^()]*\))", text)


def _requirement(text: str) -> Matcher:
    if match := _SET.fullmatch(text):
        key, operator, inside = match.groups()
        values = {value.strip() for value in inside.split(",")}
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise _unparsable(text)
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    if match := _EQUAL.fullmatch(text):
        return _comparison(*match.groups())
    if match := _EXISTS.fullmatch(text):
        absent, key = match.groups()
        return lambda labels: (key in labels) != bool(absent)
    raise _unparsable(text)


def _comparison(key: str, operator: str, value: str) -> Matcher:
    if operator in ("=", "=="):
        return lambda labels: labels.get(key) == value
    if operator == "!=":
        return lambda labels: labels.get(key) != value
    if not re.fullmatch(r"-?\d+", value):
        raise _unparsable(f"{key}{operator}{value}")
    bound = int(value)

    def compare(labels: Mapping[str, Any]) -> bool:
        text = str(labels.get(key, ""))
        if not re.fullmatch(r"-?\d+", text):
            return False
        return int(text) > bound if operator == ">" else int(text) < bound

    return compare


def _unparsable(text: str) -> Exception:
    return bad_request(f"unable to parse requirement: {text.strip()!r} is not a valid label selector")


def field_selector(text: str, supported: frozenset[str]) -> Matcher:
    """Parse ``metadata.name=x,status.phase!=Failed`` into a predicate over an object.

    :raises ApiError: 400 when it does not parse or names a field that the kind cannot select by.
    """
    terms: list[tuple[list[str], bool, str]] = []
    for part in (piece.strip() for piece in text.split(",")):
        if not part:
            continue
        match = _FIELD.fullmatch(part)
        if not match:
            raise bad_request(f"invalid selector: {part!r}; can't understand it")
        field, operator, value = match.groups()
        if field not in supported:
            raise bad_request(f"field label not supported: {field}")
        terms.append((field.split("."), operator != "!=", value))
    return lambda item: all((_lookup(item, path) == value) == equal for path, equal, value in terms)


def _lookup(item: Any, path: list[str]) -> str:
    for key in path:
        item = item.get(key) if isinstance(item, Mapping) else None
    if isinstance(item, bool):
        return str(item).lower()
    return "" if item is None else str(item)


def matches_selector(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Return whether a ``LabelSelector`` object (matchLabels, matchExpressions) selects the labels."""
    if selector is None:
        return False
    if any(labels.get(key) != value for key, value in selector.get("matchLabels", {}).items()):
        return False
    for term in selector.get("matchExpressions", ()):
        key, operator, values = term["key"], term["operator"], term.get("values", ())
        answers = {
            "In": labels.get(key) in values,
            "NotIn": labels.get(key) not in values,
            "Exists": key in labels,
            "DoesNotExist": key not in labels,
        }
        if not answers[operator]:
            return False
    return True
