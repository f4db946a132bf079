"""Shared local cluster of the operator's and the node's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.include.local.stack import Stack


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API server, AWS stand-in, node agent and operator."""
    made = Stack(Path(tmp_path_factory.mktemp("cluster")))
    try:
        made.up("kube", "aws")
        made.up("node", "operator")
        yield made
    finally:
        made.down()
