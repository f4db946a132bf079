"""Processes that we start: each in its own group, written down, ended with all its children."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil


@dataclass(frozen=True)
class Managed:
    """One started process, which leads its own group.

    :param created: start time (epoch seconds): a pid alone may by now belong to somebody else.
    """

    name: str
    pid: int
    created: float
    handle: subprocess.Popen[bytes] | None = None

    def poll(self) -> int | None:
        """Return ``None`` while it lives, else its exit code (0 when we cannot know it)."""
        if self.handle is not None:
            return self.handle.poll()
        return None if alive(self.pid, self.created) else 0


def spawn(
    name: str,
    command: Sequence[str],
    env: Mapping[str, str],
    log: Path,
    registry: Path,
    *,
    cwd: Path | None = None,
) -> Managed:
    """Start a process in its own session, its output appended to ``log``; record it in ``registry``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        handle = subprocess.Popen(
            list(command), env=dict(env), stdin=subprocess.DEVNULL, stdout=output, stderr=output, cwd=cwd,
            start_new_session=True,
        )  # fmt: skip
    process = Managed(name, handle.pid, _created(handle.pid), handle)
    _record(registry, process)
    return process


def _same(process: Managed) -> bool:
    try:
        return abs(psutil.Process(process.pid).create_time() - process.created) < 1.5
    except psutil.Error:
        return False


def alive(pid: int, created: float) -> bool:
    """True when this very process (pid and start time) lives; a zombie does not."""
    try:
        process = psutil.Process(pid)
        return abs(process.create_time() - created) < 1.5 and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def end_group(process: Managed, *, grace: float = 5.0) -> None:
    """End a process, its group and its descendants: TERM, KILL after ``grace`` seconds, gone on return."""
    family = _family(process)
    _signal(family, process, signal.SIGTERM)
    _, left = psutil.wait_procs(family, timeout=grace)
    if left or _group_alive(process.pid):
        _signal(left, process, signal.SIGKILL)
        psutil.wait_procs(left, timeout=5)
    if process.handle is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.handle.wait(timeout=5)


def end_recorded(registry: Path, *, grace: float = 5.0) -> list[str]:
    """End what a killed session left behind by its registry; return the names of what still lived."""
    recorded = [
        Managed(name, int(entry["pid"]), float(entry["created"])) for name, entry in read_registry(registry).items()
    ]
    # The leader may be dead while its children live on in its session; a pid that is somebody else's
    # by now proves that the session is empty.
    ours = [one for one in recorded if not psutil.pid_exists(one.pid) or _same(one)]
    living = [one for one in ours if _group_alive(one.pid)]
    if living:
        with ThreadPoolExecutor(len(living)) as pool:
            list(pool.map(lambda one: end_group(one, grace=grace), living))
    registry.unlink(missing_ok=True)
    return [one.name for one in living]


def read_registry(registry: Path) -> dict[str, Any]:
    """Return the recorded processes by name; empty when there is no registry."""
    try:
        return dict(json.loads(registry.read_text()))
    except (FileNotFoundError, ValueError):
        return {}


def _created(pid: int) -> float:
    try:
        return psutil.Process(pid).create_time()
    except psutil.Error:
        return time.time()


def _record(registry: Path, process: Managed) -> None:
    registry.parent.mkdir(parents=True, exist_ok=True)
    entries = read_registry(registry) | {process.name: {"pid": process.pid, "created": process.created}}
    partial = registry.with_suffix(f".{os.getpid()}.partial")
    partial.write_text(json.dumps(entries, indent=1))
    partial.replace(registry)


def _family(process: Managed) -> list[psutil.Process]:
    members: dict[int, psutil.Process] = {}
    if alive(process.pid, process.created):
        with contextlib.suppress(psutil.Error):
            leader = psutil.Process(process.pid)
            members = {child.pid: child for child in [leader, *leader.children(recursive=True)]}
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(other.pid) == process.pid:
                members.setdefault(other.pid, other)
    return list(members.values())


def _group_alive(pgid: int) -> bool:
    for other in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError, PermissionError):
            if os.getsid(other.pid) == pgid and other.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _signal(family: Sequence[psutil.Process], process: Managed, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
    for member in family:
        with contextlib.suppress(psutil.Error):
            member.send_signal(number)
