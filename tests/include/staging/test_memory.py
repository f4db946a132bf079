"""Memory is what is in flight, not what a file has: files of gigabytes pass through a few hundred MiB."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.objects import PROJECT_ROOT
from tests.include.staging.conftest import MODELS_URI, Server

pytestmark = [pytest.mark.local, pytest.mark.timeout(600)]
SIZE = 2 << 30
LIMIT_MIB = 400
# Peak of the process itself: that of getrusage would be its parent's, when that was larger.
STAGE = """
import sys
from include.staging.cli import main
code = main(sys.argv[1:])
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")), file=sys.stderr)
sys.exit(code)
"""


@pytest.fixture
def name(server: Server, request: pytest.FixtureRequest) -> Iterator[str]:
    """A model's name; what was staged under it goes, as it is large."""
    made = f"sparse-{request.node.callspec.id}"
    yield made
    for key in server.keys(f"models/{made}/"):
        server.client.delete_object(Bucket="hyperpod-models", Key=key)


@pytest.mark.parametrize("kind", ["folder", "hub"])
def test_a_file_of_gigabytes_takes_some_hundred_mebibytes(server: Server, name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "model" / "model.safetensors"
    path.parent.mkdir()
    header = b'{"%s":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (kind.encode(), SIZE, SIZE)
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    os.truncate(path, 8 + len(header) + SIZE)
    with HubServer([Repository("org/model", path.parent)] if kind == "hub" else []) as hub:
        source = "hf://org/model" if kind == "hub" else str(path.parent)
        command = [sys.executable, "-c", STAGE, "stage", name, "--source", source, "--models-uri", MODELS_URI]
        environment = os.environ | {"HF_ENDPOINT": hub.url, "PYTHONPATH": str(PROJECT_ROOT)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=PROJECT_ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert f'"moved_bytes": {8 + len(header) + SIZE}' in done.stdout
    peak = int(done.stderr.rsplit("VmHWM:", 1)[1].split()[0]) / 1024
    assert peak < LIMIT_MIB
