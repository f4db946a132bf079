"""How busy and how late the generator itself was, once a second: the evidence behind CLIENT_BOUND."""

from __future__ import annotations

import resource
import sys
from array import array
from pathlib import Path
from time import monotonic_ns, process_time_ns

from include.loadtest.engine.clock import NS, Timers
from include.loadtest.spool import HEALTH, SpoolWriter

BEAT_NS = 10_000_000


class Health:
    """A beat every 10 ms whose lateness is the event loop's, hence that of a read at the same moment."""

    def __init__(self, timers: Timers, spool: SpoolWriter) -> None:
        self._timers = timers
        self._spool = spool
        self._late_us = array("I")
        self._due = 0
        self._second = 0
        self._stopped = False
        self._schedstat = Path(f"/proc/self/task/{_thread_id()}/schedstat")

    def start(self) -> None:
        """Begin to beat."""
        now = monotonic_ns()
        self._second = now
        self._note(now)
        self._due = now + BEAT_NS
        self._timers.at(self._due, self._beat)

    def mark(self) -> None:
        """End the second early: what follows (the drain) is told apart from the load."""
        now = monotonic_ns()
        self._note(now)
        self._second = now

    def stop(self) -> None:
        """Write the last, partial second; a second call does nothing."""
        if not self._stopped:
            self._stopped = True
            self._note(monotonic_ns())

    def _beat(self) -> None:
        if self._stopped:
            return
        now = monotonic_ns()
        self._late_us.append(min((now - self._due) // 1000, 0xFFFFFFFF))
        if now - self._second >= NS:
            self._note(now)
            self._second = now
            self._spool.flush()
        # Beats that a stall has swallowed are counted: each was as late as the stall leaves it.
        self._due += BEAT_NS
        while self._due <= now:
            self._late_us.append(min((now - self._due) // 1000, 0xFFFFFFFF))
            self._due += BEAT_NS
        self._timers.at(self._due, self._beat)

    def _note(self, now: int) -> None:
        self._spool.add(
            HEALTH,
            {
                "at": now,
                "cpu_ns": process_time_ns(),
                "wait_ns": self._run_queue_ns(),
                "late_us": self._late_us.tobytes(),
                "rss_kib": peak_rss_kib(),
            },
        )
        self._late_us = array("I")

    def _run_queue_ns(self) -> int:
        """Time that this thread was ready to run and had no core (Linux, /proc/<pid>/schedstat)."""
        try:
            return int(self._schedstat.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            return -1


def _thread_id() -> int:
    import threading

    return threading.get_native_id()


def peak_rss_kib() -> int:
    """Return the largest resident size of this process so far, in KiB.

    Linux's ``ru_maxrss`` survives exec and so would count the parent that forked us; ``VmHWM`` does not.
    """
    if sys.platform == "linux":
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // 1024 if sys.platform == "darwin" else peak
