"""When requests are due: offsets from t0 in ns, made before t0, the same for the same seed."""

from __future__ import annotations

import math
import random
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import repeat

from include.loadtest.engine.clock import NS
from include.loadtest.job import Load


def schedule(load: Load, seed: int, trace_s: Sequence[float] = (), worker: int = 0, workers: int = 1) -> array[int]:
    """Return the due times of an open loop, ascending, ns after t0: every ``workers``-th, from ``worker`` on.

    The number of arrivals is ``requests`` or rate × duration, and they span exactly number / rate seconds: gaps
    are drawn (constant, exponential, gamma with shape ``burstiness``) and scaled, so the offered rate is the one
    asked for. A ramp spaces arrivals evenly in the integral of its rate.

    :param trace_s: recorded arrival times in seconds, for ``replay``.
    """
    if load.arrivals == "replay":
        return _replay(load, trace_s)[worker::workers]
    if load.rate is None:
        raise ValueError("an open loop needs a rate")
    if load.arrivals == "ramp":
        return _ramp(load, load.rate)[worker::workers]
    count = load.requests or max(1, round(load.rate * (load.duration_s or 0)))
    # An hour at 1,000 per second is 3.6 million gaps: packed, or each worker would hold 100 MB of them before t0.
    at, starts = 0.0, array("d")
    for gap in _gaps(load, count, random.Random(f"{seed}|arrivals")):
        starts.append(at)
        at += gap
    scale = count / load.rate / at
    return _until(array("q", (round(start * scale * NS) for start in starts[worker::workers])), load.duration_s)


def _gaps(load: Load, count: int, rng: random.Random) -> Iterator[float]:
    if load.arrivals == "constant":
        return repeat(1.0, count)
    shape = load.burstiness if load.arrivals == "gamma" else 1.0
    if shape == 1.0:
        return (rng.expovariate(1.0) for _ in range(count))
    return (max(rng.gammavariate(shape, 1.0 / shape), 1e-12) for _ in range(count))


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
    del due[bisect_left(due, duration_s * NS) :]
    return due
