"""Before anyone is paged: run it again the same night, against the baseline, in pairs, and let that decide."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from include.results.verdict.noise import Noise
from include.results.verdict.paired import Comparison, Pair, compare, pairs_needed, plan_order

ALPHA = 0.01
LEAST_EFFECT = 0.01
# Even numbers, so that both orders are run equally often and drift within a pair costs no precision.
FEWEST, MOST = 6, 8


@dataclass(frozen=True)
class ConfirmationPlan:
    """What to run.

    :param order: arm of each run, ``a`` the baseline, ``b`` the suspect; every run is a deployment of its own,
        because the deployment is what differs between nights.
    :param enough: with this many pairs the suspected change would be found with 80 % power.
    :param needed: pairs that would be enough.
    """

    order: tuple[Literal["a", "b"], ...]
    enough: bool
    needed: int

    @property
    def pairs(self) -> int:
        """Number of pairs."""
        return len(self.order) // 2


Decision = Literal["confirmed", "refuted", "inconclusive"]


def plan(effect: float, noise: Noise) -> ConfirmationPlan:
    """Plan the re-run for a suspected relative change: six or eight pairs, ABBA."""
    needed = pairs_needed(noise.sigma, effect, alpha=ALPHA) if math.isfinite(noise.sigma) else MOST
    count = FEWEST if needed <= FEWEST else MOST
    return ConfirmationPlan(plan_order(count), needed <= count, needed)


def stands(suspected: float, repeat: float) -> bool:
    """Does a single repeat of tonight's run keep the suspicion up? One outlier run ends here, at the price of a run.

    :param suspected: relative effect against the reference; ``repeat``: that of the repeated run.
    """
    return math.log1p(repeat) / math.log1p(suspected) >= 0.5


def decide(pairs: Sequence[Pair], suspected: float, *, least: float = LEAST_EFFECT) -> tuple[Decision, Comparison]:
    """Judge the re-run.

    Confirmed: a difference in the suspected direction at the 1 % level, and at least ``least``. Refuted: its 95 %
    interval leaves out half of what was suspected. Neither: inconclusive.
    """
    found = compare(pairs)
    same_way = math.copysign(1, found.effect) == math.copysign(1, suspected)
    if found.p < ALPHA and same_way and abs(found.effect) >= least:
        return "confirmed", found
    half = math.expm1(math.log1p(suspected) / 2)
    refuted = found.high < half if suspected > 0 else found.low > half
    return ("refuted" if refuted else "inconclusive"), found
