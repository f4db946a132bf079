"""llama.cpp in a process of its own: started with the model, answers on a free loopback port."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger("modelserver")


@dataclass(frozen=True)
class EngineOptions:
    """How llama.cpp is started.

    :param slots: requests decoded at once.
    :param context: tokens per slot.
    :param threads: 1 is right on a shared machine: llama.cpp's threads spin, and several of them on a busy CPU
        are many times slower.
    """

    model: str
    alias: str
    slots: int
    context: int
    threads: int
    verbosity: int = 1


class EngineError(RuntimeError):
    """llama.cpp ended before it could answer."""


class Engine:
    """The engine process as its parent sees it."""

    def __init__(self, options: EngineOptions) -> None:
        self._options = options
        self._process: asyncio.subprocess.Process | None = None
        self.url = ""

    async def start(self) -> None:
        """Start llama.cpp and wait until it can answer.

        :raises EngineError: when it ends instead, with its exit code.
        """
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", __name__, json.dumps(self._options.__dict__),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert self._process.stdout is not None  # noqa: S101 (for the type checker: it is a pipe)
        line = await self._process.stdout.readline()
        if not line:
            raise EngineError(f"llama.cpp could not load {self._options.model}: exit {await self.wait()}")
        self.url = str(json.loads(line)["url"])

    async def wait(self) -> int:
        """Wait until the process ends; return its exit code."""
        return await self._process.wait() if self._process else 0

    async def stop(self) -> None:
        """End the process; it keeps nothing that needs saving."""
        self.url = ""
        if self._process is not None and self._process.returncode is None:
            self._process.kill()
            await self._process.wait()


def free_port() -> int:
    """Return a TCP port that is free now on 127.0.0.1."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(options: EngineOptions) -> int:
    """Load the model, print the address as one JSON line, serve until the parent is gone."""
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = options.model
    params.model_alias = {options.alias}
    params.hostnames, params.port = ["127.0.0.1"], free_port()
    params.n_parallel, params.n_ctx = options.slots, options.context * options.slots
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = options.threads
    params.endpoint_metrics, params.ui = True, False
    params.cache_ram_mib = 0
    params.verbosity = options.verbosity
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        print(f"llama.cpp refused {Path(options.model).name}: {error}", file=sys.stderr)  # noqa: T201
        return 1
    print(json.dumps({"url": str(server.listening_address)}), flush=True)  # noqa: T201
    sys.stdin.buffer.read()
    # Its threads may be decoding: no orderly end is needed, and none could take long.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(serve(EngineOptions(**json.loads(sys.argv[1]))))
