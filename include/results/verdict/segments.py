"""Where a series changed its level: optimal partitioning of robustly scaled values.

Ours rather than a library's (Apache Otava and ruptures were tried): the penalty must know the series' own
autocorrelation, a lone outlier night must not become a level, and Otava pins numpy and brings a cloud's client.
The cost is the sum of squares around each segment's mean (Jackson et al. 2005, *An algorithm for optimal
partitioning of data on an interval*), the penalty 3·ln n per change as in BIC.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from include.results.verdict.noise import CLIP, LEAST_SIGMA, Noise, learn, relative, variance_inflation

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

LEAST_LENGTH = 3
PENALTY = 3.0


@dataclass(frozen=True)
class ChangePoint:
    """A change of level.

    :param index: of the first value at the new level.
    :param effect: relative change, 0.05 for +5 %.
    :param low, high: its 95 % interval.
    """

    index: int
    effect: float
    low: float
    high: float


def boundaries(values: Floats) -> list[int]:
    """Return the start of every segment but the first.

    :param values: log values in the order of the nights, without gaps.
    """
    import numpy as np

    if len(values) < 2 * LEAST_LENGTH:
        return []
    scaled = _scaled(values)
    starts = _partition(scaled, PENALTY * math.log(len(values)))
    rho = learn(values - levels(values, starts)).rho
    if rho:
        starts = _partition(scaled, PENALTY * math.log(len(values)) * variance_inflation(rho))
    return [int(start) for start in np.asarray(starts, dtype=int)]


def levels(values: Floats, starts: list[int]) -> Floats:
    """Return each value's level: the median of its segment."""
    import numpy as np

    edges = [0, *starts, len(values)]
    return np.concatenate([np.full(b - a, np.median(values[a:b])) for a, b in pairwise(edges)])


def change_points(values: Floats) -> tuple[list[ChangePoint], Noise]:
    """Return the changes of level and the noise around the levels."""
    from scipy import stats

    starts = boundaries(values)
    noise = learn(values - levels(values, starts))
    edges = [0, *starts, len(values)]
    found = []
    for place, start in enumerate(starts):
        before, after = values[edges[place] : start], values[start : edges[place + 2]]
        shift = _trimmed(after) - _trimmed(before)
        inflation = variance_inflation(noise.rho)
        error = noise.sigma * math.sqrt(inflation * (1 / len(before) + 1 / len(after)))
        reach = float(stats.t.ppf(0.975, max(1.0, noise.df))) * error
        found.append(ChangePoint(start, relative(shift), relative(shift - reach), relative(shift + reach)))
    return found, noise


def _scaled(values: Floats) -> Floats:
    """Values over their noise; a lone outlier is pulled back to within 3 sigma of its neighbours' median."""
    import numpy as np

    sigma = max(1.4826 * float(np.median(np.abs(np.diff(values)))) / math.sqrt(2), LEAST_SIGMA)
    padded = np.concatenate([values[2:0:-1], values, values[-2:-4:-1]])
    local = np.median(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=1)
    return np.asarray(np.clip(values, local - CLIP * sigma, local + CLIP * sigma) / sigma)


def _partition(scaled: Floats, penalty: float) -> list[int]:
    import numpy as np

    count = len(scaled)
    total = np.concatenate([[0.0], np.cumsum(scaled)])
    square = np.concatenate([[0.0], np.cumsum(scaled**2)])
    best = np.full(count + 1, np.inf)
    best[0] = -penalty
    last = np.zeros(count + 1, dtype=int)
    for end in range(LEAST_LENGTH, count + 1):
        begin = np.arange(0, end - LEAST_LENGTH + 1)
        length = end - begin
        cost = square[end] - square[begin] - (total[end] - total[begin]) ** 2 / length
        whole = best[begin] + cost + penalty
        place = int(np.argmin(whole))
        best[end], last[end] = whole[place], begin[place]
    starts, end = [], count
    while (end := int(last[end])) > 0:
        starts.append(end)
    return starts[::-1]


def _trimmed(values: Floats) -> float:
    """Mean without what lies beyond 3 robust sigma."""
    import numpy as np

    middle = float(np.median(values))
    spread = max(1.4826 * float(np.median(np.abs(values - middle))), LEAST_SIGMA)
    return float(np.mean(values[np.abs(values - middle) <= CLIP * spread]))
