"""Parent of one container process: logs its output, waits for it, writes down how it ended.

Started as ``python -I -S shim.py <prefix> <heartbeat> -- <argv...>`` in its own session, so that it outlives
the node agent: a restarted agent finds ``<prefix>.process.json`` (pids and start times) and
``<prefix>.exit.json`` (how it ended) and loses neither a process nor an exit code. The process dies with the
shim, and the shim ends it when no node agent has touched ``<heartbeat>`` for a while: nothing outlives a
dead stack. Imports the standard library only; secrets come by environment, never by argv or file.
"""

from __future__ import annotations

import contextlib
import ctypes
import datetime as dt
import json
import os
import select
import signal
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
STALE_SECONDS = 90.0
CHECK_SECONDS = 15.0


def prctl(option: int, value: int) -> None:
    """Call Linux's prctl; a no-op elsewhere."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def write_json(path: Path, value: dict[str, object]) -> None:
    """Write atomically: a reader never sees half a file."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value))
    partial.rename(path)


def start_ticks(pid: int) -> int:
    """Start time of a process in clock ticks since boot; with the pid an identity.

    0 when it cannot be told (no /proc), -1 when the process is gone or a zombie.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (OSError, IndexError):
        return -1 if Path("/proc/self/stat").exists() else 0
    return -1 if fields[0] == "Z" else int(fields[19])


def stamp() -> str:
    """RFC 3339 with nanosecond digits, as the kubelet's log files have it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f000Z")


class LogWriter:
    """Writes lines in the container runtime's format: ``<time> stdout F <line>``."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("ab", buffering=0)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        """Take output; whole lines are written at once."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        now = stamp().encode()
        self._file.write(b"".join(now + b" stdout F " + line + b"\n" for line in lines))

    def close(self) -> None:
        """Write what is left."""
        if self._rest:
            self.feed(b"\n")


def spawn(argv: list[str], output: int) -> int:
    """Fork and exec in a process group of its own; exit status 127/126 as a shell gives."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.setpgid(0, 0)
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.execvp(argv[0], argv)  # noqa: S606
    except OSError as error:
        os.write(2, f"exec: {argv[0]!r}: {error.strerror}\n".encode())
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


class Shim:
    """Supervises one process until it and everything it started is gone."""

    def __init__(self, prefix: Path, heartbeat: Path, argv: list[str]) -> None:
        self._prefix = prefix
        self._heartbeat = heartbeat
        self._argv = argv
        self._stale_since: float | None = None
        self._pid = 0

    def run(self) -> None:
        """Start, log, wait, record."""
        prctl(PR_SET_CHILD_SUBREAPER, 1)
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, lambda *_: self._signal(signal.SIGTERM))
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        output, child_output = os.pipe()
        started = stamp()
        self._pid = spawn(self._argv, child_output)
        os.close(child_output)
        with contextlib.suppress(OSError):
            os.setpgid(self._pid, self._pid)
        self._write_process(started)
        log = LogWriter(self._path(".log"))
        status = self._supervise(output, wake_read, log)
        self._end_group()
        self._drain(output, log)
        log.close()
        code = os.waitstatus_to_exitcode(status)
        write_json(
            self._path(".exit.json"),
            {"code": code if code >= 0 else 128 - code, "started": started, "finished": stamp()},
        )

    def _path(self, suffix: str) -> Path:
        return self._prefix.with_name(self._prefix.name + suffix)

    def _write_process(self, started: str) -> None:
        write_json(
            self._path(".process.json"),
            {
                "shim": os.getpid(),
                "shim_start": start_ticks(os.getpid()),
                "pid": self._pid,
                "pid_start": start_ticks(self._pid),
                "started": started,
            },
        )

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def _supervise(self, output: int, wake: int, log: LogWriter) -> int:
        sources = [output, wake]
        while True:
            ready, _, _ = select.select(sources, [], [], CHECK_SECONDS)
            if wake in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake, 4096)
            if output in ready:
                data = os.read(output, 65536)
                if data:
                    log.feed(data)
                else:
                    sources = [wake]
            status = self._reap()
            if status is not None:
                return status
            if self._abandoned():
                self._signal(signal.SIGKILL)

    def _reap(self) -> int | None:
        """Reap every child that ended (adopted ones too); return the status of the main one."""
        found = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == self._pid:
                found = status

    def _abandoned(self) -> bool:
        """True when the heartbeat stayed old for a while; the waking of a suspended machine is not that."""
        try:
            age = time.time() - self._heartbeat.stat().st_mtime
        except FileNotFoundError:
            age = STALE_SECONDS + 1
        if age < STALE_SECONDS:
            self._stale_since = None
            return False
        self._stale_since = self._stale_since or time.monotonic()
        return time.monotonic() - self._stale_since > STALE_SECONDS / 2

    def _end_group(self) -> None:
        """Kill what the process left running, in its group or adopted by this subreaper."""
        self._signal(signal.SIGKILL)
        children = Path(f"/proc/self/task/{os.getpid()}/children")
        for _ in range(100):
            left = children.read_text().split() if children.exists() else []
            if not left:
                return
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            time.sleep(0.01)
            self._reap()

    @staticmethod
    def _drain(output: int, log: LogWriter) -> None:
        while select.select([output], [], [], 0)[0]:
            data = os.read(output, 65536)
            if not data:
                return
            log.feed(data)


def main() -> None:
    """Entry point."""
    prefix, heartbeat, separator, *argv = sys.argv[1:]
    if separator != "--" or not argv:
        raise SystemExit("usage: shim.py PREFIX HEARTBEAT -- ARGV...")
    Shim(Path(prefix), Path(heartbeat), argv).run()


if __name__ == "__main__":
    main()
