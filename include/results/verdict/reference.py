"""What the newest nights are compared with: the settled level before them, its noise and its slow drift."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.results.verdict.noise import LEAST_SIGMA, Noise, learn
from include.results.verdict.segments import ChangePoint, change_points, levels

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

RECENT = 5
LEAST = 6
LONGEST = 30
_DRIFT_T = 4.0


@dataclass(frozen=True)
class Reference:
    """The level to compare with.

    :param start, stop: places of its nights, ``stop`` exclusive.
    :param values: log values of its nights, drift removed.
    :param slope: drift in log units per night, 0 when it cannot be told from none.
    :param slope_error: its standard error.
    :param changes: every change of level in the history, with drift left in.
    """

    start: int
    stop: int
    values: Floats
    slope: float
    slope_error: float
    noise: Noise
    changes: tuple[ChangePoint, ...]


def reference(values: Floats, repeats: Sequence[Sequence[float]] = (), since: int = 0) -> Reference | None:
    """Return the reference for the newest nights, ``None`` while there are too few.

    The newest ``RECENT`` nights are judged and never part of it. A level that settled before them is the reference:
    it was judged in its own nights; one that has not settled is judged too, and the reference ends before it. Steady
    drift is told from steps by the Bayesian information criterion, and is extrapolated under the newest nights rather
    than called a step.

    :param values: log values in the order of the nights, without gaps.
    :param since: place of the first night that counts (a pinned baseline or an accepted change).
    """
    last = len(values)
    stop = max(since + LEAST, last - RECENT)
    if stop >= last:
        return None
    changes, noise = change_points(values[max(0, last - 2 * LONGEST) :])
    offset = max(0, last - 2 * LONGEST)
    placed = tuple(ChangePoint(c.index + offset, c.effect, c.low, c.high) for c in changes)
    start = max(since, stop - LONGEST)
    slope, error = _drift(values[start:stop], [c.index - start for c in placed if start < c.index < stop])
    if not slope:
        start = _settled(start, stop, placed)
        stop = next((c.index for c in placed if start + LEAST <= c.index and stop - LEAST < c.index < stop), stop)
    part = _detrended(values[start:], slope, stop - start)
    if slope or repeats or since:
        noise = learn(part[: stop - start] - _middle(part[: stop - start]), repeats)
    return Reference(start, stop, part[: stop - start], slope, error, noise, placed)


def under(found: Reference, values: Floats) -> Floats:
    """Return the nights after the reference with its drift removed."""
    return _detrended(values[found.start :], found.slope, found.stop - found.start)[found.stop - found.start :]


def _settled(start: int, stop: int, changes: Sequence[ChangePoint]) -> int:
    for change in sorted(changes, key=lambda item: item.index, reverse=True):
        if change.index <= stop - LEAST:
            return max(start, change.index)
    return start


def _drift(values: Floats, steps: list[int]) -> tuple[float, float]:
    """Return slope and standard error of a steady drift, zeros when steps or no change fit as well."""
    import numpy as np

    count = len(values)
    if count < 2 * LEAST:
        return 0.0, 0.0
    place = np.arange(count, dtype=np.float64) - (count - 1) / 2
    kept = _usual(values, place)
    x, y = place[kept] - place[kept].mean(), values[kept]
    slope = float(x @ (y - y.mean()) / (x @ x))
    rest = y - y.mean() - slope * x
    error = math.sqrt(max(float(rest @ rest) / max(1, len(y) - 2), LEAST_SIGMA**2) / float(x @ x))
    if abs(slope) < _DRIFT_T * error:
        return 0.0, 0.0
    stepped = (values - levels(values, steps))[kept]
    size = math.log(len(y))
    line = len(y) * math.log(max(float(rest @ rest), 1e-12)) + 2 * size
    stairs = len(y) * math.log(max(float(stepped @ stepped), 1e-12)) + (1 + 2 * len(steps)) * size
    return (slope, error) if line < stairs else (0.0, 0.0)


def _usual(values: Floats, place: Floats) -> Any:
    """Nights within 4 robust sigma of a resistant line (medians of the outer thirds; Tukey 1977)."""
    import numpy as np

    third = max(1, len(values) // 3)
    rise = float(np.median(values[-third:]) - np.median(values[:third]))
    slope = rise / float(np.mean(place[-third:]) - np.mean(place[:third]))
    rest = values - slope * place
    rest = rest - np.median(rest)
    spread = max(1.4826 * float(np.median(np.abs(rest))), LEAST_SIGMA)
    return np.abs(rest) <= 4 * spread


def _detrended(values: Floats, slope: float, count: int) -> Floats:
    import numpy as np

    return np.asarray(values - slope * (np.arange(len(values)) - (count - 1) / 2))


def _middle(values: Floats) -> float:
    import numpy as np

    return float(np.median(values))
