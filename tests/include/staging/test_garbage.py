"""Collection asks everybody who may be using a revision, counts what no listing shows, and says what stays."""

from __future__ import annotations

import datetime as dt
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from include.catalog.specs import ClusterSpec
from include.errors import ConfigurationError
from include.local import s3
from include.objects import Objects
from include.staging.api import resolve_revision, stage
from include.staging.clusters import contexts_of, kube_of, sharing
from include.staging.collect import Retention
from include.staging.context import StagingContext
from include.staging.explore import discard_folder, explore_claim
from include.staging.garbage import Collection
from include.staging.target import LOCK_NAME
from include.staging.usage import used_by_runs
from tests.include.staging.conftest import Server, make_model

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
EVERYTHING = Retention(0, dt.timedelta(0))
SEEDS = itertools.count(12_000)


def cluster(name: str, uri: str = "s3://hyperpod-models/models", **fields: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"name": name, "models_uri": uri, "results_uri": "r"} | fields)


def plan(results: Objects, run: str, started: dt.datetime, **more: bytes) -> None:
    content = {"model": {"name": "m"}, "revision": run, "run": {"started_at": started.isoformat()}}
    results.put(f"runs/release_model/{run}/plan.json", json.dumps(content).encode())
    for name, data in more.items():
        results.put(f"runs/release_model/{run}/{name}.json", data)


def test_a_revision_that_a_run_on_its_way_planned_counts_as_used(tmp_path: Path) -> None:
    results = Objects.open(str(tmp_path))
    plan(results, "on-its-way", NOW - dt.timedelta(days=1))
    plan(results, "recorded", NOW - dt.timedelta(days=1), record=b"{}")
    plan(results, "dead", NOW - dt.timedelta(days=8))
    results.put("runs/release_model/broken/plan.json", b"{")
    results.put("runs/nightly/night/m--smoke/plan.json", json.dumps(
        {"model": {"name": "m"}, "revision": "cell", "run": {"started_at": NOW.isoformat()}}
    ).encode())  # fmt: skip
    assert used_by_runs(results, NOW) == {("m", "on-its-way"), ("m", "cell")}


def test_every_cluster_that_meets_the_store_is_asked() -> None:
    same, inside, around = cluster("same"), cluster("inside", "s3://hyperpod-models/models/eu"), cluster(
        "around", "s3://hyperpod-models"
    )  # fmt: skip
    others = cluster("beside", "s3://hyperpod-models/models-2"), cluster("elsewhere", "s3://other-bucket/models")
    found = sharing([same, inside, around, *others], "s3://hyperpod-models/models/")
    assert [one.name for one in found] == ["same", "inside", "around"]


def test_one_kubeconfig_does_not_stand_for_two_clusters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config")))
    one, two = cluster("one"), cluster("two")
    with pytest.raises(ConfigurationError, match="one, two") as caught:
        kube_of(one, {}, (one, two))
    assert caught.value.reason == "ClusterUnclear"
    contexts = contexts_of(["two=second"])
    assert kube_of(one, contexts, (one, two)).configuration.host == "https://first"
    assert kube_of(two, contexts, (one, two)).configuration.host == "https://second"
    with pytest.raises(ConfigurationError, match="no-such"):
        kube_of(two, {"two": "no-such"}, (one, two))
    with pytest.raises(ConfigurationError, match="CLUSTER=CONTEXT"):
        contexts_of(["two"])


def kubeconfig(path: Path) -> Path:
    names = ("first", "second")
    path.write_text(json.dumps({
        "apiVersion": "v1", "kind": "Config", "current-context": "first",
        "clusters": [{"name": name, "cluster": {"server": f"https://{name}"}} for name in names],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": "u"}} for name in names],
    }))  # fmt: skip
    return path


