"""Was the load that was asked for the load that was sent? Streams, rate, requests, and how late they were."""

from __future__ import annotations

import math
from typing import Any

from include.loadtest.records import Records
from include.loadtest.window import load_of

# Standard errors by which a rate of random arrivals may be lower than asked for without anybody's fault.
_BY_CHANCE = 3.0


def send_lag(measured: Records) -> float | None:
    """Return the 99th percentile (of few: the largest) of send time − the later of due time and a free connection; ms.

    ``None`` when the due times are not known, which is so of some tools' output.
    """
    import numpy as np

    if not all(worker["meta"].get("due_times", True) for worker in measured.workers):
        return None
    ready = np.fmax(measured.times("scheduled_ns"), measured.times("ready_ns"))
    lag = measured.times("sent_ns") - ready
    lag = lag[~np.isnan(lag)]
    return float(np.quantile(lag, 0.99, method="higher")) * 1e3 if len(lag) else None


def streams(measured: Records) -> tuple[int | None, int | None]:
    """Return asked and reached streams of a closed loop that had work for all of them and no pauses."""
    load, summaries = load_of(measured), [worker["summary"] or {} for worker in measured.workers]
    job = measured.workers[0]["meta"].get("job", {}) if measured.workers else {}
    paused = any(kind.get("think_time_s") for kind in job.get("prompts", []))
    asked = load.get("concurrency")
    if load.get("mode") != "closed" or not asked or paused or measured.table.num_rows < 2 * asked:
        return None, None
    return int(asked), sum(summary.get("peak_in_flight", 0) for summary in summaries)


def rates(measured: Records) -> tuple[float | None, float | None, float]:
    """Return due and actual send rate of an open loop, and the share that chance alone may take from the latter.

    What was due of our own load is known arrival by arrival. Another tool's due times, when it tells any, are its own
    idea: then the rate that was asked for counts, which random arrivals meet only nearly. Neither rate has meaning for
    a closed loop or a capped one.
    """
    import numpy as np

    load = load_of(measured)
    due, sent = measured.times("scheduled_ns"), measured.times("sent_ns")
    if load.get("mode") != "open" or load.get("concurrency") or len(due) < 2 or np.isnan(sent).all():
        return None, None, 0.0
    span, real, count = float(np.ptp(due)), float(np.nanmax(sent) - np.nanmin(sent)), len(due) - 1
    delivered = float((~np.isnan(sent)).sum() - 1) / real if real else None
    planned = count / span if span else None
    if not measured.workers[0]["meta"].get("tool") or not load.get("rate"):
        return planned, delivered, 0.0
    if planned and delivered is not None and delivered < 0.99 * planned:
        return planned, delivered, 0.0
    return float(load["rate"]), delivered, _BY_CHANCE * _spread(load) / math.sqrt(count)


def _spread(load: dict[str, Any]) -> float:
    """Return the coefficient of variation of the gaps between arrivals."""
    if load.get("arrivals") == "constant":
        return 0.0
    return 1 / math.sqrt(load.get("burstiness") or 1.0) if load.get("arrivals") == "gamma" else 1.0


def requests_made(measured: Records) -> tuple[int | None, int | None]:
    """Return how many requests another tool was to make, and how many it reports; ours stop for stated reasons only."""
    asked = [(worker["summary"] or {}).get("asked_requests", 0) for worker in measured.workers]
    return (sum(asked), measured.table.num_rows) if asked and all(asked) else (None, None)
