"""What a source in S3 states of its bytes is what arrives; what was moved is kept; promotions are whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import include.staging.reuse as reusing
from include.catalog.weights import S3Source
from include.errors import IntegrityError
from include.staging.api import resolve_revision, stage, verify
from include.staging.checksums import ALGORITHMS, Running, Stated, stated
from include.staging.context import Progress, StagingContext
from include.staging.inspection import Depth
from include.staging.manifest import Manifest
from include.staging.mover import MOST_PARTS, PART_BYTES, SOURCE_ETAG_KEY, move, part_bytes
from include.staging.progress import Meter
from include.staging.s3source import list_prefix
from include.staging.sources import SourceFile
from include.staging.target import Target
from tests.include.staging.conftest import (
    MODELS_URI,
    Server,
    contents,
    make_model,
    model_of,
    safetensors,
    staged_contents,
)  # fmt: skip

pytestmark = pytest.mark.local
BUCKET = "hyperpod-models"
SHARD = "model-0.safetensors"
DATA = safetensors(20 << 20, 9)


def whole(server: Server, key: str, algorithm: str) -> None:
    server.client.put_object(Bucket=BUCKET, Key=key, Body=DATA, ChecksumAlgorithm=algorithm)


def in_parts(server: Server, key: str, algorithm: str, size: int = 8 << 20) -> None:
    place: dict[str, Any] = {"Bucket": BUCKET, "Key": key}
    place["UploadId"] = server.client.create_multipart_upload(**place, ChecksumAlgorithm=algorithm)["UploadId"]
    parts = []
    for number, begin in enumerate(range(0, len(DATA), size), 1):
        body = DATA[begin : begin + size]
        done = server.client.upload_part(**place, PartNumber=number, Body=body, ChecksumAlgorithm=algorithm)
        name = f"Checksum{algorithm}"
        parts.append({"PartNumber": number, "ETag": done["ETag"], name: done[name]})
    server.client.complete_multipart_upload(**place, MultipartUpload={"Parts": parts})


@pytest.mark.parametrize("put", [whole, in_parts])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_bytes_that_differ_from_the_sources_checksum_are_never_published(
    server: Server, context: StagingContext, algorithm: str, put: Callable[[Server, str, str], None]
) -> None:
    prefix = f"stated-{algorithm}-{put.__name__}".lower().replace("_", "-")
    put(server, f"{prefix}/{SHARD}", algorithm)
    (listed,) = list_prefix(S3Source(type="s3", uri=f"s3://{BUCKET}/{prefix}"), context).files
    file = listed.looked()
    assert file.sha256 or file.crc64nvme or file.stated
    target = Target.open(MODELS_URI, prefix, "1", context)
    damaged = DATA[:-1] + bytes([DATA[-1] ^ 1])
    with pytest.raises(IntegrityError, match="(?i)" + algorithm) as caught:
        move(replace(file, open=lambda: iter([damaged])), target, lambda _: None)
    assert caught.value.reason == "SourceCorrupt"
    assert server.keys(f"models/{prefix}/") == []
    move(file, target, lambda _: None)
    assert server.body(f"models/{prefix}/1/files/{SHARD}") == DATA


@given(st.binary(max_size=300), st.integers(1, 64), st.integers(1, 90), st.sampled_from(ALGORITHMS))
def test_a_checksum_of_parts_does_not_depend_on_how_the_bytes_come(
    data: bytes, part: int, chunk: int, algorithm: str
) -> None:
    def summed(size: int) -> str:
        running = Running(Stated(algorithm, "", part))
        for begin in range(0, len(data), size):
            running.add(data[begin : begin + size])
        return running.text()

    assert summed(chunk) == summed(max(1, len(data)))
    assert summed(chunk).endswith(f"-{-(-len(data) // part)}")


def test_a_checksum_of_parts_of_unknown_sizes_is_left_alone() -> None:
    head = {"ChecksumCRC32": "AAAAAA==-3", "ContentLength": 100}
    assert stated(head, lambda: 40) == Stated("CRC32", "AAAAAA==-3", 40)
    assert stated(head, lambda: 10) is None
    assert stated({"ContentLength": 100}, lambda: 10) is None


def plain(server: Server, folder: Path, name: str) -> Any:
    for path, data in contents(folder).items():
        server.client.put_object(Bucket=BUCKET, Key=f"{name}/{path}", Body=data)
    return model_of(folder, name, source={"type": "s3", "uri": f"s3://{BUCKET}/{name}"})


@pytest.mark.parametrize("damaged", [False, True])
def test_what_a_killed_staging_of_a_plain_prefix_moved_is_not_moved_again(
    server: Server, context: StagingContext, tmp_path: Path, damaged: bool
) -> None:
    make_model(tmp_path / "model", "unused", (20 << 20,), seed=9100 + damaged)
    model = plain(server, tmp_path / "model", f"resumed-{damaged}".lower())
    revision = resolve_revision(model, context)
    files = {file.path: file for file in list_prefix(model.source, context).files}
    # As an attempt left it that was killed after its first file.
    left, target = files[SHARD], Target.open(MODELS_URI, model.name, revision, context)
    if damaged:
        data = bytearray(b"".join(left.open()))
        data[-1] ^= 1
        move(replace(left, look=None, open=lambda: iter([bytes(data)])), target, lambda _: None)
    else:
        move(left, target, lambda _: None)
    head = target.head(SHARD)
    assert head is not None
    assert head["Metadata"][SOURCE_ETAG_KEY] == left.etag
    staged = stage(model, revision, MODELS_URI, context, owner="retry")
    assert (staged.moved_bytes > left.size) is damaged
    assert staged_contents(server, model.name, revision) == contents(tmp_path / "model")
    verify(MODELS_URI, model.name, revision, context, depth=Depth.CONTENT)


def test_a_promotion_of_half_a_revision_is_refused_by_name(
    server: Server, context: StagingContext, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", "half", (6 << 20,), seed=9200)
    revision = resolve_revision(model, context)
    start = f"models/half/{revision}/"
    stage(model, revision, MODELS_URI, context, owner="test")
    for key in server.keys(start):
        to = f"copied/half/{key.removeprefix(start)}"
        server.client.copy_object(Bucket=BUCKET, Key=to, CopySource={"Bucket": BUCKET, "Key": key})
    promoted = model_of(tmp_path, "half-2", source={"type": "s3", "uri": f"s3://{BUCKET}/copied/half/files"})
    # Other entity tags, same bytes: as another tool copied them.
    place = {"Bucket": BUCKET, "Key": f"copied/half/files/{SHARD}"}
    server.client.put_object(**place, Body=contents(tmp_path / "model")[SHARD], Metadata={"by": "another tool"})
    copied = stage(promoted, resolve_revision(promoted, context), MODELS_URI, context, owner="test")
    verify(MODELS_URI, "half-2", copied.revision, context, depth=Depth.CONTENT)
    server.client.put_object(Bucket=BUCKET, Key="copied/half/files/extra.py", Body=b"x")
    server.client.delete_object(Bucket=BUCKET, Key="copied/half/files/config.json")
    with pytest.raises(IntegrityError, match=r"config\.json") as caught:
        resolve_revision(promoted, context)
    assert caught.value.reason == "SourceIncomplete"
    assert any("extra.py" in line for line in caught.value.evidence)


def test_where_the_store_keeps_no_checksum_the_bytes_are_read(
    server: Server, context: StagingContext, tmp_path: Path
) -> None:
    """An object and a manifest that agree in everything but the content: no checksum of the store can tell."""
    model = make_model(tmp_path / "model", "bare", (2 << 20,), seed=9300)
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="test")
    key = f"models/bare/{revision}/files/{SHARD}"
    body = bytearray(server.body(key))
    body[-1] ^= 1
    etag = server.client.put_object(Bucket=BUCKET, Key=key, Body=bytes(body))["ETag"].strip('"')
    head = server.client.head_object(Bucket=BUCKET, Key=key, ChecksumMode="ENABLED")
    assert "ChecksumCRC64NVME" not in head
    where = f"models/bare/{revision}/manifest.json"
    manifest = Manifest.from_bytes(server.body(where), where)
    files = tuple(
        file.model_copy(update={"etag": etag}) if file.path == SHARD else file for file in manifest.files
    )  # fmt: skip
    server.client.put_object(Bucket=BUCKET, Key=where, Body=manifest.model_copy(update={"files": files}).to_bytes())
    verify(MODELS_URI, "bare", revision, context, depth=Depth.LISTING)
    with pytest.raises(IntegrityError, match=SHARD):
        verify(MODELS_URI, "bare", revision, context, depth=Depth.CHECKSUMS)


def test_an_object_too_large_for_one_copy_is_copied_by_ranges(
    server: Server, context: StagingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "model", "unused", (23 << 20,), seed=9400)
    first, second = (model_of(tmp_path / "model", name) for name in ("ranges-1", "ranges-2"))
    revision = resolve_revision(first, context)
    stage(first, revision, MODELS_URI, context, owner="test")
    monkeypatch.setattr(reusing, "MOST_IN_ONE_COPY", 5 << 20)
    monkeypatch.setattr(reusing, "COPY_PART", 5 << 20)
    copied = stage(second, revision, MODELS_URI, context, owner="test")
    assert copied.moved_bytes < 10_000
    target = Target.open(MODELS_URI, "ranges-2", revision, context)
    (shard,) = (file for file in target.require_manifest().files if file.path == SHARD)
    assert shard.etag.endswith("-5"), "copied in one piece"
    verify(MODELS_URI, "ranges-2", revision, context, depth=Depth.CONTENT)
    assert server.uploads() == []


def test_a_copy_by_ranges_that_fails_leaves_no_parts_and_the_bytes_move(
    server: Server, context: StagingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_model(tmp_path / "model", "unused", (23 << 20,), seed=9500)
    first, second = (model_of(tmp_path / "model", name) for name in ("torn-1", "torn-2"))
    revision = resolve_revision(first, context)
    stage(first, revision, MODELS_URI, context, owner="test")
    monkeypatch.setattr(reusing, "MOST_IN_ONE_COPY", 5 << 20)
    # The store takes no parts of less than 5 MiB: it refuses to complete.
    monkeypatch.setattr(reusing, "COPY_PART", 1 << 20)
    moved = stage(second, revision, MODELS_URI, context, owner="test")
    assert staged_contents(server, "torn-2", revision) == contents(tmp_path / "model")
    assert moved.moved_bytes > 0
    assert server.uploads() == []


@given(st.integers(0, 50 << 40))
def test_no_file_has_more_parts_than_s3_takes(size: int) -> None:
    part = part_bytes(size)
    assert -(-size // part) <= MOST_PARTS
    assert part == PART_BYTES or part - (1 << 20) < -(-size // MOST_PARTS) <= part, "parts are as small as they can be"


def test_the_meter_counts_from_many_threads_and_speaks_at_the_end() -> None:
    from concurrent.futures import ThreadPoolExecutor

    said: list[Progress] = []
    meter = Meter(800, said.append)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: meter.count(str(number), 1), range(800)))
    assert meter.done == 800
    assert (said[-1].done, said[-1].total, said[-1].eta_s) == (800, 800, 0)
    assert "(100 %)" in str(said[-1])


def test_only_what_was_listed_is_read(server: Server, context: StagingContext) -> None:
    server.client.put_object(Bucket=BUCKET, Key="replaced/a.bin", Body=b"as listed")
    (file,) = list_prefix(S3Source(type="s3", uri=f"s3://{BUCKET}/replaced"), context).files
    server.client.put_object(Bucket=BUCKET, Key="replaced/a.bin", Body=b"another 1")
    with pytest.raises(IntegrityError, match=r"a\.bin") as caught:
        b"".join(_chunks(file))
    assert caught.value.reason == "SourceChanged"


def _chunks(file: SourceFile) -> Iterator[bytes]:
    yield from file.open()
