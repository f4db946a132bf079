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
    """

    total: int
    callback: ProgressCallback | None
    done: int = 0
    _started: float = field(default_factory=time.monotonic)
    _said: float = field(default_factory=time.monotonic)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str, size: int) -> None:
        """Add bytes of a file."""
        with self._lock:
            self.done += size
            now = time.monotonic()
            if self.callback is None or (now - self._said < SECONDS_BETWEEN and self.done < self.total):
                return
            self._said = now
            rate = self.done / max(now - self._started, 1e-6)
            eta = (self.total - self.done) / rate if rate else None
            self.callback(Progress(self.done, self.total, rate, eta, path))
