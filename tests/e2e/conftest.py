"""One real Airflow and one local HyperPod for all end-to-end tests."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from include.local.demo import Stack
from include.local.progress import Story


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The stack, up."""
    with Stack(tmp_path_factory.mktemp("airflow"), Story(time.monotonic())) as running:
        yield running
