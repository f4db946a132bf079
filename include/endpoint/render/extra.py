"""The passage for fields that have no typed option."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any


def merge_extra(spec: dict[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``spec`` with ``extra`` added, mapping by mapping; what a typed option set stays as it is."""
    merged = copy.deepcopy(spec)
    for key, value in extra.items():
        if isinstance(value, Mapping) and isinstance(merged.get(key), dict):
            merged[key] = merge_extra(merged[key], value)
        else:
            merged.setdefault(key, copy.deepcopy(value))
    return merged


def collisions(spec: Mapping[str, Any], extra: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted paths that both the typed options and ``extra`` set."""
    for key, value in extra.items():
        path = f"{prefix}{key}"
        if key not in spec:
            continue
        if isinstance(value, Mapping) and isinstance(spec[key], Mapping):
            yield from collisions(spec[key], value, f"{path}.")
        else:
            yield path
