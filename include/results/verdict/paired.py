"""A against B, run in pairs close in time: what drifts from hour to hour hits both and cancels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from include.errors import ConfigurationError
from include.results.verdict.noise import relative

LEAST_PAIRS = 3


@dataclass(frozen=True)
class Pair:
    """One pair of runs; ``first`` says which arm ran first."""

    a: float
    b: float
    first: Literal["a", "b"] = "a"


@dataclass(frozen=True)
class Comparison:
    """B over A.

    :param effect: relative difference, 0.03 for B 3 % above A; ``low`` and ``high`` are its interval.
    :param p: two-sided, of no difference.
    :param order_effect: what running second adds, relative: drift within a pair; removed from ``effect``.
    :param detectable: smallest difference that this many pairs find with 80 % power.
    """

    pairs: int
    effect: float
    low: float
    high: float
    p: float
    order_effect: float
    detectable: float
    confidence: float

    @property
    def verdict(self) -> Literal["higher", "lower", "inconclusive"]:
        """Whether the interval lies on one side of zero."""
        if self.low > 0:
            return "higher"
        return "lower" if self.high < 0 else "inconclusive"


def plan_order(pairs: int) -> tuple[Literal["a", "b"], ...]:
    """Return the sequence of runs: ABBA ABBA …, so that steady drift favours neither arm."""
    blocks: list[Literal["a", "b"]] = []
    for place in range(pairs):
        blocks += ["a", "b"] if place % 2 == 0 else ["b", "a"]
    return tuple(blocks)


def compare(pairs: Sequence[Pair], *, confidence: float = 0.95) -> Comparison:
    """Test B against A on log ratios, with the order of each pair as a covariate.

    With both orders present, log(b/a) = effect ± drift is fitted by least squares (the analysis of a two-period
    crossover; Jones & Kenward, *Design and Analysis of Cross-Over Trials*, ch. 2), so drift within pairs costs one
    degree of freedom and no bias. With one order only the two cannot be told apart.

    :raises ConfigurationError: fewer than three pairs, or a value that is not positive.
    """
    import numpy as np
    from scipy import stats

    if len(pairs) < LEAST_PAIRS:
        raise ConfigurationError(
            "TooFewPairs", f"{len(pairs)} pairs of runs", fix=f"run at least {LEAST_PAIRS} pairs, better 5 to 8"
        )
    if not all(math.isfinite(value) and value > 0 for pair in pairs for value in (pair.a, pair.b)):
        raise ConfigurationError("NotPositive", "a pair holds a value that is not positive", fix="leave that pair out")
    ratio = np.array([math.log(pair.b) - math.log(pair.a) for pair in pairs])
    sign = np.array([1.0 if pair.first == "a" else -1.0 for pair in pairs])
    both = len(set(sign.tolist())) == 2 and len(pairs) > LEAST_PAIRS
    design = np.column_stack([np.ones(len(pairs)), sign]) if both else np.ones((len(pairs), 1))
    fitted, *_ = np.linalg.lstsq(design, ratio, rcond=None)
    df = len(pairs) - design.shape[1]
    rest = ratio - design @ fitted
    variance = max(float(rest @ rest) / df, 1e-12)
    error = math.sqrt(variance * float(np.linalg.inv(design.T @ design)[0, 0]))
    reach = float(stats.t.ppf(0.5 + confidence / 2, df)) * error
    shift = float(fitted[0])
    return Comparison(
        pairs=len(pairs),
        effect=relative(shift),
        low=relative(shift - reach),
        high=relative(shift + reach),
        p=2 * float(stats.t.sf(abs(shift) / error, df)),
        order_effect=relative(float(fitted[1])) if both else 0.0,
        detectable=relative(reach + float(stats.t.ppf(0.8, df)) * error),
        confidence=confidence,
    )


def unpaired(a: Sequence[float], b: Sequence[float], *, confidence: float = 0.95) -> Comparison:
    """Welch's test on logs, for runs that were not paired: drift between them stays in, as bias or as noise."""
    import numpy as np
    from scipy import stats

    one, two = np.log(a), np.log(b)
    shift = float(two.mean() - one.mean())
    v1, v2 = float(one.var(ddof=1)) / len(one), float(two.var(ddof=1)) / len(two)
    error = math.sqrt(max(v1 + v2, 1e-12))
    df = (v1 + v2) ** 2 / max(v1**2 / (len(one) - 1) + v2**2 / (len(two) - 1), 1e-300)
    reach = float(stats.t.ppf(0.5 + confidence / 2, df)) * error
    return Comparison(
        pairs=min(len(one), len(two)),
        effect=relative(shift),
        low=relative(shift - reach),
        high=relative(shift + reach),
        p=2 * float(stats.t.sf(abs(shift) / error, df)),
        order_effect=0.0,
        detectable=relative(reach + float(stats.t.ppf(0.8, df)) * error),
        confidence=confidence,
    )


def pairs_needed(sigma: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, most: int = 200) -> int:
    """Return how many pairs find a relative ``effect`` when one run has noise ``sigma`` (log units).

    Each pair's ratio has variance 2·sigma². Solved with Student's t, so small counts are honest.
    """
    from scipy import stats

    shift = abs(math.log1p(effect))
    for count in range(LEAST_PAIRS, most):
        error = sigma * math.sqrt(2 / count)
        df = count - 1
        if shift >= error * float(stats.t.ppf(1 - alpha / 2, df) + stats.t.ppf(power, df)):
            return count
    return most
