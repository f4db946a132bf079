"""Find the highest load that still meets its SLO, with few probes and an honest bracket; and the saturation knee."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Literal

import msgspec

ATTAINMENT = 0.95
Z95 = 1.959963984540054


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One load level that was run.

    :param level: requests per second, or users.
    :param good: requests that met the SLO, of ``total`` (failed ones count as not good).
    :param failed: requests that failed, of ``total``.
    :param valid: false: the client was the bottleneck or the level was not delivered, so it says nothing.
    """

    level: float
    good: int
    total: int
    failed: int = 0
    throughput: float = 0.0
    latency_ms: float = 0.0
    valid: bool = True


Verdict = Literal["meets", "misses", "unresolved"]


def wilson(good: int, total: int, z: float = Z95) -> tuple[float, float]:
    """Return Wilson's score interval of a share (Wilson 1927); (0, 1) without observations."""
    if total <= 0:
        return 0.0, 1.0
    share = good / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def confidence(looks: int) -> float:
    """Return the z of an interval that is right 95 times of 100 although it is looked at so many times (Bonferroni)."""
    return NormalDist().inv_cdf(1 - 0.05 / (2 * looks))


def verdict(probe: Probe, attainment: float = ATTAINMENT, error_rate: float | None = None, z: float = Z95) -> Verdict:
    """Compare a probe with the share of good requests asked for; unresolved while the interval holds it.

    :param error_rate: most of the requests that may fail. More than it is no proof of meeting, and a proof of missing
        once the interval lies above it.
    """
    if not probe.valid:
        return "unresolved"
    low, high = wilson(probe.good, probe.total, z)
    too_many = error_rate is not None and probe.failed > error_rate * probe.total
    if high < attainment or (too_many and wilson(probe.failed, probe.total, z)[0] > (error_rate or 0.0)):
        return "misses"
    return "meets" if low >= attainment and not too_many else "unresolved"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """Where the SLO stops being met.

    :param highest_met: highest level proven to meet it; ``None``: not even the lowest did.
    :param lowest_missed: lowest level proven to miss it; ``None``: none did up to the limit.
    :param resolved: the bracket is as narrow as asked and both ends are proven.
    :param stop: why the search ended.
    """

    highest_met: float | None
    lowest_missed: float | None
    resolved: bool
    stop: str
    probes: tuple[Probe, ...]


def _never() -> str:
    return ""


def highest_load(
    run: Callable[[float, int], Probe],
    *,
    start: float,
    limit: float,
    attainment: float = ATTAINMENT,
    error_rate: float | None = None,
    precision: float = 0.1,
    integer: bool = False,
    max_probes: int = 16,
    repeats: int = 3,
    broken: Callable[[], str] = _never,
) -> Found:
    """Double until the SLO is missed, then halve the bracket in proportion.

    A level is run at most ``repeats`` times: again and pooled while its interval holds the asked share, again and
    without the first when that says nothing. One that stays unresolved bounds the search from above but never counts
    as proof. The intervals are as wide as so many looks at each level ask for.

    :param run: runs a level (second argument: how often it was run before) and returns its probe.
    :param error_rate: most of a level's requests that may fail.
    :param precision: width of the final bracket as a share of its lower end.
    :param integer: levels are whole numbers (users).
    :param limit: highest level that is tried.
    :param broken: says why the search must end at once; empty: it goes on.
    """
    probes: list[Probe] = []
    met: float | None = None
    missed: float | None = None
    above: float | None = None
    level = start

    def judged(probe: Probe) -> Verdict:
        return verdict(probe, attainment, error_rate, confidence(repeats))

    while len(probes) < max_probes:
        outcome = _resolve(run, level, judged, min(repeats, max_probes - len(probes)), probes, broken)
        if why := broken():
            return Found(highest_met=met, lowest_missed=missed, resolved=False, stop=why, probes=tuple(probes))
        if outcome == "meets":
            met = level
        else:
            above = level
            missed = level if outcome == "misses" else missed
        following = _next_level(met, above, limit, precision, integer)
        if following is None or following == level:
            break
        level = following
    return _found(met, missed, above, limit, precision, integer, len(probes) >= max_probes, probes)


def _resolve(
    run: Callable[[float, int], Probe],
    level: float,
    judged: Callable[[Probe], Verdict],
    repeats: int,
    probes: list[Probe],
    broken: Callable[[], str],
) -> Verdict:
    good = total = failed = 0
    outcome: Verdict = "unresolved"
    for attempt in range(max(1, repeats)):
        probe = run(level, attempt)
        probes.append(probe)
        if broken():
            break
        if not probe.valid:
            continue
        good, total, failed = good + probe.good, total + probe.total, failed + probe.failed
        outcome = judged(msgspec.structs.replace(probe, good=good, total=total, failed=failed))
        if outcome != "unresolved":
            break
    return outcome


def _next_level(met: float | None, above: float | None, limit: float, precision: float, integer: bool) -> float | None:
    """Return the level to try next, ``None`` when the bracket is narrow enough."""
    if above is None:
        return min((met or 0) * 2, limit) if met is not None and met < limit else None
    if met is None:
        lower = above / 2
        return (math.floor(lower) if integer and lower >= 1 else None if integer else lower) if lower > 0 else None
    if integer:
        return math.floor((met + above) / 2) if above - met > 1 and above / met > 1 + precision else None
    return math.sqrt(met * above) if above / met > 1 + precision else None


