"""How busy the processes of a tool are: the same evidence behind CLIENT_BOUND as a generator of ours gives."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

INTERVAL_S = 1.0
_SESSION, _USER, _SYSTEM = 3, 11, 12  # fields of /proc/<pid>/stat after the name


class Watch:
    """Notes once a second, in a thread of its own, how much CPU time the busiest process of a session took.

    A process that is alone on its core for all of a second is the tool's limit, however idle its others are.

    :param session: id of the session that the tool was started in.
    """

    def __init__(self, session: int) -> None:
        self._session = session
        self._seen: dict[str, float] = {}
        self._busiest_s = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.beats: list[dict[str, Any]] = []

    def __enter__(self) -> Watch:
        self._note()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(INTERVAL_S):
            self._note()

    def _note(self) -> None:
        taken = cpu_seconds(self._session)
        # Time of before it was first seen is of an earlier second, or of the start.
        self._busiest_s += max((now - self._seen.get(pid, now) for pid, now in taken.items()), default=0.0)
        self._seen = taken
        beat = {"at": time.time_ns(), "cpu_ns": round(self._busiest_s * 1e9), "wait_ns": -1, "rss_kib": 0}
        self.beats.append(beat | {"late_us": b""})


def cpu_seconds(session: int) -> dict[str, float]:
    """Return the CPU time that each process of a session has taken so far, by process id."""
    tick, found = os.sysconf("SC_CLK_TCK"), {}
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, IndexError, ValueError):  # it has ended meanwhile
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[_SESSION]) == session:
                found[folder.name] = (int(fields[_USER]) + int(fields[_SYSTEM])) / tick
    return found