def test_an_eks_cluster_is_found_by_its_name_whatever_the_kubeconfig_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "config")))
    monkeypatch.setenv("AWS_ENDPOINT_URL_EKS", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    with pytest.raises(ConfigurationError, match="eks_cluster = 'prod'"):
        kube_of(cluster("prod", eks_cluster="prod"), {})


@pytest.mark.local
def test_a_store_that_no_cluster_names_is_not_collected_unasked(server: Server, context: StagingContext) -> None:
    collection = Collection("s3://hyperpod-models/nobodys", context, (), lambda _: None)
    with pytest.raises(ConfigurationError, match="--without-cluster") as caught:
        list(collection.run(EVERYTHING, None, yes=True))
    assert caught.value.reason == "StoreOfNoCluster"


@pytest.fixture
def store(server: Server, request: pytest.FixtureRequest) -> str:
    return f"s3://hyperpod-models/{request.node.name.replace('_', '-')}"


def stage_one(folder: Path, uri: str, context: StagingContext) -> tuple[str, str]:
    """Stage something new; name and revision."""
    model = make_model(folder, "m", (2 << 20,), seed=next(SEEDS))
    revision = resolve_revision(model, context)
    stage(model, revision, uri, context, owner="test")
    return "m", revision


def upload(server: Server, uri: str, tail: str) -> None:
    """A part that a killed stager left."""
    place = {"Bucket": "hyperpod-models", "Key": f"{uri.split('/', 3)[3]}/{tail}"}
    begun = server.client.create_multipart_upload(**place)["UploadId"]
    server.client.upload_part(**place, UploadId=begun, PartNumber=1, Body=bytes(1 << 20))


@pytest.mark.local
def test_parts_of_a_stager_that_never_came_back_are_counted_and_go(
    server: Server, context: StagingContext, store: str
) -> None:
    upload(server, store, "m/lost/files/model.safetensors")
    collection = Collection(store, context, (), None)
    lines = list(collection.run(Retention(), None, yes=True))
    assert f"keep   m/lost 0 bytes, 0 objects, {1 << 20} bytes in unfinished uploads: younger than 7 days" in lines
    assert list(collection.run(EVERYTHING, None, yes=False))[-1] == (
        f"1 of 1 revisions, {1 << 20} bytes would be deleted; add --yes"
    )
    assert len(server.uploads()) == 1
    list(collection.run(EVERYTHING, None, yes=True))
    assert server.uploads() == []


@pytest.mark.local
def test_parts_of_a_killed_repair_of_what_is_kept_go_once_they_are_old(
    server: Server, context: StagingContext, store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, revision = stage_one(tmp_path / "model", store, context)
    upload(server, store, f"{name}/{revision}/files/model-0.safetensors")
    keep = Collection(store, context, (), None)
    list(keep.run(Retention(1, dt.timedelta(0)), None, yes=True))
    assert len(server.uploads()) == 1
    monkeypatch.setattr("include.staging.garbage.LONGEST_STAGING", dt.timedelta(0))
    assert any("uploads are gone" in line for line in keep.run(Retention(1, dt.timedelta(0)), None, yes=True))
    assert server.uploads() == []


@pytest.mark.local
def test_a_planned_revision_is_kept_and_a_damaged_one_does_not_hide_the_others(
    server: Server, context: StagingContext, store: str, tmp_path: Path
) -> None:
    planned, broken, doomed = (stage_one(tmp_path / part, store, context)[1] for part in "abc")
    results = Objects.open(str(tmp_path / "results"))
    plan(results, planned, dt.datetime.now(dt.UTC))
    prefix = store.split("/", 3)[3]
    server.client.put_object(Bucket="hyperpod-models", Key=f"{prefix}/m/{broken}/manifest.json", Body=b"{")
    using = cluster("c", store, results_uri=str(tmp_path / "results"))
    lines = list(Collection(store, context, (using,), None).run(EVERYTHING, None, yes=True))
    said = {line.split()[1].split("/")[1]: line for line in lines[:-1]}
    assert said[planned].endswith("in use")
    assert "damaged" in said[broken]
    assert said[doomed].startswith("delete")
    left = {key.split("/")[2] for key in server.keys(f"{prefix}/m/")}
    assert left == {planned, broken}
    assert not [key for key in server.keys(prefix) if key.endswith(LOCK_NAME)]


@pytest.mark.local
def test_a_bucket_that_keeps_versions_is_told_to_keep_the_bytes(server: Server, tmp_path: Path) -> None:
    bucket, context = "versioned-models", StagingContext(region=s3.REGION)
    server.client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": s3.REGION})
    stage_one(tmp_path / "model", f"s3://{bucket}/m", context)
    collection = Collection(f"s3://{bucket}/m", context, (), None)
    assert not any("keeps versions" in line for line in collection.run(EVERYTHING, None, yes=False))
    server.client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    assert "keeps versions" in list(collection.run(EVERYTHING, None, yes=False))[-1]


def test_only_a_revisions_folder_is_discarded(tmp_path: Path) -> None:
    folder = tmp_path / "m" / "rev"
    (folder / "files").mkdir(parents=True)
    (folder / "files" / "x").write_bytes(b"12345")
    with pytest.raises(ConfigurationError, match="NotARevision"):
        discard_folder(tmp_path / "m")
    assert discard_folder(folder) == 5
    assert not folder.exists()
    assert discard_folder(folder) == 0


def test_a_claim_is_looked_into_as_the_cluster_delivers_to_it() -> None:
    with pytest.raises(ConfigurationError, match="fsx_delivery") as caught:
        next(explore_claim(None, cluster("remote"), "claim", "", None))
    assert caught.value.reason == "NoImage"