def _found(
    met: float | None,
    missed: float | None,
    above: float | None,
    limit: float,
    precision: float,
    integer: bool,
    exhausted: bool,
    probes: list[Probe],
) -> Found:
    at_limit = met is not None and met >= limit
    narrow = met is not None and above is not None and _next_level(met, above, limit, precision, integer) is None
    resolved = narrow and missed == above
    if at_limit:
        stop = "limit: every level up to it meets the SLO"
    elif narrow and not resolved:
        stop = "noise: the level above the highest met stays unresolved"
    elif resolved:
        stop = "precision reached"
    else:
        stop = "probes used up" if exhausted else "not even the lowest level tried meets the SLO"
    return Found(highest_met=met, lowest_missed=missed, resolved=resolved, stop=stop, probes=tuple(probes))


def isotonic(values: Sequence[float], weights: Sequence[float] | None = None) -> list[float]:
    """Return the closest non-increasing sequence (pool adjacent violators): attainment cannot rise with load."""
    blocks: list[list[float]] = []  # mean, weight, count
    for value, weight in zip(values, weights or [1.0] * len(values), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] < blocks[-1][0]:
            mean, weight_, count = blocks.pop()
            last = blocks[-1]
            total = last[1] + weight_
            last[0] = (last[0] * last[1] + mean * weight_) / total
            last[1], last[2] = total, last[2] + count
    return [mean for mean, _, count in blocks for _ in range(int(count))]


class Knee(msgspec.Struct, frozen=True):
    """Where throughput stops growing with load.

    :param level: load at which the rising and the flat part meet; ``None``: it never stops growing in what was run.
    :param throughput: of the flat part.
    :param gain: residual of one straight line / residual of the two parts; near 1 there is no knee.
    """

    level: float | None
    throughput: float | None
    gain: float


def knee(probes: Sequence[Probe]) -> Knee:
    """Fit a line through the origin that becomes flat, by least squares over all places for the break.

    :param probes: at least four valid levels.
    """
    points = sorted((probe.level, probe.throughput) for probe in probes if probe.valid)
    if len(points) < 4:
        return Knee(None, None, 1.0)
    straight = _rising(points)
    straight_error = sum((y - straight * x) ** 2 for x, y in points)
    best_error = straight_error
    best: tuple[float | None, float | None] = (None, None)
    for split in range(1, len(points) - 1):
        rising, flat = points[:split], points[split:]
        slope, level = _rising(rising), sum(y for _, y in flat) / len(flat)
        if slope <= 0 or not rising[-1][0] <= level / slope <= flat[0][0] * 1.0001:
            continue
        error = sum((y - slope * x) ** 2 for x, y in rising) + sum((y - level) ** 2 for _, y in flat)
        if error < best_error:
            best_error, best = error, (level / slope, level)
    gain = straight_error / best_error if best_error > 0 else math.inf if straight_error > 0 else 1.0
    return Knee(best[0], best[1], gain)


# A doubling that brings less than this has come to the flat part; two of them, so that noise alone is none.
GROWTH = 0.1
FLAT_DOUBLINGS = 2


def saturate(
    run: Callable[[float, int], Probe],
    *,
    start: float,
    limit: float,
    integer: bool = False,
    max_probes: int = 16,
    broken: Callable[[], str] = _never,
) -> Found:
    """Double the load until throughput grows no more, then run levels around the knee that the probes show.

    ``highest_met`` is the highest level below the knee that was run, ``lowest_missed`` the lowest above; ``resolved``:
    there is a knee between them.

    :param run: as of :func:`highest_load`.
    """
    probes: list[Probe] = []
    level, flat, best = start, 0, 0.0
    while len(probes) < max_probes and flat < FLAT_DOUBLINGS and not broken():
        probe = run(level, 0)
        probes.append(probe)
        if probe.valid:
            flat = flat + 1 if best and probe.throughput < (1 + GROWTH) * best else 0
            best = max(best, probe.throughput)
        if level >= limit:
            break
        level = min(2 * level, limit)
    while len(probes) < max_probes and not broken() and (between := _beside_knee(probes, integer)) is not None:
        probes.append(run(between, 0))
    return _saturated(probes, limit, broken())


def _beside_knee(probes: Sequence[Probe], integer: bool) -> float | None:
    """Return the middle of the widest gap beside the knee; ``None``: there is no knee, or it is known to a tenth."""
    at, levels = knee(probes).level, sorted({probe.level for probe in probes})
    if at is None:
        return None
    below = max((level for level in levels if level <= at), default=levels[0])
    above = min((level for level in levels if level > at), default=levels[-1])
    if above <= below * (1 + GROWTH):
        return None
    middle = math.sqrt(below * above)
    middle = float(round(middle)) if integer else middle
    return None if middle in levels else middle


def _saturated(probes: Sequence[Probe], limit: float, why: str) -> Found:
    at = knee(probes).level
    levels = [probe.level for probe in probes if probe.valid]
    below = None if at is None else max((level for level in levels if level <= at), default=None)
    above = None if at is None else min((level for level in levels if level > at), default=None)
    found = not why and below is not None and above is not None
    if not why:
        reached = max(levels, default=0.0) >= limit
        why = "knee found" if found else f"no knee{' up to the limit' if reached else ' in the probes that there were'}"
    return Found(highest_met=below, lowest_missed=above, resolved=found, stop=why, probes=tuple(probes))


def _rising(points: Sequence[tuple[float, float]]) -> float:
    return sum(x * y for x, y in points) / sum(x * x for x, _ in points)
