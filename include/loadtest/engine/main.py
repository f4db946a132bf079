"""Entry of a load generator process: reads a job, runs it, ends when its parent does."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import resource
import signal
import sys
from typing import Any

import msgspec
import uvloop

from include.loadtest.engine.generator import Generator
from include.loadtest.engine.surroundings import RunFailedError, print_event
from include.loadtest.job import Job, decode_job
from include.loadtest.spool import SpoolError

EXIT_FAILED, EXIT_BAD_JOB = 3, 2
_PR_SET_PDEATHSIG = 1


def main(started_ns: int) -> int:
    """Read one job from standard input, run it; the exit code is 0 when the load ran to its end."""
    die_with_parent()
    allow_many_files()
    try:
        job = decode_job(sys.stdin.buffer.readline())
    except msgspec.MsgspecError as error:
        print_event({"event": "error", "reason": "BadJob", "message": str(error), "evidence": []})
        return EXIT_BAD_JOB
    return uvloop.run(_run(job, started_ns))


async def _run(job: Job, started_ns: int) -> int:
    loop = asyncio.get_running_loop()
    try:
        generator = Generator(job, print_event, started_ns)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, generator.stop, "terminated")
        _watch_parent(loop, generator)
        loop.set_exception_handler(lambda _, context: _defect(generator, context))
        summary = await generator.run()
    except RunFailedError as error:
        print_event({"event": "error", "reason": error.reason, "message": str(error), "evidence": error.evidence})
        return EXIT_FAILED
    except SpoolError as error:
        print_event({"event": "error", "reason": error.reason, "message": f"{job.out}: {error}", "evidence": []})
        return EXIT_FAILED
    print_event({"event": "finished", "worker": job.worker, **summary})
    return 0


def _defect(generator: Generator, context: dict[str, Any]) -> None:
    """A callback has raised: the request it was about is lost, so the run's end may never come. End it here."""
    problem = context.get("exception")
    if isinstance(problem, SpoolError):
        generator.end_at_once(problem.reason, f"the records could not be written: {problem}")
    elif "handle" in context or "protocol" in context:
        generator.end_at_once("GeneratorDefect", f"{context.get('message')}: {problem!r}")


def _watch_parent(loop: asyncio.AbstractEventLoop, generator: Generator) -> None:
    """A line on standard input releases the barrier; its end means that the parent is gone."""
    os.set_blocking(0, False)
    pending = bytearray()

    def readable() -> None:
        try:
            data = os.read(0, 4096)
        except BlockingIOError:
            return
        if not data:
            loop.remove_reader(0)
            generator.stop("parent_gone")
            return
        pending.extend(data)
        while b"\n" in pending:
            line, _, rest = bytes(pending).partition(b"\n")
            pending[:] = rest
            if line.startswith(b"start "):
                generator.start_at(int(line[6:]))

    loop.add_reader(0, readable)


def die_with_parent() -> None:
    """Ask the kernel for SIGTERM when the parent dies (Linux, prctl(2)); elsewhere the pipe's end must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def allow_many_files() -> None:
    """Raise the soft limit of open files to the hard one: a thousand streams are a thousand sockets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
