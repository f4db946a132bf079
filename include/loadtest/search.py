"""Find the highest load that still meets its SLO, with few probes and an honest bracket; and the saturation knee."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec

ATTAINMENT = 0.95
Z95 = 1.959963984540054


class Probe(msgspec.Struct, frozen=True, kw_only=True):
    """One load level that was run.

    :param level: requests per second, or users.
    :param good: requests that met the SLO, of ``total`` (failed ones count as not good).
    :param valid: false: the client was the bottleneck or the level was not delivered, so it says nothing.
    """

    level: float
    good: int
    total: int
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


def verdict(probe: Probe, attainment: float = ATTAINMENT) -> Verdict:
    """Compare a probe with the share of good requests asked for; unresolved while the interval holds it."""
    if not probe.valid:
        return "unresolved"
    low, high = wilson(probe.good, probe.total)
    if low >= attainment:
        return "meets"
    return "misses" if high < attainment else "unresolved"


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


def highest_load(
    run: Callable[[float, int], Probe],
    *,
    start: float,
    limit: float,
    attainment: float = ATTAINMENT,
    precision: float = 0.1,
    integer: bool = False,
    max_probes: int = 16,
    repeats: int = 3,
) -> Found:
    """Double until the SLO is missed, then halve the bracket in proportion.

    A level is run at most ``repeats`` times: again and pooled while its interval holds the asked share, again and
    without the first when that says nothing. One that stays unresolved bounds the search from above but never counts
    as proof.

    :param run: runs a level (second argument: how often it was run before) and returns its probe.
    :param precision: width of the final bracket as a share of its lower end.
    :param integer: levels are whole numbers (users).
    :param limit: highest level that is tried.
    """
    probes: list[Probe] = []
    met: float | None = None
    missed: float | None = None
    above: float | None = None
    level = start
    while len(probes) < max_probes:
        outcome = _resolve(run, level, attainment, min(repeats, max_probes - len(probes)), probes)
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
    run: Callable[[float, int], Probe], level: float, attainment: float, repeats: int, probes: list[Probe]
) -> Verdict:
    good = total = 0
    outcome: Verdict = "unresolved"
    for attempt in range(max(1, repeats)):
        probe = run(level, attempt)
        probes.append(probe)
        if not probe.valid:
            continue
        good, total = good + probe.good, total + probe.total
        outcome = verdict(msgspec.structs.replace(probe, good=good, total=total), attainment)
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


def _rising(points: Sequence[tuple[float, float]]) -> float:
    return sum(x * y for x, y in points) / sum(x * x for x, _ in points)
