"""A real S3 server of its own (SeaweedFS), a context for it, and models made of random bytes."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from include.catalog.specs import ModelSpec
from include.local import s3
from include.local.ports import choose
from include.staging.context import StagingContext

MODELS_URI = "s3://hyperpod-models/models"


@dataclass(frozen=True)
class Server:
    """An S3 server and a plain client of it."""

    url: str
    client: Any

    def keys(self, prefix: str) -> list[str]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="hyperpod-models", Prefix=prefix)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def uploads(self) -> list[str]:
        found = self.client.list_multipart_uploads(Bucket="hyperpod-models").get("Uploads", ())
        return [item["Key"] for item in found]

    def body(self, key: str) -> bytes:
        return bytes(self.client.get_object(Bucket="hyperpod-models", Key=key)["Body"].read())


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    from tests.include.local.stack import wait_for

    folder = Path(tmp_path_factory.mktemp("s3"))
    ports = choose(s3.PORTS, {})
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(s3.command(folder, ports), stdout=log, stderr=log)
    try:
        wait_for("S3", lambda: s3.ready(ports["s3"]), 60)
        yield Server(f"http://127.0.0.1:{ports['s3']}", s3.client(ports["s3"]))
    finally:
        process.kill()
        process.wait()
        s3.remove_sockets(ports)


@pytest.fixture
def server(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The store, as the environment of this test names it: other tests of the process have stores of their own."""
    known = {
        "AWS_ACCESS_KEY_ID": s3.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY, "AWS_REGION": s3.REGION,
        "AWS_DEFAULT_REGION": s3.REGION, "AWS_ENDPOINT_URL_S3": s3_server.url, "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    for name, value in known.items():
        monkeypatch.setenv(name, value)
    return s3_server


@pytest.fixture
def context(server: Server) -> StagingContext:
    return StagingContext(region=s3.REGION, lock_stale_seconds=3)


def safetensors(size: int, seed: int) -> bytes:
    """A valid safetensors file with one tensor of ``size`` random bytes."""
    header = b'{"w%d":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}' % (seed, size, size)
    return len(header).to_bytes(8, "little") + header + random.Random(seed).randbytes(size)


def make_model(folder: Path, name: str, sizes: tuple[int, ...] = (20 << 20, 3 << 20), seed: int = 1) -> ModelSpec:
    """A model in a folder: shards of these sizes, a config, a file in a subfolder, an empty one."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        (folder / f"model-{number}.safetensors").write_bytes(safetensors(size, seed * 100 + number))
    (folder / "config.json").write_text(f'{{"seed": {seed}}}')
    (folder / "sub").mkdir(exist_ok=True)
    (folder / "sub" / "tokenizer.json").write_bytes(random.Random(seed).randbytes(5000))
    (folder / "sub" / "empty.txt").write_bytes(b"")
    return model_of(folder, name)


def model_of(folder: Path, name: str, **fields: Any) -> ModelSpec:
    source = {"type": "folder", "path": str(folder)}
    return ModelSpec.model_validate({"name": name, "source": source, "deployment": {}} | fields)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def staged_contents(server: Server, name: str, revision: str) -> dict[str, bytes]:
    start = f"models/{name}/{revision}/files/"
    return {key.removeprefix(start): server.body(key) for key in server.keys(start)}
