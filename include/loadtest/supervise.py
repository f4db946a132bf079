"""Runs generator processes: hands them their jobs, starts them together, ends them whatever happens."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from include.errors import FailureClass, PipelineError
from include.loadtest.job import Job, encode_job
from include.objects import PROJECT_ROOT

Progress = Callable[[dict[str, Any]], None]
SILENCE_S = 30.0
START_AHEAD_NS = 50_000_000
END_GRACE_S = 10.0
_OURS = frozenset({"GeneratorDefect", "StopFailed"})
_CONFIGURATION = frozenset({"BadJob", "BadCertificateFile", "EmptyDataset"})


class Generators:
    """The processes of one run. Use as a context manager: leaving it ends what is still running.

    :param jobs: one per process.
    :param folder: takes each process's standard error.
    :param appoint: returns the start time (Unix ns) once the processes are ready; ``None``: at once.
    """

    def __init__(self, jobs: Sequence[Job], folder: Path, appoint: Callable[[], int] | None = None) -> None:
        self._jobs = jobs
        self._folder = folder
        self._appoint = appoint or _at_once
        self._processes: list[subprocess.Popen[bytes]] = []
        self._events: queue.Queue[tuple[int, dict[str, Any] | None]] = queue.Queue()
        self._failure: PipelineError | None = None

    def __enter__(self) -> Generators:
        environment = dict(os.environ)
        environment["PYTHONPATH"] = os.pathsep.join([str(PROJECT_ROOT), *filter(None, [environment.get("PYTHONPATH")])])
        command = [sys.executable, "-m", "include.loadtest", "run", "--job", "-"]
        for place, job in enumerate(self._jobs):
            with self._log(place).open("wb") as log:
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
                )
            self._processes.append(process)
            self._tell(place, encode_job(job))
            threading.Thread(target=self._read, args=(place, process.stdout), daemon=True).start()
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self._processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + END_GRACE_S
        for process in self._processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for stream in (process.stdin, process.stdout):
                if stream is not None:
                    with contextlib.suppress(OSError):
                        stream.close()

    def run(self, progress: Progress | None = None) -> None:
        """Wait until every process has ended.

        :param progress: called with each event of each process, in the calling thread.
        :raises PipelineError: a process said why it cannot run, or fell silent.
        """
        running = set(range(len(self._processes)))
        waiting = set(running)
        silence = max(job.timeout_s for job in self._jobs) + SILENCE_S
        while running:
            try:
                place, event = self._events.get(timeout=silence)
            except queue.Empty:
                raise PipelineError(
                    "LoadGeneratorHung",
                    f"a load generator wrote nothing for {silence:.0f} s",
                    fix="Look at its log; the records until then are kept.",
                    evidence=self._log_tail(next(iter(running))),
                ) from None
            if event is None:
                running.discard(place)
                waiting.discard(place)
            elif event["event"] == "ready":
                waiting.discard(place)
            elif event["event"] == "error":
                self._failure = self._failure or _error_of(event)
            if event is not None and progress is not None:
                progress(event)
            self._release(waiting, event)
        if self._failure is not None:
            raise self._failure

    def died(self, place: int) -> tuple[int, tuple[str, ...]]:
        """Return exit code and last lines of standard error of a process."""
        return self._processes[place].wait(), self._log_tail(place)

    def _release(self, waiting: set[int], event: dict[str, Any] | None) -> None:
        """Start all together once the last one is ready."""
        if waiting or event is None or event["event"] != "ready" or not self._jobs[0].barrier:
            return
        line = f"start {self._appoint()}\n".encode()
        for place in range(len(self._processes)):
            self._tell(place, line)

    def _tell(self, place: int, line: bytes) -> None:
        stream = self._processes[place].stdin
        if stream is not None:
            with contextlib.suppress(BrokenPipeError):
                stream.write(line)
                stream.flush()

    def _read(self, place: int, stream: IO[bytes] | None) -> None:
        for line in stream or ():
            with contextlib.suppress(ValueError):
                self._events.put((place, json.loads(line)))
        self._events.put((place, None))

    def _log(self, place: int) -> Path:
        return self._folder / f"generator-{place}.log"

    def _log_tail(self, place: int) -> tuple[str, ...]:
        with contextlib.suppress(OSError):
            return tuple(self._log(place).read_text(errors="replace").splitlines()[-20:])
        return ()


def _at_once() -> int:
    return time.time_ns() + START_AHEAD_NS


def _error_of(event: dict[str, Any]) -> PipelineError:
    reason = str(event["reason"])
    fix, failure_class = "Check that the endpoint answers, then run again.", FailureClass.TRANSIENT
    if reason in _CONFIGURATION:
        fix, failure_class = "Correct the job.", FailureClass.CONFIGURATION
    elif reason in ("DiskFull", "RecordsNotWritten"):
        fix = "Make room where the records are written, then run again; the records until then are kept."
    elif reason in _OURS:
        fix, failure_class = "Look at the generator's log; the records until then are kept.", FailureClass.INTERNAL
    return PipelineError(
        reason, str(event["message"]), fix=fix, failure_class=failure_class, evidence=tuple(event.get("evidence", ()))
    )
