"""Series of nightly results with known truth, and the rules that are to find the changes in them."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from include.results.verdict.confirm import Decision, decide, plan, stands
from include.results.verdict.fdr import adjusted
from include.results.verdict.judge import FALSE_DISCOVERIES, Finding, History, examine
from include.results.verdict.paired import Pair

FLEET = 200
CVS = (0.01, 0.03, 0.08)
KINDS = ("plain", "drift", "outliers", "missing", "ar1")
RHO = 0.5
DRIFT = 0.001
OUTLIERS = 0.04

Rng = np.random.Generator
Rule = Callable[[Sequence[float | None]], bool]


@dataclass(frozen=True)
class Series:
    """Values by night, with what is true of them; higher is worse.

    :param step: relative step from night ``at`` on; ``shared``: factor on each night that re-runs share.
    """

    kind: str
    cv: float
    step: float
    at: int
    values: tuple[float | None, ...]
    shared: tuple[float, ...]


def series(rng: Rng, kind: str, cv: float, step: float, nights: int, at: int) -> Series:
    """Return one generated series: log-normal noise, and what its kind adds."""
    sigma = math.sqrt(math.log1p(cv * cv))
    noise = rng.normal(0, sigma, nights)
    if kind == "ar1":
        for place in range(1, nights):
            noise[place] = RHO * noise[place - 1] + math.sqrt(1 - RHO**2) * noise[place]
    shared = np.zeros(nights)
    if kind == "drift":
        shared += rng.choice([-1, 1]) * DRIFT * np.arange(nights)
    own = np.zeros(nights)
    if kind == "outliers":
        hit = rng.random(nights) < OUTLIERS
        size = np.log(rng.uniform(1.1, 1.3, nights)) * hit
        lasting = rng.random(nights) < 0.5
        shared, own = shared + size * lasting, size * ~lasting
    truth = np.where(np.arange(nights) >= at, math.log1p(step), 0.0)
    values: list[float | None] = list(100 * np.exp(noise + shared + own + truth))
    if kind == "missing":
        gone = rng.random(nights) < 0.1
        gone[(start := int(rng.integers(5, nights - 8))) : start + 3] = True
        values = [None if missing else value for value, missing in zip(values, gone, strict=True)]
    return Series(kind, cv, step, at, tuple(values), tuple(np.exp(shared)))


@dataclass
class Cost:
    """What the re-runs took."""

    suspicions: int = 0
    runs: int = 0
    decisions: dict[str, int] = field(default_factory=dict)


def confirm(rng: Rng, found: Finding, one: Series, night: int, cost: Cost) -> Decision:
    """Re-run one suspicion: a repeat first, then pairs against the baseline."""
    sigma = math.sqrt(math.log1p(one.cv**2))
    level = 1 + (one.step if night >= one.at else 0.0)

    def run(true: float) -> float:
        return float(100 * true * one.shared[night] * math.exp(rng.normal(0, sigma)))

    cost.suspicions += 1
    cost.runs += 1
    tonight = one.values[night] or math.nan
    if not stands(found.effect, run(level) / (tonight / (1 + found.effect)) - 1):
        return "refuted"
    assert found.noise is not None
    planned = plan(found.effect, found.noise)
    cost.runs += len(planned.order)
    pairs = [Pair(run(1.0), run(level), planned.order[2 * place]) for place in range(planned.pairs)]
    decision, _ = decide(pairs, found.effect)
    return decision


def finding(one: Series, night: int) -> Finding:
    """Return what our engine says of a series on the evening of a night."""
    names = [f"{place:03d}" for place in range(night + 1)]
    return examine(History("s", one.values[: night + 1], names))


def suspected(found: Sequence[Finding]) -> list[bool]:
    """Return which of a night's findings our engine would re-run."""
    return [
        q <= FALSE_DISCOVERIES and not item.missing and item.worsening > 0
        for item, q in zip(found, adjusted([item.p for item in found]), strict=True)
    ]


def ours_fleet(rng: Rng, fleet: Sequence[Series], nights: range, cost: Cost) -> tuple[int, list[list[float]]]:
    """Return how many pages a healthy fleet caused, and the p-values of each night."""
    pages, levels = 0, []
    for night in nights:
        found = [finding(one, night) for one in fleet]
        levels.append([item.p for item in found])
        for item, one, is_suspect in zip(found, fleet, suspected(found), strict=True):
            if is_suspect:
                decision = confirm(rng, item, one, night, cost)
                cost.decisions[decision] = cost.decisions.get(decision, 0) + 1
                pages += decision == "confirmed"
    return pages, levels


def ours_step(rng: Rng, one: Series, healthy: Sequence[Sequence[float]], cost: Cost) -> tuple[bool, float]:
    """Return whether a step is paged within three nights among a healthy fleet, and the change said to be seen."""
    seen = math.nan
    for night, others in zip(range(one.at, one.at + 3), healthy, strict=False):
        found = finding(one, night)
        seen = found.seen if not math.isnan(found.seen) else seen
        q = adjusted([found.p, *others[: FLEET - 1]])[0]
        is_suspect = q <= FALSE_DISCOVERIES and not found.missing and found.worsening > 0
        if is_suspect and confirm(rng, found, one, night, cost) == "confirmed":
            return True, seen
    return False, seen


def against_previous(limit: float) -> Rule:
    """Page when tonight is worse than the night before by more than ``limit``."""

    def rule(values: Sequence[float | None]) -> bool:
        known = [value for value in values if value is not None]
        return values[-1] is not None and len(known) > 1 and known[-1] > (1 + limit) * known[-2]

    return rule


def against_week(values: Sequence[float | None]) -> bool:
    """Page when tonight is beyond two sigma and 1 % of the mean of the seven nights before."""
    known = [value for value in values if value is not None]
    if values[-1] is None or len(known) < 8:
        return False
    week = np.array(known[-8:-1])
    mean, spread = float(week.mean()), float(week.std(ddof=1))
    return known[-1] > mean + 2 * spread and known[-1] > 1.01 * mean


RULES: dict[str, Rule] = {
    "10% vs previous": against_previous(0.10),
    "5% vs previous": against_previous(0.05),
    "2 sigma and 1% vs 7 days": against_week,
}


def seeded(*parts: object) -> Rng:
    """Return a generator whose numbers depend on the parts alone."""
    return np.random.default_rng(zlib.crc32(repr(parts).encode()))
