"""FSx for Lustre through boto3: associations and imports that make files appear, and how they fail."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from include.local.supervisor import LocalHyperPod
from tests.include.local.hyperpod.conftest import Client, until

pytestmark = pytest.mark.local
SYSTEM = "fs-0123456789abcdef0"
IMPORT = "IMPORT_METADATA_FROM_REPOSITORY"
FILES = {"config.json": b"{}", "sub/weights.bin": bytes(range(256)) * 4000, "z.txt": b"z"}


@pytest.fixture
def association(hyperpod: LocalHyperPod, client: Client, request: pytest.FixtureRequest) -> Iterator[dict[str, Any]]:
    """An association of a prefix with some files; its own per test."""
    name = request.node.name.replace("[", "-").replace("]", "")
    for path, data in FILES.items():
        client("s3").put_object(Bucket="hyperpod-models", Key=f"{name}/{path}", Body=data)
    made = client("fsx").create_data_repository_association(
        FileSystemId=SYSTEM, FileSystemPath=f"/{name}", DataRepositoryPath=f"s3://hyperpod-models/{name}"
    )["Association"]
    yield made
    client("fsx").delete_data_repository_association(AssociationId=made["AssociationId"])
    until("association gone", lambda: made["AssociationId"] not in associations(client))


def associations(client: Client) -> dict[str, dict[str, Any]]:
    found = client("fsx").describe_data_repository_associations()["Associations"]
    return {one["AssociationId"]: one for one in found}


def task(client: Client, task_id: str) -> dict[str, Any]:
    return dict(client("fsx").describe_data_repository_tasks(TaskIds=[task_id])["DataRepositoryTasks"][0])


def start(client: Client, *paths: str, **options: Any) -> str:
    made = client("fsx").create_data_repository_task(
        FileSystemId=SYSTEM, Type=IMPORT, Paths=list(paths), Report={"Enabled": False}, **options
    )
    return str(made["DataRepositoryTask"]["TaskId"])


def ended(client: Client, task_id: str) -> dict[str, Any]:
    over = ("SUCCEEDED", "FAILED", "CANCELED")
    until("task ended", lambda: task(client, task_id)["Lifecycle"] in over)
    return task(client, task_id)


def files(hyperpod: LocalHyperPod, association: dict[str, Any]) -> dict[str, bytes]:
    root = Path(hyperpod.state / "fsx" / SYSTEM) / association["FileSystemPath"].strip("/")
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_a_file_system_tells_how_to_mount_it(client: Client) -> None:
    (system,) = client("fsx").describe_file_systems(FileSystemIds=[SYSTEM])["FileSystems"]
    assert system["Lifecycle"] == "AVAILABLE"
    assert system["DNSName"].startswith(SYSTEM)
    assert system["LustreConfiguration"]["MountName"]


def test_a_new_file_system_becomes_available_and_goes(client: Client) -> None:
    fsx = client("fsx")
    subnets = ["subnet-0123456789abcdef0"]
    made = fsx.create_file_system(FileSystemType="LUSTRE", StorageCapacity=1200, SubnetIds=subnets)["FileSystem"]
    name = made["FileSystemId"]
    assert made["Lifecycle"] == "CREATING"

    def lifecycle() -> str:
        return str(fsx.describe_file_systems(FileSystemIds=[name])["FileSystems"][0]["Lifecycle"])

    until("available", lambda: lifecycle() == "AVAILABLE")
    fsx.delete_file_system(FileSystemId=name)
    until("gone", lambda: name not in {one["FileSystemId"] for one in fsx.describe_file_systems()["FileSystems"]})
    with pytest.raises(fsx.exceptions.FileSystemNotFound):
        lifecycle()


def test_an_import_makes_the_files_appear(hyperpod: LocalHyperPod, client: Client, association: dict[str, Any]) -> None:
    assert association["Lifecycle"] == "CREATING"
    name = association["AssociationId"]
    until("available", lambda: associations(client)[name]["Lifecycle"] == "AVAILABLE")
    done = ended(client, start(client, association["FileSystemPath"]))
    assert done["Lifecycle"] == "SUCCEEDED"
    assert done["Status"]["SucceededCount"] == done["Status"]["TotalCount"] == len(FILES)
    assert files(hyperpod, association) == FILES


def test_paths_limit_an_import(hyperpod: LocalHyperPod, client: Client, association: dict[str, Any]) -> None:
    done = ended(client, start(client, f"{association['DataRepositoryPath']}/sub"))
    assert done["Status"]["TotalCount"] == 1
    assert set(files(hyperpod, association)) == {"sub/weights.bin"}


def test_an_import_survives_a_killed_gateway(
    hyperpod: LocalHyperPod, client: Client, association: dict[str, Any]
) -> None:
    name = start(client, association["FileSystemPath"])
    hyperpod.restart("aws")
    assert ended(client, name)["Lifecycle"] == "SUCCEEDED"
    assert files(hyperpod, association) == FILES


def test_the_same_token_makes_one_task(client: Client, association: dict[str, Any]) -> None:
    first = start(client, association["FileSystemPath"], ClientRequestToken="once")
    assert start(client, association["FileSystemPath"], ClientRequestToken="once") == first
    ended(client, first)


def test_a_failed_import_says_why(
    hyperpod: LocalHyperPod, client: Client, association: dict[str, Any], fault: Callable[..., None]
) -> None:
    fault("task-failed", service="fsx", times=1, params={"message": "no rights"})
    done = ended(client, start(client, association["FileSystemPath"]))
    assert (done["Lifecycle"], done["FailureDetails"]["Message"]) == ("FAILED", "no rights")
    assert files(hyperpod, association) == {}


def test_a_partial_import_succeeds_and_counts_what_is_missing(
    hyperpod: LocalHyperPod, client: Client, association: dict[str, Any], fault: Callable[..., None]
) -> None:
    fault("task-partial", service="fsx", times=1, params={"files": "2"})
    done = ended(client, start(client, association["FileSystemPath"]))
    assert (done["Lifecycle"], done["Status"]["FailedCount"]) == ("SUCCEEDED", 2)
    assert len(files(hyperpod, association)) == len(FILES) - 2


def test_a_cancelled_import_ends(client: Client, association: dict[str, Any]) -> None:
    name = start(client, association["FileSystemPath"])
    client("fsx").cancel_data_repository_task(TaskId=name)
    assert ended(client, name)["Lifecycle"] == "CANCELED"


def test_a_misconfigured_association(client: Client, fault: Callable[..., None]) -> None:
    fsx = client("fsx")
    fault("misconfigured", service="fsx", times=1, params={"message": "overlapping notification"})
    made = fsx.create_data_repository_association(
        FileSystemId=SYSTEM, FileSystemPath="/wrong", DataRepositoryPath="s3://hyperpod-models/wrong"
    )["Association"]["AssociationId"]
    until("misconfigured", lambda: associations(client)[made]["Lifecycle"] == "MISCONFIGURED")
    assert associations(client)[made]["FailureDetails"]["Message"] == "overlapping notification"
    fsx.delete_data_repository_association(AssociationId=made)
    until("gone", lambda: made not in associations(client))


def test_overlapping_paths_and_unknown_ids_are_refused(client: Client, association: dict[str, Any]) -> None:
    fsx = client("fsx")
    with pytest.raises(ClientError, match="overlaps"):
        fsx.create_data_repository_association(
            FileSystemId=SYSTEM,
            FileSystemPath=f"{association['FileSystemPath']}/inside",
            DataRepositoryPath="s3://hyperpod-models/other",
        )
    with pytest.raises(fsx.exceptions.DataRepositoryTaskNotFound):
        fsx.describe_data_repository_tasks(TaskIds=["task-0123456789abcdef0"])
    with pytest.raises(fsx.exceptions.DataRepositoryAssociationNotFound):
        fsx.delete_data_repository_association(AssociationId="dra-0123456789abcdef0")
