"""Which runs shared an endpoint with another run while they were measured."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Window:
    """A measurement: who, on which endpoint, from when to when (end exclusive)."""

    key: str
    endpoint: str
    start: dt.datetime
    end: dt.datetime


@dataclass(frozen=True)
class Overlap:
    """How much of a window others shared.

    :param share: of the window's duration during which at least one other ran, 0 to 1.
    :param others: their keys, sorted.
    """

    key: str
    share: float
    others: tuple[str, ...]


def contaminated(windows: Iterable[Window]) -> dict[str, Overlap]:
    """Return the windows during which another run hit the same endpoint, by key.

    Windows that only touch do not overlap. A window without an endpoint's identity cannot be judged and is left out.
    """
    places: dict[str, list[Window]] = defaultdict(list)
    for window in windows:
        if window.endpoint and window.end > window.start:
            places[window.endpoint].append(window)
    found: dict[str, Overlap] = {}
    for mine in places.values():
        mine.sort(key=lambda window: window.start)
        for window, shared in zip(mine, _shared(mine), strict=True):
            if shared:
                share = _covered(window, shared) / (window.end - window.start).total_seconds()
                found[window.key] = Overlap(window.key, share, tuple(sorted({other.key for other in shared})))
    return found


def _shared(ordered: list[Window]) -> list[list[Window]]:
    """For each window, the others that overlap it; one sweep over the starts."""
    met: list[list[Window]] = [[] for _ in ordered]
    running: list[int] = []
    for place, window in enumerate(ordered):
        running = [other for other in running if ordered[other].end > window.start]
        for other in running:
            met[place].append(ordered[other])
            met[other].append(window)
        running.append(place)
    return met


def _covered(window: Window, others: list[Window]) -> float:
    """Seconds of a window that the union of the others covers."""
    total, reached = 0.0, window.start
    for other in sorted(others, key=lambda item: item.start):
        start, end = max(other.start, reached), min(other.end, window.end)
        if end > start:
            total += (end - start).total_seconds()
            reached = end
    return total
