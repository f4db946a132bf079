"""One series of runs to a finding, and the findings of a night to verdicts: pass, fail or inconclusive."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from include.results.verdict.confirm import Decision
from include.results.verdict.fdr import adjusted
from include.results.verdict.noise import Noise
from include.results.verdict.reference import LEAST, Reference, reference, under
from include.results.verdict.segments import ChangePoint
from include.results.verdict.suspicion import detectable, over, suspect

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

Worse = Literal["higher", "lower"]
Outcome = Literal["pass", "fail", "inconclusive"]
FALSE_DISCOVERIES = 0.1
TOLERANCE = 0.05
NIGHTS_TO_FIND = 3


@dataclass(frozen=True)
class History:
    """One metric of one series, oldest night first.

    :param values: one per night; ``None`` for a night that failed, was skipped, invalid or contaminated.
    :param nights: the nights' names (``YYYY-MM-DD``).
    :param repeats: values of A/A repeats, one sequence per night.
    :param since: first night that counts: the last accepted change.
    :param pinned: nights of a pinned baseline; then these are the reference, not the recent past.
    :param tolerance: relative worsening that must be ruled out for a pass.
    """

    key: str
    values: Sequence[float | None]
    nights: Sequence[str]
    worse: Worse = "higher"
    repeats: Sequence[Sequence[float]] = ()
    since: str = ""
    pinned: tuple[str, ...] = ()
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Finding:
    """What one series says before the other series of the night are looked at.

    ``effect``, ``low`` and ``high`` are relative changes of the newest nights against the reference, with a 95 %
    interval; positive is a higher value, not a worse one.

    :param p: two-sided; 1 when the series cannot be judged.
    :param worst: upper end of the 95 % interval of the worsening over the newest nights, up to three: a window that
        is fixed beforehand, because the one with the strongest evidence would flatter.
    :param seen: smallest relative change found within three nights with 80 % power.
    :param missing: why tonight has no value or no verdict.
    """

    key: str
    night: str
    worse: Worse
    tolerance: float
    p: float = 1.0
    effect: float = math.nan
    low: float = math.nan
    high: float = math.nan
    window: int = 0
    worst: float = math.nan
    seen: float = math.nan
    noise: Noise | None = None
    first: str = ""
    last: str = ""
    reference_nights: int = 0
    drift: float = 0.0
    changes: tuple[tuple[str, ChangePoint], ...] = ()
    missing: str = ""

    @property
    def worsening(self) -> float:
        """The effect, positive when worse."""
        return self.effect if self.worse == "higher" else -self.effect


@dataclass(frozen=True)
class SeriesVerdict:
    """The verdict on one series in one night.

    :param q: p after control of false discoveries over the night.
    :param confirm: suspected and not yet re-run: re-run before anyone is paged.
    :param page: confirmed worse: a person is told.
    """

    finding: Finding
    outcome: Outcome
    q: float
    reason: str
    confirm: bool = False
    page: bool = False


def examine(history: History) -> Finding:
    """Judge one series by itself.

    A night without a value is left out of the test, never read as zero, and makes the night inconclusive.
    """
    import numpy as np

    tonight = history.nights[-1] if history.nights else ""
    blank = Finding(history.key, tonight, history.worse, history.tolerance)
    usable = [(night, value) for night, value in zip(history.nights, history.values, strict=True) if _usable(value)]
    if not usable or usable[-1][0] != tonight:
        return replace(blank, missing="no valid, isolated result tonight")
    nights = [night for night, _ in usable]
    values = np.log(np.array([float(value or 0) for _, value in usable]))
    since = next((place for place, night in enumerate(nights) if night >= history.since), 0) if history.since else 0
    repeats = [np.log(np.asarray(group, dtype=float)).tolist() for group in history.repeats]
    found = reference(values, repeats, since)
    if found is None:
        return replace(blank, missing=f"{len(nights) - since} nights of history; {LEAST + 1} are needed")
    recent = under(found, values)
    base = found.values
    if history.pinned:
        chosen = [place for place, night in enumerate(nights) if night in history.pinned]
        if len(chosen) < 3:
            return replace(blank, missing=f"{len(chosen)} of the pinned nights have a value; 3 are needed")
        base, recent = values[chosen], values[found.stop :]
    return _finding(blank, found, base, recent, nights)


def _finding(blank: Finding, found: Reference, base: Floats, recent: Floats, nights: Sequence[str]) -> Finding:
    noise = found.noise
    if found.slope_error:
        # Uncertainty of the extrapolated drift, in nights' noise: it grows with the distance.
        distance = (len(base) + len(recent)) / 2
        noise = replace(noise, sigma=math.hypot(noise.sigma, found.slope_error * distance))
    strongest = suspect(recent, base, noise)
    fixed = over(recent, base, noise, 3 if len(recent) >= 3 else 1)
    return replace(
        blank,
        p=strongest.p,
        effect=strongest.effect,
        low=strongest.low,
        high=strongest.high,
        window=strongest.window,
        worst=fixed.high if blank.worse == "higher" else -fixed.low,
        seen=detectable(noise, len(base), NIGHTS_TO_FIND, FALSE_DISCOVERIES / 200),
        noise=noise,
        first=nights[found.start],
        last=nights[found.stop - 1],
        reference_nights=len(base),
        drift=math.expm1(found.slope),
        changes=tuple((nights[change.index], change) for change in found.changes),
    )


def judge(findings: Sequence[Finding], decisions: Mapping[str, Decision] | None = None) -> list[SeriesVerdict]:
    """Turn a night's findings into verdicts.

    :param decisions: outcome of the re-runs by series key (:func:`include.results.verdict.confirm.decide`).
    """
    made = decisions or {}
    return [
        _verdict(finding, q, made.get(finding.key))
        for finding, q in zip(findings, adjusted([finding.p for finding in findings]), strict=True)
    ]


def _verdict(finding: Finding, q: float, decision: Decision | None) -> SeriesVerdict:
    if finding.missing:
        return SeriesVerdict(finding, "inconclusive", q, finding.missing)
    said = f"{finding.effect:+.1%} [{finding.low:+.1%}, {finding.high:+.1%}] over {finding.window} night(s)"
    could = f"smallest change seen within {NIGHTS_TO_FIND} nights: {finding.seen:.1%}"
    if q <= FALSE_DISCOVERIES and finding.worsening > 0:
        if decision == "confirmed":
            return SeriesVerdict(finding, "fail", q, f"worse by {said}; confirmed by a re-run", page=True)
        if decision == "refuted":
            return SeriesVerdict(finding, "pass", q, f"{said}, but a re-run against the baseline refutes it")
        again = "the re-run did not decide" if decision else "to be confirmed by a re-run"
        return SeriesVerdict(finding, "inconclusive", q, f"suspected: {said}; {again}", confirm=True)
    if q <= FALSE_DISCOVERIES:
        return SeriesVerdict(finding, "pass", q, f"better: {said}; accept it to make it the baseline")
    if finding.worst < finding.tolerance:
        return SeriesVerdict(finding, "pass", q, f"{said}; {finding.tolerance:.0%} worse is ruled out; {could}")
    return SeriesVerdict(finding, "inconclusive", q, f"{said}; {finding.tolerance:.0%} worse is not ruled out; {could}")


def _usable(value: float | None) -> bool:
    return value is not None and math.isfinite(value) and value > 0
