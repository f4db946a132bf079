"""A real model server on the real weights, shared by all tests of its contract."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

from include.local.modelserver.engine import free_port
from include.local.weights import smollm2
from include.objects import PROJECT_ROOT


@dataclass
class Running:
    """A model server process.

    :param pings: status codes that ``/ping`` gave from the start on.
    """

    process: subprocess.Popen[bytes]
    port: int
    log: Path
    pings: list[int] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def wait_ready(self, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            with contextlib.suppress(requests.ConnectionError):
                self.pings.append(requests.get(f"{self.url}/ping", timeout=5).status_code)
            if self.pings[-1:] == [200]:
                return
            time.sleep(0.02)
        raise AssertionError(f"model server not ready: {self.log.read_text()}")

    def metric(self, name: str) -> float:
        text = requests.get(f"{self.url}/metrics", timeout=10).text
        return float(next(line.split()[1] for line in text.splitlines() if line.startswith(f"{name} ")))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()


def start(folder: Path, log: Path, *arguments: str) -> Running:
    """Start a model server as the node agent does: the container's port is told by the environment."""
    port = free_port()
    env = {
        **os.environ, "HYPERPOD_LOCAL_PORT_8080": str(port), "SM_MODEL_DIR": str(folder),
        "PYTHONPATH": str(PROJECT_ROOT),
    }  # fmt: skip
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "include.local.modelserver", "--served-model-name", "smol", *arguments],
            env=env, stdout=output, stderr=output,
        )  # fmt: skip
    return Running(process, port, log)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the real GGUF file."""
    folder = tmp_path_factory.mktemp("weights")
    (folder / "model.gguf").symlink_to(smollm2())
    return folder


@pytest.fixture(scope="session")
def server(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """The shared server."""
    running = start(weights, tmp_path_factory.mktemp("log") / "server.log")
    try:
        running.wait_ready()
        yield running
    finally:
        running.stop()
