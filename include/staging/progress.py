"""How far a staging is, said now and then."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

from include.staging.context import Progress, ProgressCallback

SECONDS_BETWEEN = 5.0


@dataclass
class Meter:
    """Counts bytes from many threads and calls ``callback`` every few seconds, and at the end.

    :param total: bytes in all.
    :param done: bytes that moved.
    :param taken: bytes that the bucket had already, and copied inside.
    """

    total: int
    callback: ProgressCallback | None
    done: int = 0
    taken: int = 0
    _started: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str, size: int) -> None:
        """Add bytes of a file."""
        with self._lock:
            self.done += size
            self._say(path)

    def take(self, path: str, size: int) -> None:
        """Add bytes of a file that did not move: they are there all the same."""
        with self._lock:
            self.taken += size
            self._say(path)

    def _say(self, path: str) -> None:
        now, there = time.monotonic(), self.done + self.taken
        if self.callback is None or (now - self._said < SECONDS_BETWEEN and there < self.total):
            return
        self._said = now
        rate = there / max(now - self._started, 1e-6)
        eta = (self.total - there) / rate if rate else None
        self.callback(Progress(there, self.total, rate, eta, path))
