"""What a running stack says about itself, in one file that is written whole or not at all."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import IO

import psutil
from pydantic import Field

from include.catalog.specs import Spec
from include.errors import FailureClass, PipelineError
from include.objects import PROJECT_ROOT

DEFAULT_STATE = PROJECT_ROOT / "var" / "local"
FILE = "state.json"


class ServiceState(Spec):
    """One service: its leader's pid and start time, the address for clients, its log.

    :param created: epoch seconds: with the pid an identity, because pids are reused.
    """

    pid: int
    created: float
    port: int | None = None
    url: str | None = None
    log: str


class StackState(Spec):
    """A stack: who supervises it, its ports by name, its services.

    :param ready: every service has answered since the last ``up``.
    """

    supervisor: int
    supervisor_created: float
    since: float = Field(default_factory=time.time)
    ready: bool = False
    ports: dict[str, int]
    services: dict[str, ServiceState] = Field(default_factory=dict)


def read_state(state: Path) -> StackState:
    """Return what the stack below ``state`` recorded.

    :raises PipelineError: reason NotRunning, when there is no record.
    """
    try:
        return StackState.model_validate_json((state / FILE).read_text())
    except (FileNotFoundError, ValueError) as error:
        raise PipelineError(
            "NotRunning",
            f"no local HyperPod is recorded in {state}",
            fix="start it: python -m include.local up",
            failure_class=FailureClass.CONFIGURATION,
        ) from error


def write_state(state: Path, content: StackState) -> None:
    """Record a stack atomically."""
    state.mkdir(parents=True, exist_ok=True)
    partial = state / f".{FILE}.{os.getpid()}.partial"
    partial.write_text(content.model_dump_json(indent=1))
    partial.replace(state / FILE)


def remove_state(state: Path) -> None:
    """Forget a stack that has ended."""
    (state / FILE).unlink(missing_ok=True)


def this_process() -> tuple[int, float]:
    """Return pid and start time of this process."""
    return os.getpid(), psutil.Process().create_time()


class StackLock:
    """Held by the one process that supervises a stack; the kernel lets go of it when that process dies."""

    def __init__(self, state: Path) -> None:
        self._path = state / "lock"
        self._file: IO[str] | None = None

    def acquire(self) -> bool:
        """Take the lock; false when another process has it."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        file = self._path.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        """Give the lock back."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


def supervised(state: Path) -> bool:
    """True while some process supervises the stack below ``state``."""
    with StackLock(state) as free:
        return not free
