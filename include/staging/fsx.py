"""FSx for Lustre's side of an import: the file system's room, its association with the bucket, the import task."""

from __future__ import annotations

import csv
import datetime as dt
import io
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from include.errors import ConfigurationError, FailureClass, PipelineError
from include.staging.context import StagingContext
from include.staging.target import open_objects

POLL_SECONDS = 2.0
IMPORT = "IMPORT_METADATA_FROM_REPOSITORY"
ENDED = ("SUCCEEDED", "FAILED", "CANCELED")
USABLE = ("AVAILABLE", "UPDATING")
PASSING = ("CREATING", "UPDATING")
# The guide says report.csv for imports, the API reference failures.csv for all.
REPORT_NAMES = ("report.csv", "failures.csv")
NAMED = 5
Say = Callable[[str], None]


@dataclass(frozen=True)
class Lustre:
    """One file system, and the clients that ask about it.

    :param poll_seconds: between two looks at a lifecycle.
    :param timeout_seconds: longest wait for an association or a task.
    """

    context: StagingContext
    system_id: str
    poll_seconds: float = POLL_SECONDS
    timeout_seconds: float = 3600

    def client(self, service: str) -> Any:
        """Return a boto3 client that retries throttling and outages."""
        import boto3
        from botocore.config import Config

        session = self.context.session or boto3.Session()
        retries: Any = {"mode": "standard", "max_attempts": 6}
        return session.client(service, region_name=self.context.region, config=Config(retries=retries))

    def require_room(self, needed: int, *, arriving: bool) -> None:
        """Check that the file system is there, usable and large enough.

        :param needed: bytes of the revision.
        :param arriving: the bytes are not on it yet, so that they need free space too.
        :raises ConfigurationError: it is absent, failed, or too small.
        """
        from botocore.exceptions import ClientError

        try:
            found = self.client("fsx").describe_file_systems(FileSystemIds=[self.system_id])["FileSystems"][0]
        except ClientError as error:
            raise self._refused("FileSystemUnusable", error) from error
        state = found.get("Lifecycle", "AVAILABLE")
        if state == "CREATING":
            raise PipelineError(
                "FileSystemNotReady",
                f"fsx_file_system_id = {self.system_id!r} is CREATING",
                fix="wait; a retry looks again",
                failure_class=FailureClass.CAPACITY,
            )
        if state not in USABLE:
            said = (found.get("FailureDetails") or {}).get("Message", "")
            raise ConfigurationError(
                "FileSystemUnusable",
                f"fsx_file_system_id = {self.system_id!r} is {state}{said and ': '}{said}",
                fix="mend the file system, or name another",
            )
        capacity = int(found["StorageCapacity"]) << 30
        free = self.free_bytes() if arriving else None
        room, what = (capacity, "in all") if free is None else (free, "free")
        if needed > room:
            raise ConfigurationError(
                "NoRoom",
                f"fsx_file_system_id = {self.system_id!r}: {needed} bytes are to be brought, {room} are {what}",
                fix="collect old revisions (python -m include.staging collect), or enlarge the file system",
            )

    def free_bytes(self) -> int | None:
        """Return the free bytes as CloudWatch last saw them (sum over all storage targets); ``None``: it has not."""
        from botocore.exceptions import BotoCoreError, ClientError

        now = dt.datetime.now(dt.UTC)
        try:
            points = self.client("cloudwatch").get_metric_statistics(
                Namespace="AWS/FSx",
                MetricName="FreeDataStorageCapacity",
                Dimensions=[{"Name": "FileSystemId", "Value": self.system_id}],
                StartTime=now - dt.timedelta(minutes=15),
                EndTime=now + dt.timedelta(minutes=1),
                Period=60,
                Statistics=["Sum"],
            )["Datapoints"]
        except (ClientError, BotoCoreError):
            # Metrics may be closed to this role; the capacity is checked all the same.
            return None
        return int(max(points, key=lambda point: point["Timestamp"])["Sum"]) if points else None

    def associate(self, path: str, repository: str, say: Say = lambda _: None) -> str:
        """Return the id of the association of ``path`` with ``repository``, made when there is none, AVAILABLE.

        :param path: on the file system, with a leading slash.
        :param repository: ``s3://bucket/prefix``.
        :raises ConfigurationError: FAILED, MISCONFIGURED or refused, with what FSx says of it.
        """
        found = next((one for one in self._associations() if _covers(one, path, repository)), None)
        if found is None:
            say(f"associating {self.system_id}:{path} with {repository}")
            with self._asking("AssociationRefused"):
                found = self.client("fsx").create_data_repository_association(
                    FileSystemId=self.system_id,
                    FileSystemPath=path,
                    DataRepositoryPath=repository,
                    BatchImportMetaDataOnCreate=False,
                )["Association"]
        name = str(found["AssociationId"])
        state = self._until(lambda: self._association(name), lambda one: one["Lifecycle"] not in PASSING, name, say)
        if state["Lifecycle"] != "AVAILABLE":
            said = (state.get("FailureDetails") or {}).get("Message", "FSx says no reason")
            raise ConfigurationError(
                f"Association{state['Lifecycle'].capitalize()}",
                f"{name} ({self.system_id}:{path} with {repository}) is {state['Lifecycle']}: {said}",
                fix="check the role's rights on the bucket and its event notifications; "
                "then update the association, or delete it and stage again",
            )
        return name

    def bring_in(self, uri: str, reports: str, say: Say = lambda _: None) -> Mapping[str, int]:
        """Import what lies below ``uri`` and return the task's counts.

        A task for the same path that a killed run left is waited for instead of started again.

        :param reports: ``s3://…`` below the association: where the completion report goes.
        :raises PipelineError: the task failed, was cancelled, or left files out; its evidence names them.
        """
        task = self._running(uri) or self._start(uri, reports, say)
        name = str(task["TaskId"])
        done = self._until(lambda: self._task(name), lambda one: one["Lifecycle"] in ENDED, name, say)
        status = {key: int(value) for key, value in (done.get("Status") or {}).items() if key.endswith("Count")}
        if done["Lifecycle"] == "SUCCEEDED" and not status.get("FailedCount"):
            return status
        raise self._failed(done, status, reports)

    def _start(self, uri: str, reports: str, say: Say) -> Mapping[str, Any]:
        from botocore.exceptions import ClientError

        report = {
            "Enabled": True, "Path": reports, "Format": "REPORT_CSV_20191124", "Scope": "FAILED_FILES_ONLY",
        }  # fmt: skip

        def start() -> Mapping[str, Any] | None:
            try:
                made = self.client("fsx").create_data_repository_task(
                    FileSystemId=self.system_id, Type=IMPORT, Paths=[uri], Report=report
                )
            except ClientError as error:
                if error.response["Error"]["Code"] == "DataRepositoryTaskExecuting":
                    return None
                raise self._refused("ImportRefused", error) from error
            return dict(made["DataRepositoryTask"])

        say(f"importing {uri} into {self.system_id}")
        # A file system runs one task at a time: another one's end is waited for.
        return dict(self._until(start, lambda made: made is not None, "another task", say))

    def _running(self, uri: str) -> Mapping[str, Any] | None:
        with self._asking("ImportRefused"):
            tasks = self.client("fsx").describe_data_repository_tasks(
                Filters=[{"Name": "file-system-id", "Values": [self.system_id]}]
            )["DataRepositoryTasks"]
        ours = (task for task in tasks if task.get("Paths") == [uri] and task["Lifecycle"] in ("PENDING", "EXECUTING"))
        return next(ours, None)

    def _task(self, name: str) -> Mapping[str, Any]:
        with self._asking("ImportLost"):
            found = self.client("fsx").describe_data_repository_tasks(TaskIds=[name])["DataRepositoryTasks"]
        return dict(found[0])

    def _association(self, name: str) -> Mapping[str, Any]:
        with self._asking("AssociationLost"):
            found = self.client("fsx").describe_data_repository_associations(AssociationIds=[name])["Associations"]
        return dict(found[0])

    def _associations(self) -> Iterator[Mapping[str, Any]]:
        """Yield the file system's associations; eight is the most, but a page may be shorter."""
        wanted: dict[str, Any] = {"Filters": [{"Name": "file-system-id", "Values": [self.system_id]}]}
        while True:
            with self._asking("AssociationRefused"):
                page = self.client("fsx").describe_data_repository_associations(**wanted)
            yield from (one for one in page["Associations"] if one["Lifecycle"] != "DELETING")
            if not page.get("NextToken"):
                return
            wanted["NextToken"] = page["NextToken"]

    def _failed(self, task: Mapping[str, Any], status: Mapping[str, int], reports: str) -> PipelineError:
        said = (task.get("FailureDetails") or {}).get("Message", "")
        lines = tuple(self._report(f"{reports}/{task['TaskId']}"))
        counts = f"{status.get('FailedCount', 0)} of {status.get('TotalCount', 0)} files failed"
        text = f"{task['TaskId']} on {self.system_id}: {task['Lifecycle']}, {counts}{said and ': '}{said}"
        return PipelineError(
            "ImportPartial" if status.get("SucceededCount") else "ImportFailed",
            "; ".join((text, *lines[:NAMED])),
            fix="see the completion report below; check the file system's role and room, then run the stage again",
            failure_class=FailureClass.TRANSIENT,
            evidence=lines,
        )

    def _report(self, uri: str) -> Iterator[str]:
        """Yield ``path: error`` of each row of a task's completion report (CSV: FilePath, FileStatus, ErrorCode)."""
        objects = open_objects(uri, self.context)
        for name in REPORT_NAMES:
            data = objects.get(name)
            for row in csv.reader(io.StringIO((data or b"").decode(errors="replace"))):
                if len(row) >= 3 and row[1].casefold() != "filestatus":
                    yield f"{row[0]}: {row[2]}"

    def _until(self, look: Callable[[], Any], ended: Callable[[Any], bool], what: str, say: Say) -> Any:
        deadline, said = time.monotonic() + self.timeout_seconds, ""
        while True:
            found = look()
            if ended(found):
                return found
            state = found["Lifecycle"] if found else "in the way"
            if state != said:
                say(f"{what}: {state}")
                said = state
            if time.monotonic() > deadline:
                raise PipelineError(
                    "FsxTooSlow",
                    f"{what} on {self.system_id} is {state} after {self.timeout_seconds:.0f} s",
                    fix="look at it in the FSx console; a retry waits for it again",
                    failure_class=FailureClass.CAPACITY,
                )
            time.sleep(self.poll_seconds)

    @contextmanager
    def _asking(self, reason: str) -> Iterator[None]:
        from botocore.exceptions import ClientError

        try:
            yield
        except ClientError as error:
            raise self._refused(reason, error) from error

    def _refused(self, reason: str, error: Any) -> PipelineError:
        code = error.response["Error"]["Code"]
        text = f"fsx_file_system_id = {self.system_id!r}: {code}: {error.response['Error'].get('Message', '')}"
        status = error.response["ResponseMetadata"].get("HTTPStatusCode", 0)
        if status >= 500 or "Throttl" in code:
            return PipelineError(reason, text, failure_class=FailureClass.TRANSIENT)
        return ConfigurationError(reason, text, fix="correct the file system's id, its associations or the rights")


def _covers(association: Mapping[str, Any], path: str, repository: str) -> bool:
    """True when an association already shows ``repository`` at ``path``."""
    linked = str(association["DataRepositoryPath"]).rstrip("/") + "/"
    wanted = repository.rstrip("/") + "/"
    if not wanted.startswith(linked):
        return False
    inside = wanted.removeprefix(linked)
    return f"{association['FileSystemPath'].rstrip('/')}/{inside}".rstrip("/") == path.rstrip("/")
