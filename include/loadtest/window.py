"""The steady part of a run, cut by a stated rule, and the test that it is steady."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from include.loadtest.records import Records

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

KEPT_SHARE = 0.5
KEPT_REQUESTS = 6
BATCHES = 8
BATCH_REQUESTS = 4
TREND_P = 0.01
TREND_CHANGE = 0.20

CLOSED_RULE = "closed loop: from the first token (or end) of the last user's first request to the last send"
OPEN_RULE = "open loop: from one median E2E after the first arrival to the last arrival"
WHOLE_RULE = "whole run: the steady part would keep fewer than 6 requests or half of them"


class Window(msgspec.Struct, frozen=True):
    """Start and end in seconds after the earliest scheduled time, and why."""

    start: float
    end: float
    rule: str
    whole: bool

    @property
    def seconds(self) -> float:
        """Length."""
        return max(self.end - self.start, 1e-9)


def load_of(records: Records) -> dict[str, Any]:
    """Return the load level that the generators were given; empty for imported records."""
    for worker in records.workers:
        load: dict[str, Any] = worker["meta"].get("job", {}).get("load", {})
        if load:
            return load
    return {}


def steady_window(measured: Records) -> Window:
    """Cut warm-up and tail off.

    :param measured: the records of phase ``measure``.
    """
    import numpy as np

    scheduled, sent, end = measured.times("scheduled_ns"), measured.times("sent_ns"), measured.times("end_ns")
    if not len(scheduled):
        return Window(0, 0, WHOLE_RULE, whole=True)
    load = load_of(measured)
    first = measured.times("first_token_ns")
    answered = np.where(np.isnan(first), end, first)
    if load.get("mode") == "open":
        rule = OPEN_RULE
        middle = np.nanmedian(end - scheduled) if not np.isnan(end - scheduled).all() else 0.0
        start, stop = float(scheduled.min() + middle), float(scheduled.max())
    else:
        rule = CLOSED_RULE
        users = min(int(load.get("concurrency") or 1), len(scheduled))
        firsts = answered[np.argsort(scheduled, kind="stable")[:users]]
        start = 0.0 if np.isnan(firsts).all() else float(np.nanmax(firsts))
        stop = float(np.nanmax(sent)) if not np.isnan(sent).all() else start
    kept = int(((scheduled >= start) & (scheduled <= stop)).sum())
    if stop <= start or kept < max(KEPT_REQUESTS, KEPT_SHARE * len(scheduled)):
        return Window(0.0, stop if np.isnan(end).all() else float(np.nanmax(end)), WHOLE_RULE, whole=True)
    return Window(start, stop, rule, whole=False)


class Trend(msgspec.Struct, frozen=True):
    """Drift of a latency over the window.

    :param change: modelled change from first to last batch, as a share of the median.
    :param p_value: of a slope this large if there were none (t test on the medians of eight batches).
    """

    tested: bool
    change: float = 0.0
    p_value: float = 1.0

    @property
    def unsteady(self) -> bool:
        """True when the drift is both certain (p < 0.01) and large (> 20 %)."""
        return self.tested and self.p_value < TREND_P and abs(self.change) > TREND_CHANGE


def trend(at: Floats, latency: Floats) -> Trend:
    """Test a latency for drift; batches of the window, not requests, are the units, since neighbours depend."""
    import numpy as np
    from scipy.special import stdtr

    keep = ~(np.isnan(at) | np.isnan(latency))
    at, latency = at[keep], latency[keep]
    if len(at) < BATCHES * BATCH_REQUESTS:
        return Trend(tested=False)
    order = np.argsort(at, kind="stable")
    groups = np.array_split(order, BATCHES)
    x = np.array([np.median(at[group]) for group in groups])
    y = np.array([np.median(latency[group]) for group in groups])
    dx = x - x.mean()
    if not (dx @ dx) > 0:
        return Trend(tested=False)
    slope = float(dx @ y / (dx @ dx))
    left = y - y.mean() - slope * dx
    error = float(np.sqrt((left @ left) / (BATCHES - 2) / (dx @ dx)))
    middle = float(np.median(latency)) or 1e-9
    change = slope * float(x[-1] - x[0]) / middle
    statistic = abs(slope) / error if error > 0 else (np.inf if slope else 0.0)
    return Trend(tested=True, change=change, p_value=float(2 * stdtr(BATCHES - 2, -statistic)))
