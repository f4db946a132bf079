"""Does the newest part of a series differ from its reference? Effect, interval, p, and what could be seen."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from include.results.verdict.noise import Noise, mean_variance, relative, variance_inflation

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

WINDOWS = (1, 2, 3, 5, 8)
LEAST_REFERENCE = 3
POWER = 0.8
# Variance of the median of 3, 5 and 8 normal values over that of their mean (order statistics of the normal).
_MEDIAN = {1: 1.0, 2: 1.0, 3: 1.346, 5: 1.434, 8: 1.45}


@dataclass(frozen=True)
class Suspicion:
    """The strongest evidence over all windows.

    :param p: two-sided, Bonferroni over the windows.
    :param effect: relative change of the newest ``window`` nights, 0.05 for +5 %; ``low`` and ``high`` its 95 % CI.
    """

    p: float
    window: int
    effect: float
    low: float
    high: float


def suspect(recent: Floats, reference: Floats, noise: Noise) -> Suspicion:
    """Compare the newest nights with the reference; the window with the smallest p counts.

    One night alone is compared as it is; of two the one nearer to the reference counts, of more their median, so
    that one outlier night cannot go on raising suspicion.

    :param recent: log values after the reference, newest last; all windows that fit are tried.
    :param reference: log values of the reference nights.
    :raises ValueError: there is no recent night.
    """
    windows = [w for w in WINDOWS if w <= len(recent)]
    return min((over(recent, reference, noise, w, tries=len(windows)) for w in windows), key=lambda found: found.p)


def over(recent: Floats, reference: Floats, noise: Noise, window: int, *, tries: int = 1) -> Suspicion:
    """Compare the newest ``window`` nights with the reference; ``p`` is corrected for ``tries`` windows."""
    import numpy as np
    from scipy import special

    part = recent[-window:] - float(np.median(reference))
    shift = float(part[np.argmin(np.abs(part))]) if window == 2 else float(np.median(part))
    error = noise.sigma * math.sqrt(_variance(window, len(reference), noise.rho))
    df = max(1.0, noise.df)
    p = min(1.0, 2 * float(special.stdtr(df, -abs(shift) / error)) * tries)
    reach = _t(0.975, df) * error
    return Suspicion(p, window, relative(shift), relative(shift - reach), relative(shift + reach))


def detectable(noise: Noise, reference: int, window: int, alpha: float, power: float = POWER) -> float:
    """Return the smallest relative change that is found with the stated power, 0.05 for 5 %.

    :param reference: number of reference nights.
    :param window: nights since the change.
    :param alpha: two-sided level that one series must reach, already divided by the number of windows and series.
    """
    df = max(1.0, noise.df)
    usable = [w for w in WINDOWS if w <= window]
    errors = [noise.sigma * math.sqrt(_variance(w, reference, noise.rho)) for w in usable]
    return relative(min(errors) * (_t(1 - alpha / 2, df) + _t(power, df)))


def _variance(window: int, reference: int, rho: float) -> float:
    """Of (window's value − reference's median), in units of sigma²."""
    return _MEDIAN[window] * mean_variance(window, rho) + 1.571 * variance_inflation(rho) / max(1, reference)


@cache
def _t(share: float, df: float) -> float:
    from scipy import special

    return float(special.stdtrit(df, share))
