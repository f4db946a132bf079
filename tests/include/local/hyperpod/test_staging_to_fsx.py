"""From the bucket onto FSx, on a running local HyperPod: imports, copies by a real Job, and every way they fail."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from hyperpod.operators.prepare import StageModelOperator
from include.catalog.plan import ReleasePlan, RunIdentity
from include.catalog.specs import ClusterSpec, FsxDelivery, ModelSpec
from include.errors import ConfigurationError, FailureClass, IntegrityError, PipelineError
from include.local import s3
from include.local.supervisor import LocalHyperPod
from include.objects import Objects
from include.results.journal import RunJournal
from include.staging.api import stage
from include.staging.collect import Retention
from include.staging.context import StagingContext
from include.staging.delivery import Place, deliver, place_of
from include.staging.fsx import Lustre
from include.staging.garbage import Collection
from include.staging.pvcjob import copy_job, run_job
from include.staging.sources import list_source
from include.staging.target import Target
from tests.include.local.hyperpod.conftest import CLAIM, IMAGE, SYSTEM, Client, until
from tests.include.staging.conftest import MODELS_URI, contents, make_model

pytestmark = pytest.mark.local
SHARD = "model-0.safetensors"
Say = Callable[..., None]


@dataclasses.dataclass(frozen=True)
class Staged:
    """A staged revision, its source, and where it would be on the file system."""

    model: ModelSpec
    target: Target
    source: Path
    on_fsx: Path

    def place(self, way: Any) -> Place:
        return Place(FsxDelivery(way=way, claim=CLAIM, image=IMAGE), SYSTEM, "default", poll_seconds=0.05)


@pytest.fixture
def staged(hyperpod: LocalHyperPod, kube: Any, tmp_path: Path, request: pytest.FixtureRequest) -> Staged:
    number = zlib.crc32(request.node.name.encode())
    model = make_model(tmp_path / "model", f"fsx-{number}", (2 << 20,), seed=number % 10_000)
    model = model.model_copy(update={"deployment": model.deployment.model_copy(update={"model_source": "fsx"})})
    context = StagingContext(region=s3.REGION, kube=kube)
    revision = list_source(model, context).revision
    stage(model, revision, MODELS_URI, context, owner="test")
    folder = hyperpod.state / "fsx" / SYSTEM / "models" / model.name / revision
    return Staged(model, Target.open(MODELS_URI, model.name, revision, context), tmp_path / "model", folder)


@pytest.fixture
def no_association(client: Client) -> Iterator[None]:
    """Leave the file system without associations, so that other tests may make theirs."""
    yield
    fsx = client("fsx")
    for one in fsx.describe_data_repository_associations()["Associations"]:
        fsx.delete_data_repository_association(AssociationId=one["AssociationId"])
    until("no association", lambda: not fsx.describe_data_repository_associations()["Associations"])


def jobs(kube: Any) -> list[str]:
    from kubernetes.client import BatchV1Api

    return [job.metadata.name for job in BatchV1Api(kube).list_namespaced_job("default").items]


def test_a_job_copies_to_the_claim_and_goes(kube: Any, staged: Staged) -> None:
    done = deliver(staged.target, staged.place("copy"))
    assert contents(staged.on_fsx / "files") == contents(staged.source)
    assert done.location == f"{staged.target.prefix}/files"
    until("the Job is gone", lambda: not [name for name in jobs(kube) if staged.model.name in name])
    assert deliver(staged.target, staged.place("copy")).bytes == done.bytes


def spoil(staged: Staged) -> None:
    shard = staged.on_fsx / "files" / SHARD
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)


def test_a_copy_that_was_changed_is_found_and_copied_again(staged: Staged) -> None:
    deliver(staged.target, staged.place("copy"))
    spoil(staged)
    deliver(staged.target, staged.place("copy"))
    assert contents(staged.on_fsx / "files") == contents(staged.source)


def test_what_lies_there_is_read_and_a_changed_byte_named(kube: Any, staged: Staged) -> None:
    deliver(staged.target, staged.place("copy"))
    spoil(staged)
    folder = f"/fsx/{staged.target.prefix}"
    job = copy_job(staged.target, f"reads-{staged.model.name}", "default", CLAIM, IMAGE).reading(folder)
    with pytest.raises(IntegrityError, match=SHARD):
        run_job(kube, job)


def test_a_claim_that_is_not_there_is_named_at_once(kube: Any, staged: Staged) -> None:
    wrong = FsxDelivery(way="copy", claim="absent", image=IMAGE)
    with pytest.raises(PipelineError, match="absent") as caught:
        deliver(staged.target, Place(wrong, SYSTEM, "default", 0.05))
    assert (caught.value.reason, caught.value.retryable) == ("ClaimMissing", False)
    until("the Job is gone", lambda: not [name for name in jobs(kube) if staged.model.name in name])


def test_an_import_brings_the_revision_and_its_association_is_used_again(
    client: Client, staged: Staged, no_association: None
) -> None:
    said: list[str] = []
    for _ in range(2):
        deliver(staged.target, staged.place("import"), said.append)
    assert contents(staged.on_fsx / "files") == contents(staged.source)
    assert len(client("fsx").describe_data_repository_associations()["Associations"]) == 1
    assert sum(line.startswith("associating") for line in said) == 1


def test_files_that_an_import_left_out_are_named_from_its_report(
    staged: Staged, no_association: None, fault: Say
) -> None:
    fault("task-partial", service="fsx", times=1, params={"files": "2"})
    with pytest.raises(PipelineError) as caught:
        deliver(staged.target, staged.place("import"))
    assert caught.value.reason == "ImportPartial"
    assert len(caught.value.evidence) == 2
    assert all("S3AccessDenied" in line for line in caught.value.evidence)
    assert caught.value.retryable
    deliver(staged.target, staged.place("import"))
    assert contents(staged.on_fsx / "files") == contents(staged.source)


def test_an_import_that_failed_says_why(staged: Staged, no_association: None, fault: Say) -> None:
    fault("task-failed", service="fsx", times=1, params={"message": "no rights on the bucket"})
    with pytest.raises(PipelineError, match="no rights on the bucket") as caught:
        deliver(staged.target, staged.place("import"))
    assert caught.value.reason == "ImportFailed"
    assert not staged.on_fsx.exists()


@pytest.mark.parametrize("lifecycle", ["MISCONFIGURED", "FAILED"])
def test_an_association_that_will_not_work_is_an_error_at_once(
    staged: Staged, no_association: None, fault: Say, lifecycle: str
) -> None:
    said = "overlapping event notification"
    fault("misconfigured", service="fsx", times=1, params={"message": said, "lifecycle": lifecycle})
    # The second try finds the association that the first one made.
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=said) as caught:
            deliver(staged.target, staged.place("import"))
        assert caught.value.reason == f"Association{lifecycle.capitalize()}"
    assert not staged.on_fsx.exists()


def test_an_import_lives_through_throttling_outages_and_a_lost_answer(
    client: Client, staged: Staged, no_association: None, fault: Say
) -> None:
    fault("throttle", service="fsx", operation="Describe*", times=2)
    fault("unavailable", service="fsx", operation="CreateDataRepositoryAssociation", times=1)
    fault("lost-answer", service="fsx", operation="CreateDataRepositoryTask", times=1)
    deliver(staged.target, staged.place("import"))
    assert contents(staged.on_fsx / "files") == contents(staged.source)
    tasks = client("fsx").describe_data_repository_tasks()["DataRepositoryTasks"]
    assert sum(task["Paths"] == [staged.target.objects.uri] for task in tasks) == 1


def test_a_task_of_another_run_is_waited_for(client: Client, staged: Staged, no_association: None) -> None:
    lustre = Lustre(staged.target.context, SYSTEM, poll_seconds=0.05)
    lustre.associate("/models", MODELS_URI)
    other = client("fsx").create_data_repository_task(
        FileSystemId=SYSTEM, Type="IMPORT_METADATA_FROM_REPOSITORY", Paths=[f"{MODELS_URI}/no/such"],
        Report={"Enabled": False},
    )["DataRepositoryTask"]["TaskId"]  # fmt: skip
    lustre.bring_in(staged.target.objects.uri, f"{MODELS_URI}/.fsx-reports")
    tasks = client("fsx").describe_data_repository_tasks()["DataRepositoryTasks"]
    (ended,) = [task["EndTime"] for task in tasks if task["TaskId"] == other]
    (began,) = [task["CreationTime"] for task in tasks if task["Paths"] == [staged.target.objects.uri]]
    assert ended <= began
    assert contents(staged.on_fsx / "files") == contents(staged.source)


def test_an_overlapping_association_of_another_prefix_is_refused(
    client: Client, staged: Staged, no_association: None
) -> None:
    client("fsx").create_data_repository_association(
        FileSystemId=SYSTEM, FileSystemPath="/models", DataRepositoryPath="s3://hyperpod-models/elsewhere"
    )
    with pytest.raises(ConfigurationError, match="overlaps") as caught:
        deliver(staged.target, staged.place("import"))
    assert caught.value.reason == "AssociationRefused"


@pytest.mark.parametrize("way", ["copy", "import"])
def test_no_room_is_said_before_anything_is_made(client: Client, kube: Any, staged: Staged, way: str) -> None:
    fsx, subnets = client("fsx"), ["subnet-0123456789abcdef0"]
    full = fsx.create_file_system(FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=subnets)["FileSystem"]
    name = full["FileSystemId"]
    place = dataclasses.replace(staged.place(way), system_id=name)
    with pytest.raises(PipelineError, match="is CREATING"):
        deliver(staged.target, place)
    until("up", lambda: fsx.describe_file_systems(FileSystemIds=[name])["FileSystems"][0]["Lifecycle"] == "AVAILABLE")
    metric = {
        "MetricName": "FreeDataStorageCapacity", "Dimensions": [{"Name": "FileSystemId", "Value": name}],
        "Timestamp": dt.datetime.now(dt.UTC), "Value": 1000.0,
    }  # fmt: skip
    client("cloudwatch").put_metric_data(Namespace="AWS/FSx", MetricData=[metric])
    with pytest.raises(ConfigurationError, match="1000 are free") as caught:
        deliver(staged.target, place)
    assert caught.value.reason == "NoRoom"
    assert not fsx.describe_data_repository_associations()["Associations"]
    assert not [name for name in jobs(kube) if staged.model.name in name]
    with pytest.raises(ConfigurationError, match="in all"):
        Lustre(staged.target.context, name).require_room(1201 << 30, arriving=False)
    fsx.delete_file_system(FileSystemId=name)


def test_weights_without_room_on_the_file_system_do_not_go_to_the_bucket_first(
    client: Client, kube: Any, staged: Staged, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "other", f"{staged.model.name}-b", (1 << 20,), seed=77)
    model = model.model_copy(update={"deployment": staged.model.deployment})
    with pytest.raises(AirflowFailException, match="fs-0ffffffffffffffff"):
        run_stage(kube, staged, model, tmp_path / "results", system="fs-0ffffffffffffffff")
    found = client("s3").list_objects_v2(Bucket="hyperpod-models", Prefix=f"models/{model.name}/")
    assert found["KeyCount"] == 0


def test_an_unknown_file_system_is_named(staged: Staged) -> None:
    place = dataclasses.replace(staged.place("copy"), system_id="fs-0ffffffffffffffff")
    with pytest.raises(ConfigurationError, match="fs-0ffffffffffffffff"):
        deliver(staged.target, place)


def test_a_shell_sees_what_lies_on_the_claim(
    hyperpod: LocalHyperPod, staged: Staged, capsys: pytest.CaptureFixture[str]
) -> None:
    from include.staging.cli import main

    deliver(staged.target, staged.place("copy"))
    capsys.readouterr()
    assert main(["explore", "--fsx-claim", CLAIM, "--path", f"models/{staged.model.name}"]) == 0
    out = capsys.readouterr().out
    assert all(path in out for path in contents(staged.source))
    assert "all files there" in out


def test_a_collected_revision_leaves_the_file_system_too(
    client: Client, kube: Any, staged: Staged, tmp_path: Path
) -> None:
    deliver(staged.target, staged.place("copy"))
    cluster = ClusterSpec(
        name="c", models_uri=MODELS_URI, results_uri=str(tmp_path / "results"), fsx_file_system_id=SYSTEM,
        fsx_delivery=staged.place("copy").delivery,
    )  # fmt: skip
    collection = Collection(MODELS_URI, staged.target.context, (cluster,), lambda _: kube)
    retention = Retention(0, dt.timedelta(0))
    (line, *_) = collection.run(retention, staged.model.name, yes=False)
    assert f"on {SYSTEM}" in line
    assert any("is gone" in line for line in list(collection.run(retention, staged.model.name, yes=True)))
    assert not staged.on_fsx.exists()
    for prefix in (f"models/{staged.model.name}/", f"models/.fsx-delivered/{SYSTEM}/{staged.model.name}/"):
        assert client("s3").list_objects_v2(Bucket="hyperpod-models", Prefix=prefix)["KeyCount"] == 0


def test_what_an_endpoint_or_a_volume_serves_counts_as_used(kube: Any) -> None:
    from kubernetes.client import CoreV1Api, CustomObjectsApi

    from include.staging.usage import GROUP, VERSION, used_by_endpoints

    served = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "InferenceEndpointConfig",
        "metadata": {"name": "used"},
        "spec": {
            "modelName": "used", "instanceType": "ml.g5.8xlarge", "InitialReplicaCount": 0, "replicas": 0,
            "modelSourceConfig": {
                "modelSourceType": "s3", "modelLocation": "models/one/rev1/files",
                "s3Storage": {"bucketName": "hyperpod-models", "region": s3.REGION},
            },
            "worker": {
                "image": "hyperpod.local/llama-cpp:1", "modelInvocationPort": {"containerPort": 8080},
                "modelVolumeMount": {"name": "model-weights"}, "resources": {},
            },
        },
    }  # fmt: skip
    place = (GROUP, VERSION, "default", "inferenceendpointconfigs")
    core, custom = CoreV1Api(kube), CustomObjectsApi(kube)
    volume = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
        "mountOptions": ["prefix models/two/rev2/files/"],
        "csi": {"driver": "s3.csi.aws.com", "volumeHandle": "two", "volumeAttributes": {"bucketName": "b"}},
    }  # fmt: skip
    custom.create_namespaced_custom_object(*place, served)
    core.create_persistent_volume({"metadata": {"name": "two"}, "spec": volume})
    try:
        assert used_by_endpoints(kube) >= {("one", "rev1"), ("two", "rev2")}
    finally:
        custom.delete_namespaced_custom_object(*place, "used")
        core.delete_persistent_volume("two")
    until("deleted", lambda: ("one", "rev1") not in used_by_endpoints(kube))


def run_stage(kube: Any, staged: Staged, model: ModelSpec, results: Path, system: str = SYSTEM) -> RunJournal:
    """Run the stage task of a plan for this model; return the run's journal."""
    cluster = ClusterSpec(
        name="c", models_uri=MODELS_URI, results_uri=str(results), fsx_file_system_id=system,
        fsx_delivery=staged.place("copy").delivery,
    )  # fmt: skip
    context = staged.target.context
    run = RunIdentity(dag_id="release_model", run_id="manual__1", started_at=dt.datetime.now(dt.UTC))
    revision = list_source(model, context).revision
    plan = ReleasePlan.model_construct(model=model, cluster=cluster, revision=revision, run=run)
    journal = RunJournal(Objects.open(cluster.results_uri), run)

    class Stage(StageModelOperator):
        def plan(self, context: Any) -> ReleasePlan:
            return plan

        def journal(self, context: Any) -> RunJournal:
            return journal

        def hook(self, plan: ReleasePlan) -> Any:
            return SimpleNamespace(kube=kube, staging=lambda: context, staging_of=lambda _: context)

    Stage(task_id="stage").execute({"ti": SimpleNamespace(try_number=1)})  # type: ignore[arg-type]
    return journal


def test_the_stage_task_delivers_a_model_that_is_served_from_fsx(kube: Any, staged: Staged, tmp_path: Path) -> None:
    outcome = run_stage(kube, staged, staged.model, tmp_path / "results").outcomes()["stage"]
    assert contents(staged.on_fsx / "files") == contents(staged.source)
    assert outcome.state == "success"
    assert outcome.data["delivered"]["location"] == f"{staged.target.prefix}/files"
    assert "AWS_SECRET" not in json.dumps(outcome.data)


def test_a_model_on_fsx_needs_to_know_the_way() -> None:
    model = ModelSpec.model_validate(
        {"name": "m", "source": {"type": "folder", "path": "x"}, "deployment": {"model_source": "fsx"}}
    )
    cluster = ClusterSpec(name="c", models_uri="s3://b/m", results_uri="r", fsx_file_system_id=SYSTEM)
    with pytest.raises(ConfigurationError, match="fsx_delivery") as caught:
        place_of(model, cluster)
    assert caught.value.failure_class is FailureClass.CONFIGURATION
    there = model.model_copy(update={"deployment": model.deployment.model_copy(update={"model_location": "mine"})})
    assert place_of(there, cluster) is None
