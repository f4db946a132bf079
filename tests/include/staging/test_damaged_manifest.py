"""A damaged manifest, or another revision's, is never taken for a staged revision; --repair mends it."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from include.canonical import canonical_json
from include.errors import IntegrityError
from include.staging.api import resolve_revision, stage, verify
from include.staging.cli import main
from include.staging.collect import Retention, decide, list_staged
from include.staging.context import StagingContext
from include.staging.fetch import fetch
from include.staging.inspection import Depth
from include.staging.manifest import Manifest
from include.staging.model import StagedModel
from include.staging.target import Target
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, model_of, staged_contents

pytestmark = pytest.mark.local
BUCKET = "hyperpod-models"
Stage = Callable[[str], StagedModel]


@pytest.fixture
def put(context: StagingContext, tmp_path: Path) -> Stage:
    def staged(name: str) -> StagedModel:
        model = make_model(tmp_path / name, name, (2 << 20,), seed=sum(map(ord, name)) * 7)
        return stage(model, resolve_revision(model, context), MODELS_URI, context, owner="test")

    return staged


def where(staged: StagedModel) -> str:
    return f"models/{staged.name}/{staged.revision}/manifest.json"


def cut(body: bytes) -> bytes:
    return body[: len(body) // 2]


def no_json(body: bytes) -> bytes:
    return b"\x00" * len(body)


def no_object(body: bytes) -> bytes:
    return b'["a", "list"]'


def another_size(body: bytes) -> bytes:
    return canonical_json(json.loads(body) | {"total_bytes": 1})


@pytest.mark.parametrize("damage", [cut, no_json, no_object, another_size])
def test_a_damaged_manifest_is_mended_by_repair_only(
    server: Server, context: StagingContext, put: Stage, tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    staged = put(f"bad-{damage.__name__.replace('_', '-')}")
    model = model_of(tmp_path / staged.name, staged.name)
    server.client.put_object(Bucket=BUCKET, Key=where(staged), Body=damage(server.body(where(staged))))
    with pytest.raises(IntegrityError, match="--repair"):
        stage(model, staged.revision, MODELS_URI, context, owner="next")
    again = stage(model, staged.revision, MODELS_URI, context, owner="next", repair=True)
    assert again.manifest_digest == staged.manifest_digest
    verify(MODELS_URI, staged.name, staged.revision, context, depth=Depth.CONTENT)


def test_one_damaged_manifest_hides_no_other_revision_and_is_never_collected(
    server: Server, context: StagingContext, put: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    broken, whole = put("hidden-broken"), put("hidden-whole")
    server.client.put_object(Bucket=BUCKET, Key=where(broken), Body=b"{")
    found = {one.name: one for one in list_staged(MODELS_URI, context) if one.name.startswith("hidden-")}
    assert found["hidden-broken"].damaged
    assert found["hidden-whole"].digest == whole.manifest_digest
    far = dt.datetime.now(dt.UTC) + dt.timedelta(days=999)
    (decision,) = decide([found["hidden-broken"]], Retention(0, dt.timedelta()), set(), far)
    assert not decision.delete
    assert "hidden-broken" in decision.reason
    assert main(["list", "--models-uri", MODELS_URI, "hidden-broken"]) == 0
    assert "damaged" in capsys.readouterr().out


def test_a_revision_copied_beside_another_is_not_that_other(
    server: Server, context: StagingContext, put: Stage, tmp_path: Path
) -> None:
    first = put("copied")
    (tmp_path / "copied" / "config.json").write_text('{"seed": "another"}')
    model = model_of(tmp_path / "copied", "copied")
    second = resolve_revision(model, context)
    for key in server.keys(f"models/copied/{first.revision}/"):
        to = key.replace(first.revision, second)
        server.client.copy_object(Bucket=BUCKET, Key=to, CopySource={"Bucket": BUCKET, "Key": key})
    for check in (
        lambda: stage(model, second, MODELS_URI, context, owner="next"),
        lambda: verify(MODELS_URI, "copied", second, context),
    ):
        with pytest.raises(IntegrityError, match=first.revision) as caught:
            check()
        assert caught.value.reason == "ManifestElsewhere"
    stage(model, second, MODELS_URI, context, owner="next", repair=True)
    assert staged_contents(server, "copied", second) == contents(tmp_path / "copied")
    verify(MODELS_URI, "copied", first.revision, context)


def test_a_manifest_cannot_name_a_place_outside_the_folder_of_a_fetch(
    server: Server, context: StagingContext, put: Stage, tmp_path: Path
) -> None:
    staged = put("escaping")
    manifest = Manifest.from_bytes(server.body(where(staged)), "")
    crafted = manifest.model_copy(update={"name": "../../outside"}).to_bytes()
    server.client.put_object(Bucket=BUCKET, Key=where(staged), Body=crafted)
    with pytest.raises(IntegrityError, match="ManifestElsewhere"):
        fetch(Target.open(MODELS_URI, staged.name, staged.revision, context), tmp_path / "a" / "b")
    assert not (tmp_path / "outside").exists()
