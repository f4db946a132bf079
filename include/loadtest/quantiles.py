"""Percentiles that state their own uncertainty, and histograms that add up exactly."""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

CONFIDENCE = 0.95
GAMMA = 1.01


@cache
def minimum_sample(percentile: float, confidence: float = CONFIDENCE) -> int:
    """Return the least sample for which a two-sided order-statistic interval of a percentile exists.

    The widest such interval, from the smallest to the largest value, holds the *p*-quantile with probability
    1 − pⁿ − (1 − p)ⁿ (David & Nagaraja, *Order Statistics*, §7.1): 6 for p50, 29 for p90, 59 for p95, 299 for p99.
    """
    p = percentile / 100
    count = 2
    while 1 - p**count - (1 - p) ** count < confidence:
        count += 1
    return count


def quantile(ordered: Floats, percentile: float) -> float | None:
    """Return a percentile of sorted values (linear interpolation), ``None`` below :func:`minimum_sample`."""
    import numpy as np

    if len(ordered) < minimum_sample(percentile):
        return None
    return float(np.quantile(ordered, percentile / 100))


def interval(ordered: Floats, percentile: float) -> tuple[float, float] | None:
    """Return the distribution-free 95 % interval of a percentile: two of the values themselves.

    The ranks are the tightest symmetric-in-probability pair: at most 2.5 % lies beyond each. Where one end of the
    sample cannot be so sure, the other takes what is left of the 5 %.
    """
    import numpy as np
    from scipy.special import bdtr

    count = len(ordered)
    if count < minimum_sample(percentile):
        return None
    p = percentile / 100
    spread = 6 * math.sqrt(count * p * (1 - p)) + 10
    ranks = np.arange(max(0, math.floor(count * p - spread)), min(count, math.ceil(count * p + spread)) + 1)
    below = bdtr(ranks.astype(float), count, p)
    under, over = _tails(p, count)
    low = int(ranks[np.searchsorted(below, under, side="right")])
    high = int(ranks[min(int(np.searchsorted(below, 1 - over)), len(ranks) - 1)])
    return float(ordered[max(low - 1, 0)]), float(ordered[min(high, count - 1)])


def _tails(p: float, count: int) -> tuple[float, float]:
    """Return how much may lie below and above an interval: together 5 %.

    The quantile is below the smallest value with probability (1 − p)ⁿ and above the largest with pⁿ.
    """
    both = 1 - CONFIDENCE
    if p**count > both / 2:
        return both - p**count, p**count
    if (1 - p) ** count > both / 2:
        return (1 - p) ** count, both - (1 - p) ** count
    return both / 2, both / 2


def summary(values: Floats) -> dict[str, Any]:
    """Return the fields of ``include.results.schema.Percentiles`` for latencies in ms; NaN are left out."""
    import numpy as np

    ordered = np.sort(values[~np.isnan(values)])
    if not len(ordered):
        return {}
    result: dict[str, Any] = {
        "count": len(ordered),
        "mean": float(ordered.mean()),
        "max": float(ordered[-1]),
        "ci95": {},
    }
    for percentile in (50, 90, 95, 99):
        name = f"p{percentile}"
        result[name] = quantile(ordered, percentile)
        bounds = interval(ordered, percentile)
        if bounds is not None:
            result["ci95"][name] = bounds
    return result


def histogram(values: Floats) -> dict[str, int]:
    """Return counts by log bucket; bucket *i* holds (1.01^(i−1), 1.01^i] ms, ``"zero"`` what is not positive.

    Histograms of parts sum to that of the whole, key by key; a bucket's middle is within 0.5 % of any value in it.
    """
    import numpy as np

    kept = values[~np.isnan(values)]
    positive = kept[kept > 0]
    places, counts = np.unique(np.ceil(np.log(positive) / math.log(GAMMA)).astype(int), return_counts=True)
    found = {str(place): int(count) for place, count in zip(places, counts, strict=True)}
    zeros = len(kept) - len(positive)
    return {"zero": zeros} | found if zeros else found
