"""Container processes on disk: start through the shim, find again after a restart, end for sure."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from include.local.node import shim
from include.local.processes import spawn

SHIM = Path(shim.__file__)
START_SECONDS = 10.0


@dataclass(frozen=True)
class ExitRecord:
    """How a container process ended; ``code`` is 128 + signal for a killed one, as Kubernetes reports it."""

    code: int
    started: str
    finished: str


@dataclass(frozen=True)
class ContainerProcess:
    """One attempt of one container: files ``<folder>/<attempt>.{log,process.json,exit.json}``."""

    folder: Path
    attempt: int

    def _path(self, suffix: str) -> Path:
        return self.folder / f"{self.attempt}{suffix}"

    @property
    def log(self) -> Path:
        """The log file."""
        return self._path(".log")

    def start(self, argv: list[str], env: dict[str, str], cwd: Path, heartbeat: Path) -> None:
        """Start the process; returns at once, :meth:`record` tells when it runs."""
        self.folder.mkdir(parents=True, exist_ok=True)
        prefix = self.folder / str(self.attempt)
        command = [sys.executable, "-I", "-S", str(SHIM), str(prefix), str(heartbeat), "--", *argv]
        name = f"{self.folder.name}.{self.attempt}"
        registry = self.folder / "processes.json"
        managed = spawn(name, command, env, self._path(".shim.log"), registry, cwd=cwd)
        if managed.handle is not None:
            _CHILDREN.append(managed.handle)

    def record(self) -> dict[str, object] | None:
        """Pids and start times as the shim wrote them."""
        return _read(self._path(".process.json"))

    def exit(self) -> ExitRecord | None:
        """How it ended; ``None`` while it runs (or was never started)."""
        found = _read(self._path(".exit.json"))
        if found is None:
            return None
        return ExitRecord(int(str(found["code"])), str(found["started"]), str(found["finished"]))

    def started(self) -> bool:
        """True when this attempt was begun, also when the shim had no time to write its record."""
        return self._path(".shim.log").exists()

    def wait_for_record(self, seconds: float = START_SECONDS) -> bool:
        """Wait until the shim has written its record; false when it never does."""
        deadline = time.monotonic() + seconds
        while self.record() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        return self.record() is not None

    def alive(self) -> bool:
        """True while the shim runs: pid and start time both match, so a recycled pid does not count."""
        reap_children()
        found = self.record()
        return found is not None and same_process(found, "shim")

    def terminate(self) -> None:
        """Ask it to end (SIGTERM to the process, through the shim)."""
        self._kill("shim", signal.SIGTERM, group=False)

    def kill(self) -> None:
        """End the process group now; the shim records it."""
        self._kill("pid", signal.SIGKILL, group=True)

    def kill_shim(self) -> None:
        """End the shim itself; its process dies with it."""
        self._kill("shim", signal.SIGKILL, group=True)

    def send(self, number: int) -> None:
        """Send a signal to the process group."""
        self._kill("pid", number, group=True)

    def _kill(self, which: str, number: int, *, group: bool) -> None:
        found = self.record()
        if found is None or not same_process(found, which):
            return
        pid = int(str(found[which]))
        with contextlib.suppress(ProcessLookupError):
            (os.killpg if group else os.kill)(pid, number)


_CHILDREN: list[subprocess.Popen[bytes]] = []


def reap_children() -> None:
    """Collect shims that ended, so that none stays a zombie."""
    _CHILDREN[:] = [child for child in _CHILDREN if child.poll() is None]


def same_process(found: dict[str, object], which: str) -> bool:
    """True when the recorded pid is running and still is the recorded process."""
    pid = int(str(found[which]))
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return shim.start_ticks(pid) == int(str(found[f"{which}_start"]))


def attempts(folder: Path) -> list[ContainerProcess]:
    """Every attempt of a container that was begun, oldest first."""
    numbers = sorted(int(path.name.split(".", 1)[0]) for path in folder.glob("*.shim.log"))
    return [ContainerProcess(folder, number) for number in numbers]


def kill_pod_folder(folder: Path) -> int:
    """End every process below a pod's folder, for sure; return how many were running."""
    begun = [p for folder_ in sorted((folder / "containers").glob("*")) for p in attempts(folder_)]
    for process in begun:
        process.wait_for_record()
    running = [process for process in begun if process.alive()]
    deadline = time.monotonic() + START_SECONDS
    while any(process.alive() for process in running) and time.monotonic() < deadline:
        for process in running:
            process.kill()
        time.sleep(0.02)
    for process in running:
        process.kill_shim()
    return len(running)


def kill_all(state: Path, *, remove: bool = True) -> int:
    """End every pod process of every node below ``state`` and remove the pods' folders.

    For ``down``: works when the node agent is dead. Returns the number of processes that were running.
    """
    total = 0
    for folder in sorted(state.glob("nodes/*/pods/*")):
        total += kill_pod_folder(folder)
        if remove:
            shutil.rmtree(folder, ignore_errors=True)
    return total


def _read(path: Path) -> dict[str, object] | None:
    try:
        found: dict[str, object] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found
