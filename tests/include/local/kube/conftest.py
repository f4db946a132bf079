"""One TLS API server for the module's tests; tests that kill or fault it make their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.include.local.kube.api import Api


@pytest.fixture(scope="session")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    server = Api(tmp_path_factory.mktemp("kube") / "state").start()
    yield server
    server.kill()


@pytest.fixture
def own_api(tmp_path: Path) -> Iterator[Callable[..., Api]]:
    started: list[Api] = []

    def start(*arguments: str, tls: bool = False) -> Api:
        started.append(Api(tmp_path / "state", tls=tls, arguments=arguments).start())
        return started[-1]

    yield start
    for server in started:
        if server.process is not None and server.process.poll() is None:
            server.kill()
