"""When requests are due: offsets from t0 in ns, made before t0, the same for the same seed."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence

from include.loadtest.engine.clock import NS
from include.loadtest.job import Load


def schedule(load: Load, seed: int, trace_s: Sequence[float] = ()) -> array[int]:
    """Return the due times of an open loop, ascending, ns after t0.

    The number of arrivals is ``requests`` or rate × duration, and they span exactly number / rate seconds: gaps
    are drawn (constant, exponential, gamma with shape ``burstiness``) and scaled, so the offered rate is the one
    asked for. A ramp spaces arrivals evenly in the integral of its rate.

    :param trace_s: recorded arrival times in seconds, for ``replay``.
    """
    if load.arrivals == "replay":
        return _replay(load, trace_s)
    if load.rate is None:
        raise ValueError("an open loop needs a rate")
    if load.arrivals == "ramp":
        return _ramp(load, load.rate)
    count = load.requests or max(1, round(load.rate * (load.duration_s or 0)))
    span = count / load.rate
    gaps = _gaps(load, count, random.Random(f"{seed}|arrivals"))
    scale = span / sum(gaps)
    at, due = 0.0, array("q")
    for gap in gaps:
        due.append(round(at * scale * NS))
        at += gap
    return _until(due, load.duration_s)


def _gaps(load: Load, count: int, rng: random.Random) -> list[float]:
    if load.arrivals == "constant":
        return [1.0] * count
    shape = load.burstiness if load.arrivals == "gamma" else 1.0
    if shape == 1.0:
        return [rng.expovariate(1.0) for _ in range(count)]
    return [max(rng.gammavariate(shape, 1.0 / shape), 1e-12) for _ in range(count)]


def _ramp(load: Load, start: float) -> array[int]:
    end = load.end_rate or start
    duration = load.duration_s or (2 * (load.requests or 1) / (start + end))
    slope = (end - start) / duration
    total = math.floor((start + end) / 2 * duration + 1e-9)
    count = min(total, load.requests or total)
    if abs(slope) < 1e-12:
        return array("q", (round(number / start * NS) for number in range(count)))
    # number = start·t + slope·t²/2, solved for t
    return array(
        "q",
        (
            round((math.sqrt(max(0.0, start * start + 2 * slope * number)) - start) / slope * NS)
            for number in range(count)
        ),
    )


def _replay(load: Load, trace_s: Sequence[float]) -> array[int]:
    """Keep the trace's own times, from its first arrival on."""
    ordered = sorted(trace_s)
    if not ordered:
        raise ValueError("the trace has no arrivals")
    due = array("q", (round((at - ordered[0]) * NS) for at in ordered))
    if load.requests is not None:
        due = due[: load.requests]
    return _until(due, load.duration_s)


def _until(due: array[int], duration_s: float | None) -> array[int]:
    if duration_s is None:
        return due
    return array("q", (at for at in due if at < duration_s * NS))
