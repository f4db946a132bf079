"""How much a series moves when nothing changed: learnt from its own history and from A/A repeats."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

CLIP = 3.0
# Share of a normal distribution's variance that is left after cutting at ±3 standard deviations.
_CUT = 2 * CLIP * math.exp(-CLIP * CLIP / 2) / math.sqrt(2 * math.pi) / math.erf(CLIP / math.sqrt(2))
CLIPPED_SD = math.sqrt(1 - _CUT)
LEAST_SIGMA = 1e-4
MOST_RHO = 0.9


@dataclass(frozen=True)
class Noise:
    """Run-to-run noise of a series, in log units (0.01 is a coefficient of variation of about 1 %).

    :param sigma: standard deviation of one run around the level, outliers left out.
    :param rho: autocorrelation from one night to the next; 0 when it cannot be told from none.
    :param df: degrees of freedom behind ``sigma``.
    :param outliers: share of nights beyond 3 sigma.
    """

    sigma: float
    rho: float
    df: float
    outliers: float = 0.0

    @property
    def cv(self) -> float:
        """Coefficient of variation."""
        return math.sqrt(math.expm1(self.sigma**2))


def learn(residuals: Floats, repeats: Sequence[Sequence[float]] = ()) -> Noise:
    """Learn the noise.

    :param residuals: log values minus their level, in the order of the nights; levels that changed are removed.
    :param repeats: log values of runs of the same thing in the same night (A/A), one sequence per night. They are
        what there is while the history is short; they lack what differs between nights.
    """
    import numpy as np

    squares = [float(np.sum((np.asarray(group) - np.mean(group)) ** 2)) for group in repeats if len(group) > 1]
    spare = sum(len(group) - 1 for group in repeats if len(group) > 1)
    count = len(residuals)
    if count < 3:
        sigma = math.sqrt(sum(squares) / spare) if spare else math.nan
        return Noise(max(sigma, LEAST_SIGMA) if spare else math.nan, 0.0, float(spare))
    middle = float(np.median(residuals))
    rough = 1.4826 * float(np.median(np.abs(residuals - middle))) * (1 + 0.8 / count)
    if rough < LEAST_SIGMA:
        # More than half of the nights are equal, as with a coarse clock: the tenth that moves most is the noise.
        rough = float(np.quantile(np.abs(residuals - middle), 0.9)) / 1.645
    inside = np.abs(residuals - middle) <= CLIP * max(rough, LEAST_SIGMA)
    kept = residuals[inside]
    rho = _autocorrelation(residuals, inside)
    own = float(np.sum((kept - kept.mean()) ** 2)) / CLIPPED_SD**2
    effective = max(1.0, (len(kept) - 1) / variance_inflation(rho))
    sigma2 = own / max(1.0, len(kept) - variance_inflation(rho))
    if spare:
        within = sum(squares) / spare
        sigma2 = max(sigma2, within)
    return Noise(max(math.sqrt(sigma2), LEAST_SIGMA), rho, effective, float(1 - inside.mean()))


def relative(shift: float) -> float:
    """Return a difference of logs as a relative change; one beyond any number is the largest."""
    return math.expm1(min(shift, 700.0))


def variance_inflation(rho: float) -> float:
    """Return how much larger the variance of a long mean of AR(1) values is than of independent ones."""
    return (1 + rho) / (1 - rho)


def mean_variance(count: int, rho: float) -> float:
    """Return the variance of the mean of ``count`` AR(1) values of variance 1."""
    tail = sum((count - lag) * rho**lag for lag in range(1, count)) if rho else 0.0
    return (count + 2 * tail) / count**2


def _autocorrelation(residuals: Floats, inside: Any) -> float:
    """Lag-one autocorrelation of neighbouring usual nights, corrected for its bias in short series (Kendall 1954)."""
    import numpy as np

    both = inside[1:] & inside[:-1]
    count = int(both.sum())
    if count < 8:
        return 0.0
    one, two = residuals[:-1][both], residuals[1:][both]
    centre = float(np.mean(residuals[inside]))
    spread = float(np.mean((residuals[inside] - centre) ** 2))
    if spread <= LEAST_SIGMA**2:
        return 0.0
    found = float(np.mean((one - centre) * (two - centre))) / spread
    found += (1 + 3 * found) / count
    return min(MOST_RHO, found) if found > 1 / math.sqrt(count) else 0.0
