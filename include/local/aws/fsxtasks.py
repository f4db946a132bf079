"""FSx data repository tasks: an import makes the objects of S3 appear as files, in the background.

A task that a killed gateway left unfinished goes on when it starts again; a file appears whole or not at all.
Not imitated: EXPORT_TO_REPOSITORY and the release of data.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from include.local.aws.errors import AwsError
from include.local.aws.faults import ApiFaultKind, FaultRules
from include.local.aws.fsx import FileSystems, Parameters, new_id, paged, public
from include.local.aws.store import Record
from include.objects import Objects

TASKS = "tasks"
IMPORT = "IMPORT_METADATA_FROM_REPOSITORY"
UNFINISHED = ("PENDING", "EXECUTING", "CANCELING")
CHUNK = 4 << 20
log = logging.getLogger("aws")


class Tasks:
    """Creates, runs and describes tasks."""

    def __init__(self, systems: FileSystems, faults: FaultRules) -> None:
        self._systems = systems
        self._faults = faults
        self._running: set[asyncio.Task[None]] = set()

    def resume(self) -> None:
        """Go on with what a killed process left."""
        for record in self._table.values():
            if record["Lifecycle"] in UNFINISHED:
                self._begin(record)

    async def close(self) -> None:
        """Stop working; the tasks stay unfinished."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def create_association(self, parameters: Parameters) -> dict[str, Any]:
        """``CreateDataRepositoryAssociation``, with its first import when it was asked for."""
        record = self._systems.create_association(parameters)
        if record["BatchImportMetaDataOnCreate"] and "_wrong" not in record and not record.get("_imported"):
            with self._systems.store.saving():
                record["_imported"] = True
            self._add(record["FileSystemId"], [record["FileSystemPath"]], parameters={})
        return {"Association": self._systems.show_association(record)}

    def create(self, parameters: Parameters) -> dict[str, Any]:
        """``CreateDataRepositoryTask``."""
        system_id = self._systems.system(parameters.get("FileSystemId"))["FileSystemId"]
        token = parameters.get("ClientRequestToken")
        for record in self._table.values():
            if token and record.get("_token") == token:
                return {"DataRepositoryTask": public(record)}
        if parameters.get("Type") != IMPORT:
            raise AwsError("UnsupportedOperation", f"Type {parameters.get('Type')}: only {IMPORT} is here")
        if not self._systems.associations(system_id):
            raise AwsError("BadRequest", f"{system_id} has no data repository association.")
        if any(row["FileSystemId"] == system_id and row["Lifecycle"] in UNFINISHED for row in self._table.values()):
            raise AwsError("DataRepositoryTaskExecuting", f"A task is already executing on {system_id}.")
        paths = [str(path) for path in parameters.get("Paths") or ["/"]]
        record = self._add(system_id, paths, parameters)
        return {"DataRepositoryTask": public(record)}

    def describe(self, parameters: Parameters) -> dict[str, Any]:
        """``DescribeDataRepositoryTasks``, by id or by filters."""
        ids = parameters.get("TaskIds")
        rows = [self._get(one) for one in ids] if ids else list(self._table.values())
        for rule in parameters.get("Filters") or ():
            member = {"file-system-id": "FileSystemId", "task-lifecycle": "Lifecycle"}.get(rule["Name"])
            if member:
                rows = [row for row in rows if row[member] in rule["Values"]]
        return paged("DataRepositoryTasks", [public(row) for row in rows], parameters)

    def cancel(self, parameters: Parameters) -> dict[str, Any]:
        """``CancelDataRepositoryTask``."""
        record = self._get(parameters.get("TaskId"))
        if record["Lifecycle"] not in UNFINISHED:
            raise AwsError("DataRepositoryTaskEnded", f"Task {record['TaskId']} has ended.")
        self._set(record, "CANCELING")
        return {"Lifecycle": "CANCELING", "TaskId": record["TaskId"]}

    @property
    def _table(self) -> dict[str, Record]:
        return self._systems.store.table(TASKS)

    def _get(self, name: str | None) -> Record:
        record = self._table.get(str(name))
        if record is None:
            raise AwsError("DataRepositoryTaskNotFound", f"Task '{name}' does not exist.")
        return record

    def _add(self, system_id: str, paths: list[str], parameters: Parameters) -> Record:
        name = new_id("task")
        record: Record = {
            "TaskId": name,
            "ResourceARN": self._systems.arn("task", f"{system_id}/{name}"),
            "FileSystemId": system_id,
            "Type": IMPORT,
            "Lifecycle": "PENDING",
            "CreationTime": time.time(),
            "Paths": paths,
            "Tags": parameters.get("Tags") or [],
            "Report": parameters.get("Report") or {"Enabled": False},
            "Status": {"TotalCount": 0, "SucceededCount": 0, "FailedCount": 0},
            "_token": parameters.get("ClientRequestToken"),
        }
        rule = self._faults.effect(
            "fsx", "CreateDataRepositoryTask", ApiFaultKind.TASK_FAILED, ApiFaultKind.TASK_PARTIAL
        )
        if rule is not None:
            record["_fault"] = rule.model_dump(mode="json")
        with self._systems.store.saving():
            self._table[name] = record
        self._begin(record)
        return record

    def _begin(self, record: Record) -> None:
        task = asyncio.create_task(self._run(record))
        self._running.add(task)
        task.add_done_callback(self._running.discard)

    async def _run(self, record: Record) -> None:
        await asyncio.sleep(self._systems.seconds)
        try:
            if record["Lifecycle"] == "PENDING":
                self._set(record, "EXECUTING", StartTime=time.time())
            await asyncio.sleep(self._systems.seconds)
            fault = record.get("_fault") or {}
            if fault.get("kind") == ApiFaultKind.TASK_FAILED:
                self._fail(record, fault["params"].get("message", "The task failed to process all files."))
                return
            left_out = int(fault.get("params", {}).get("files", 1)) if fault else 0
            await asyncio.to_thread(self._import, record, left_out)
        except Exception as error:  # noqa: BLE001 (whatever it was, the client must see FAILED)
            log.warning("task %s: %r", record["TaskId"], error)
            self._fail(record, f"Failed to access the data repository: {error}")
            return
        done = "CANCELED" if record["Lifecycle"] == "CANCELING" else "SUCCEEDED"
        self._set(record, done, EndTime=time.time())

    def _import(self, record: Record, left_out: int) -> None:
        sources = [(store, path, target) for store, path, target in self._sources(record)]
        status = {"TotalCount": len(sources), "SucceededCount": 0, "FailedCount": 0}
        failed: list[str] = []
        for index, (store, path, target) in enumerate(sources):
            if record["Lifecycle"] == "CANCELING":
                break
            if index < left_out:
                status["FailedCount"] += 1
                failed.append(path)
                continue
            _copy(store, path, target)
            status["SucceededCount"] += 1
        if failed and record["Report"].get("Enabled"):
            _write_report(record, failed)
        self._set(record, record["Lifecycle"], Status={**status, "LastUpdatedTime": time.time()})

    def _sources(self, record: Record) -> Iterator[tuple[Objects, str, Path]]:
        """Yield the objects that the task's paths cover, each with its file."""
        for association in self._systems.associations(record["FileSystemId"]):
            store = Objects.open(association["DataRepositoryPath"])
            root = self._systems.folder(record["FileSystemId"], association["FileSystemPath"])
            for item in store.list():
                inside = f"{association['FileSystemPath'].rstrip('/')}/{item.path}"
                if _covered(inside, store.url(item.path), record["Paths"]):
                    yield store, item.path, root / item.path

    def _fail(self, record: Record, message: str) -> None:
        self._set(record, "FAILED", EndTime=time.time(), FailureDetails={"Message": message})

    def _set(self, record: Record, lifecycle: str, **members: Any) -> None:
        with self._systems.store.saving():
            record |= {"Lifecycle": lifecycle, **members}


def _covered(inside: str, url: str, paths: list[str]) -> bool:
    for path in paths:
        whole = url if path.startswith("s3://") else inside
        prefix = path if path.startswith("s3://") else "/" + path.strip("/")
        if whole == prefix or whole.startswith(prefix.rstrip("/") + "/"):
            return True
    return False


def _write_report(record: Record, failed: list[str]) -> None:
    """Write the completion report where a client asked for it: FilePath, FileStatus, ErrorCode."""
    rows = "".join(f"{path},failed,S3AccessDenied\r\n" for path in failed)
    Objects.open(record["Report"]["Path"]).put(f"{record['TaskId']}/report.csv", rows.encode())


def _copy(store: Objects, path: str, target: Path) -> None:
    import obstore

    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        for chunk in obstore.get(store.native, path).stream(min_chunk_size=CHUNK):
            file.write(chunk)
    partial.replace(target)
