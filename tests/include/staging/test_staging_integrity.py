"""What was staged is what is found, or the difference is named; identical bytes do not move twice."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.canonical import canonical_json
from include.errors import ConfigurationError, IntegrityError
from include.staging.api import resolve_revision, stage, verify
from include.staging.context import StagingContext
from include.staging.inspection import Depth, inspect
from include.staging.manifest import Manifest
from include.staging.model import StagedModel
from include.staging.sources import SourceFile, list_source
from include.staging.target import Target
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, model_of, staged_contents

pytestmark = pytest.mark.local
BUCKET = "hyperpod-models"
SHARD = "model-0.safetensors"
SEEDS = itertools.count(1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # Other content in each test: equal content would not move a second time.
    make_model(tmp_path / "model", "unused", seed=next(SEEDS))
    return tmp_path / "model"


@pytest.fixture
def staged(folder: Path, context: StagingContext, request: pytest.FixtureRequest) -> StagedModel:
    """A revision staged under the test's own name."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-38:].strip("-")
    model = model_of(folder, name)
    return stage(model, resolve_revision(model, context), MODELS_URI, context, owner="test")


def key(staged: StagedModel, path: str) -> str:
    return f"models/{staged.name}/{staged.revision}/files/{path}"


def flip(server: Server, staged: StagedModel) -> None:
    body = bytearray(server.body(key(staged, SHARD)))
    body[len(body) // 2] ^= 1
    server.client.put_object(Bucket=BUCKET, Key=key(staged, SHARD), Body=bytes(body))


def flip_as_we_upload(server: Server, staged: StagedModel) -> None:
    """The same size and parts as our own upload, so that only digests can tell."""
    import obstore

    body = bytearray(server.body(key(staged, SHARD)))
    body[-1] ^= 1
    target = Target.open(MODELS_URI, staged.name, staged.revision, StagingContext(region="us-west-2"))
    obstore.put(target.objects.native, f"files/{SHARD}", bytes(body), use_multipart=True, chunk_size=16 << 20)


def truncate(server: Server, staged: StagedModel) -> None:
    server.client.put_object(
        Bucket=BUCKET, Key=key(staged, SHARD), Body=server.body(key(staged, SHARD))[:-1]
    )  # fmt: skip


def swap(server: Server, staged: StagedModel) -> None:
    first, second = key(staged, SHARD), key(staged, "model-1.safetensors")
    bodies = server.body(first), server.body(second)
    server.client.put_object(Bucket=BUCKET, Key=first, Body=bodies[1])
    server.client.put_object(Bucket=BUCKET, Key=second, Body=bodies[0])


def remove(server: Server, staged: StagedModel) -> None:
    server.client.delete_object(Bucket=BUCKET, Key=key(staged, SHARD))


def add(server: Server, staged: StagedModel) -> None:
    server.client.put_object(Bucket=BUCKET, Key=key(staged, "backdoor.py"), Body=b"import os")


@pytest.mark.parametrize(
    ("spoil", "reason", "named"),
    [
        (flip, "StagedFileChanged", SHARD),
        (flip_as_we_upload, "StagedFileChanged", SHARD),
        (truncate, "StagedFileChanged", SHARD),
        (swap, "StagedFileChanged", SHARD),
        (remove, "StagedFileMissing", SHARD),
        (add, "StagedFileUnknown", "backdoor.py"),
    ],
)
def test_every_kind_of_damage_is_named_and_repaired(
    server: Server,
    context: StagingContext,
    folder: Path,
    staged: StagedModel,
    spoil: Callable[[Server, StagedModel], None],
    reason: str,
    named: str,
) -> None:
    spoil(server, staged)
    model = model_of(folder, staged.name)
    for check in (
        lambda: verify(MODELS_URI, staged.name, staged.revision, context),
        lambda: stage(model, staged.revision, MODELS_URI, context, owner="next"),
    ):
        with pytest.raises(IntegrityError) as caught:
            check()
        assert caught.value.reason == reason
        assert named in caught.value.message
    again = stage(model, staged.revision, MODELS_URI, context, owner="next", repair=True)
    assert again.manifest_digest
    assert staged_contents(server, staged.name, staged.revision) == contents(folder)
    verify(MODELS_URI, staged.name, staged.revision, context, depth=Depth.CONTENT)


def test_both_of_two_swapped_files_are_named(server: Server, context: StagingContext, staged: StagedModel) -> None:
    swap(server, staged)
    with pytest.raises(IntegrityError) as caught:
        verify(MODELS_URI, staged.name, staged.revision, context)
    assert {line.split(":")[0] for line in caught.value.evidence} == {SHARD, "model-1.safetensors"}


def test_what_is_staged_is_what_was_there_and_nothing_moves_twice(
    server: Server, context: StagingContext, folder: Path, staged: StagedModel
) -> None:
    assert staged_contents(server, staged.name, staged.revision) == contents(folder)
    assert staged.moved_bytes == staged.total_bytes == sum(map(len, contents(folder).values()))
    again = stage(model_of(folder, staged.name), staged.revision, MODELS_URI, context, owner="next")
    assert (again.moved_bytes, again.reused, again.manifest_digest) == (0, True, staged.manifest_digest)
    assert server.uploads() == []


def test_the_stores_checksum_is_ours(context: StagingContext, staged: StagedModel) -> None:
    target = Target.open(MODELS_URI, staged.name, staged.revision, context)
    for file in target.require_manifest().files:
        head = target.head(file.path)
        assert head is not None
        if file.size:
            assert head["ChecksumCRC64NVME"] == file.crc64nvme, file.path


def test_bytes_that_only_hashing_can_tell_are_found(
    server: Server, context: StagingContext, staged: StagedModel
) -> None:
    """A manifest whose digest is right and whose sha256 of one file is not: the deep check reads the bytes."""
    where = f"models/{staged.name}/{staged.revision}/manifest.json"
    manifest = Manifest.from_bytes(server.body(where), where)
    wrong = tuple(
        file.model_copy(update={"sha256": "0" * 64}) if file.path == SHARD else file for file in manifest.files
    )  # fmt: skip
    server.client.put_object(Bucket=BUCKET, Key=where, Body=manifest.model_copy(update={"files": wrong}).to_bytes())
    verify(MODELS_URI, staged.name, staged.revision, context, depth=Depth.CHECKSUMS)
    with pytest.raises(IntegrityError, match=SHARD):
        verify(MODELS_URI, staged.name, staged.revision, context, depth=Depth.CONTENT)


@pytest.mark.parametrize("change", [{"total_bytes": 1}, {"license": "mit"}, {"files": []}, {"unknown": 1}])
def test_a_changed_manifest_is_refused(
    server: Server, context: StagingContext, staged: StagedModel, change: dict[str, Any]
) -> None:
    where = f"models/{staged.name}/{staged.revision}/manifest.json"
    content = json.loads(server.body(where)) | change
    server.client.put_object(Bucket=BUCKET, Key=where, Body=canonical_json(content))
    with pytest.raises(IntegrityError, match=r"ManifestChanged|ManifestInvalid"):
        verify(MODELS_URI, staged.name, staged.revision, context)


def test_no_manifest_is_not_staged_whatever_lies_there(
    server: Server, context: StagingContext, staged: StagedModel
) -> None:
    server.client.delete_object(Bucket=BUCKET, Key=f"models/{staged.name}/{staged.revision}/manifest.json")
    with pytest.raises(IntegrityError, match="NotStaged"):
        verify(MODELS_URI, staged.name, staged.revision, context)


def test_a_file_that_changes_under_our_hands_is_never_published(
    server: Server, context: StagingContext, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import include.staging.api as api

    model = model_of(folder, "changing")
    revision = resolve_revision(model, context)

    def listed_then_changed(*arguments: Any) -> Any:
        listing = list_source(*arguments)
        with (folder / SHARD).open("r+b") as file:
            file.seek(-1, 2)
            file.write(b"X")
        return listing

    monkeypatch.setattr(api, "list_source", listed_then_changed)
    with pytest.raises(IntegrityError) as caught:
        stage(model, revision, MODELS_URI, context, owner="test")
    assert (caught.value.reason, SHARD in caught.value.message) == ("SourceCorrupt", True)
    assert f"models/changing/{revision}/files/{SHARD}" not in server.keys("models/changing/")
    assert f"models/changing/{revision}/manifest.json" not in server.keys("models/changing/")
    assert server.uploads() == []


def test_a_source_that_ends_early_is_never_published(server: Server, context: StagingContext, folder: Path) -> None:
    from include.staging.mover import move

    target = Target.open(MODELS_URI, "early", "1", context)
    file = SourceFile("weights.bin", 40 << 20, None, lambda: iter([bytes(8 << 20)] * 4))
    with pytest.raises(IntegrityError, match="SourceTruncated"):
        move(file, target, lambda _: None)
    assert server.keys("models/early/") == []
    target.sweep_uploads()


def test_the_same_content_in_the_bucket_is_copied_there(
    server: Server, context: StagingContext, folder: Path, staged: StagedModel
) -> None:
    (folder / "config.json").write_text('{"changed": true}')
    model = model_of(folder, f"{staged.name[:36]}-2")
    revision = resolve_revision(model, context)
    other = stage(model, revision, MODELS_URI, context, owner="test")
    assert other.moved_bytes < 10_000
    assert staged_contents(server, model.name, revision) == contents(folder)
    verify(MODELS_URI, model.name, revision, context, depth=Depth.CONTENT)


def test_a_staged_revision_is_a_source_whose_bytes_never_leave_s3(
    server: Server, context: StagingContext, folder: Path, staged: StagedModel
) -> None:
    server.client.create_bucket(Bucket="promoted")
    model = model_of(folder, staged.name, source={"type": "s3", "uri": f"{staged.uri}/files"})
    revision = resolve_revision(model, context)
    promoted = stage(model, revision, "s3://promoted/models", context, owner="test")
    assert promoted.moved_bytes < 10_000
    verify("s3://promoted/models", staged.name, revision, context, depth=Depth.CONTENT)
    digests = [
        {file.path: file.sha256 for file in Target.open(uri, staged.name, version, context).require_manifest().files}
        for uri, version in ((MODELS_URI, staged.revision), ("s3://promoted/models", revision))
    ]
    assert digests[0] == digests[1]


def test_a_plain_prefix_is_streamed(server: Server, context: StagingContext, folder: Path) -> None:
    for path, data in contents(folder).items():
        server.client.put_object(Bucket=BUCKET, Key=f"plain/{path}", Body=data)
    model = model_of(folder, "plain", source={"type": "s3", "uri": f"s3://{BUCKET}/plain"})
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="test")
    assert staged_contents(server, "plain", revision) == contents(folder)


def test_nothing_moves_over_the_budget_or_into_a_bucket_that_is_not_there(
    server: Server, context: StagingContext, folder: Path
) -> None:
    model = model_of(folder, "refused")
    revision = resolve_revision(model, context)
    with pytest.raises(ConfigurationError, match="StagingOverBudget"):
        stage(model, revision, MODELS_URI, context, owner="test", budget_bytes=1000)
    with pytest.raises(ConfigurationError, match="BucketMissing"):
        stage(model, revision, "s3://no-such-bucket/models", context, owner="test")
    assert server.keys("models/refused/") == []


def test_a_listing_from_before_the_manifest_refuses_nothing_and_hides_nothing(
    server: Server, context: StagingContext, staged: StagedModel
) -> None:
    target = Target.open(MODELS_URI, staged.name, staged.revision, context)
    manifest, early = target.require_manifest(), target.stored()
    # Somebody was still uploading when it was made.
    del early[SHARD]
    inspect(target, manifest, early=early)
    server.client.delete_object(Bucket=BUCKET, Key=key(staged, SHARD))
    with pytest.raises(IntegrityError, match=f"{SHARD}: not in the store"):
        inspect(target, manifest, early=early)
