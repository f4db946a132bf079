"""A source says which of its files are meant, and which connection may read it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import boto3
import pytest

from include.catalog.specs import ClusterSpec
from include.errors import ConfigurationError, PipelineError
from include.local import s3
from include.staging.api import resolve_revision, stage
from include.staging.context import StagingContext
from include.staging.sources import is_wanted, list_source
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, model_of, staged_contents

pytestmark = pytest.mark.local
BUCKET = "hyperpod-models"
CHOICE: dict[str, Any] = {"include": ["*.safetensors", "*.json"], "exclude": ["optimizer/*", "*.bin"]}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model beside what the choice leaves out: pickled weights, and a training state that is no safetensors file."""
    folder = tmp_path / "model"
    make_model(folder, "unused", (1000,), seed=15_000)
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (folder / "optimizer").mkdir()
    (folder / "optimizer" / "state.safetensors").write_bytes(b"nothing of the kind")
    return folder


def chosen(folder: Path) -> dict[str, bytes]:
    return {path: data for path, data in contents(folder).items() if is_wanted(path, **CHOICE)}


def test_a_choice_of_a_folders_files_is_staged_and_is_its_revision(
    server: Server, context: StagingContext, folder: Path
) -> None:
    whole = {"type": "folder", "path": str(folder)}
    with pytest.raises(ConfigurationError, match="exclude these files"):
        stage(model_of(folder, "chosen"), resolve_revision(model_of(folder, "chosen"), context), MODELS_URI, context,
              owner="test")  # fmt: skip
    model = model_of(folder, "chosen", source=whole | CHOICE)
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="test")
    assert staged_contents(server, "chosen", revision) == chosen(folder)
    (folder / "pytorch_model.bin").write_bytes(b"another")
    assert resolve_revision(model, context) == revision


def put(server: Server, prefix: str, folder: Path) -> dict[str, Any]:
    for path, data in contents(folder).items():
        server.client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=data)
    return {"type": "s3", "uri": f"s3://{BUCKET}/{prefix}"}


def test_a_choice_of_a_prefix_is_staged(server: Server, context: StagingContext, folder: Path) -> None:
    model = model_of(folder, "prefix-choice", source=put(server, "choice", folder) | CHOICE)
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="test")
    assert staged_contents(server, "prefix-choice", revision) == chosen(folder)


def test_a_choice_of_nothing_is_told(context: StagingContext, folder: Path) -> None:
    model = model_of(folder, "none", source={"type": "folder", "path": str(folder), "include": ["*.gguf"]})
    with pytest.raises(ConfigurationError, match="include"):
        list_source(model, context)


def test_a_source_is_read_with_its_own_connection_and_nothing_else_is(
    server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.providers.amazon.aws.hooks.base_aws import AwsGenericHook

    from hyperpod.hooks.hyperpod import HyperPodHook

    source = put(server, "others", folder) | CHOICE | {"aws_conn_id": "other_account"}
    model = model_of(folder, "own-connection", source=source)
    secrets = {"other_account": s3.SECRET_KEY, "cluster_account": "wrong"}

    def session(self: Any) -> boto3.Session:
        return boto3.Session(s3.ACCESS_KEY, secrets[self.aws_conn_id], region_name=s3.REGION)

    monkeypatch.setattr(AwsGenericHook, "get_session", session)
    cluster = ClusterSpec(name="c", models_uri=MODELS_URI, results_uri="r", aws_conn_id="cluster_account")
    context = HyperPodHook(cluster).staging_of(model)
    assert {file.path: b"".join(file.open()) for file in list_source(model, context).files} == chosen(folder)
    own = model.model_copy(update={"source": model.source.model_copy(update={"aws_conn_id": None})})
    with pytest.raises(PipelineError):
        list_source(own, HyperPodHook(cluster).staging_of(own))


@pytest.mark.parametrize("where", ["nowhere", "optimizer", ".", "sub/other", "config.json/x"])
def test_a_link_that_is_no_file_is_named(context: StagingContext, folder: Path, where: str) -> None:
    (folder / "sub" / "other").symlink_to(folder / where)
    with pytest.raises(ConfigurationError, match=r"sub/other is a link to .* which is no file"):
        resolve_revision(model_of(folder, "linked"), context)


def test_a_link_to_a_file_is_that_file(context: StagingContext, folder: Path, tmp_path: Path) -> None:
    before = resolve_revision(model_of(folder, "linked"), context)
    (folder / "sub" / "tokenizer.json").rename(tmp_path / "blob")
    (folder / "sub" / "tokenizer.json").symlink_to(tmp_path / "blob")
    assert resolve_revision(model_of(folder, "linked"), context) == before
