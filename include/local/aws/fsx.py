"""FSx for Lustre: file systems and data repository associations, kept on disk.

A file system is the folder ``<root>/<file system id>``, which the node agent mounts. Lifecycles follow from
timestamps and pass in seconds instead of minutes. Not imitated: stripes, released files (an import brings the
bytes at once), throughput, backups, automatic import and export.
"""

from __future__ import annotations

import secrets
import time
from pathlib import Path
from typing import Any

from include.local.aws import ACCOUNT
from include.local.aws.errors import AwsError
from include.local.aws.faults import ApiFaultKind, FaultRules
from include.local.aws.pages import page
from include.local.aws.store import Record, Store

SYSTEMS, ASSOCIATIONS = "file systems", "associations"
FIRST_ID = "fs-0123456789abcdef0"
FIRST_MOUNT = "localfsx"
MOST_ASSOCIATIONS = 8
Parameters = dict[str, Any]


class FileSystems:
    """File systems and their associations with S3."""

    def __init__(self, store: Store, faults: FaultRules, root: Path, region: str, seconds: float) -> None:
        self.store = store
        self.seconds = seconds
        self._faults = faults
        self._root = root
        self._region = region
        if not store.table(SYSTEMS):
            with store.saving():
                self._add(FIRST_ID, FIRST_MOUNT, {"StorageCapacity": 1200, "SubnetIds": ["subnet-0123456789abcdef0"]})

    def folder(self, system_id: str, path: str = "") -> Path:
        """Return the folder of a path on a file system."""
        return self._root / system_id / path.strip("/")

    def arn(self, kind: str, name: str) -> str:
        """Return the ARN of a resource of FSx."""
        return f"arn:aws:fsx:{self._region}:{ACCOUNT}:{kind}/{name}"

    def system(self, system_id: str | None) -> Record:
        """Return a file system.

        :raises AwsError: FileSystemNotFound.
        """
        record = self.store.table(SYSTEMS).get(str(system_id))
        if record is None or self._gone(record):
            raise AwsError("FileSystemNotFound", f"File system '{system_id}' does not exist.")
        return record

    def associations(self, system_id: str) -> list[Record]:
        """Return the associations of a file system that still exist."""
        rows = self.store.table(ASSOCIATIONS).values()
        return [row for row in rows if row["FileSystemId"] == system_id and not self._gone(row)]

    def create_file_system(self, parameters: Parameters) -> dict[str, Any]:
        """``CreateFileSystem``, LUSTRE only."""
        if parameters.get("FileSystemType") != "LUSTRE":
            raise AwsError("BadRequest", f"FileSystemType {parameters.get('FileSystemType')}: only LUSTRE is here")
        known = self._same_token(SYSTEMS, parameters)
        if known is None:
            with self.store.saving():
                known = self._add(new_id("fs"), secrets.token_hex(4), parameters)
                del known["_looked_at"]
        return {"FileSystem": public(known) | {"Lifecycle": "CREATING"}}

    def describe_file_systems(self, parameters: Parameters) -> dict[str, Any]:
        """``DescribeFileSystems``."""
        ids = parameters.get("FileSystemIds")
        rows = [self.system(one) for one in ids] if ids else list(self.store.table(SYSTEMS).values())
        shown = [self._show_system(row) for row in rows if not self._gone(row)]
        return paged("FileSystems", shown, parameters)

    def delete_file_system(self, parameters: Parameters) -> dict[str, Any]:
        """``DeleteFileSystem``; the folder stays, as staged models do."""
        record = self.system(parameters.get("FileSystemId"))
        with self.store.saving():
            record.setdefault("_deleted", time.time())
        return {"FileSystemId": record["FileSystemId"], "Lifecycle": "DELETING"}

    def create_association(self, parameters: Parameters) -> dict[str, Any]:
        """``CreateDataRepositoryAssociation``; returns the stored record."""
        known = self._same_token(ASSOCIATIONS, parameters)
        if known is not None:
            return known
        system_id = self.system(parameters.get("FileSystemId"))["FileSystemId"]
        path = "/" + str(parameters.get("FileSystemPath") or "").strip("/")
        repository = str(parameters.get("DataRepositoryPath", "")).rstrip("/")
        self._check(system_id, path, repository)
        name = new_id("dra")
        record: Record = {
            "AssociationId": name,
            "ResourceARN": self.arn("association", f"{system_id}/{name}"),
            "FileSystemId": system_id,
            "FileSystemPath": path,
            "DataRepositoryPath": repository,
            "BatchImportMetaDataOnCreate": bool(parameters.get("BatchImportMetaDataOnCreate")),
            "ImportedFileChunkSize": int(parameters.get("ImportedFileChunkSize") or 1024),
            "S3": parameters.get("S3") or {},
            "Tags": parameters.get("Tags") or [],
            "CreationTime": time.time(),
            "_token": parameters.get("ClientRequestToken"),
        }
        rule = self._faults.effect("fsx", "CreateDataRepositoryAssociation", ApiFaultKind.MISCONFIGURED)
        if rule is not None:
            record["_wrong"] = rule.params.get(
                "message", "The bucket already has an event notification for an overlapping prefix."
            )
            record["_ends"] = rule.params.get("lifecycle", "MISCONFIGURED")
        with self.store.saving():
            self.store.table(ASSOCIATIONS)[name] = record
        return record

    def describe_associations(self, parameters: Parameters) -> dict[str, Any]:
        """``DescribeDataRepositoryAssociations``, by id or by filters."""
        ids = parameters.get("AssociationIds")
        table = self.store.table(ASSOCIATIONS)
        rows = [self._association(one) for one in ids] if ids else list(table.values())
        for rule in parameters.get("Filters") or ():
            member = {"file-system-id": "FileSystemId"}.get(rule["Name"])
            if member:
                rows = [row for row in rows if row[member] in rule["Values"]]
        shown = [self.show_association(row) for row in rows if not self._gone(row)]
        return paged("Associations", shown, parameters)

    def delete_association(self, parameters: Parameters) -> dict[str, Any]:
        """``DeleteDataRepositoryAssociation``."""
        record = self._association(parameters.get("AssociationId"))
        with self.store.saving():
            record.setdefault("_deleted", time.time())
        answer = {"AssociationId": record["AssociationId"], "Lifecycle": "DELETING"}
        return answer | {"DeleteDataInFileSystem": bool(parameters.get("DeleteDataInFileSystem"))}

    def show_association(self, record: Record) -> dict[str, Any]:
        """Return an association as clients see it now."""
        state = self._state(record)
        shown = public(record) | {"Lifecycle": state}
        if state == "AVAILABLE" and "_wrong" in record:
            shown |= {"Lifecycle": record["_ends"], "FailureDetails": {"Message": record["_wrong"]}}
        return shown

    def _association(self, name: str | None) -> Record:
        record = self.store.table(ASSOCIATIONS).get(str(name))
        if record is None or self._gone(record):
            raise AwsError("DataRepositoryAssociationNotFound", f"Association '{name}' does not exist.")
        return record

    def _check(self, system_id: str, path: str, repository: str) -> None:
        existing = self.associations(system_id)
        if len(existing) >= MOST_ASSOCIATIONS:
            raise AwsError("ServiceLimitExceeded", f"{system_id} has {MOST_ASSOCIATIONS} associations already.")
        if not repository.startswith("s3://"):
            raise AwsError("BadRequest", f"DataRepositoryPath '{repository}' must start with s3://")
        for row in existing:
            if _overlap(row["FileSystemPath"], path) or _overlap(row["DataRepositoryPath"], repository):
                raise AwsError("BadRequest", f"'{path}' or '{repository}' overlaps with {row['AssociationId']}.")

    def _same_token(self, table: str, parameters: Parameters) -> Record | None:
        token = parameters.get("ClientRequestToken")
        rows = self.store.table(table).values()
        return next((row for row in rows if token and row.get("_token") == token), None)

    def _add(self, system_id: str, mount: str, parameters: Parameters) -> Record:
        lustre = dict(parameters.get("LustreConfiguration") or {})
        record: Record = {
            "OwnerId": ACCOUNT,
            "FileSystemId": system_id,
            "FileSystemType": "LUSTRE",
            "FileSystemTypeVersion": parameters.get("FileSystemTypeVersion", "2.15"),
            "StorageCapacity": parameters.get("StorageCapacity", 1200),
            "StorageType": parameters.get("StorageType", "SSD"),
            "SubnetIds": parameters.get("SubnetIds") or [],
            "DNSName": f"{system_id}.fsx.{self._region}.amazonaws.com",
            "ResourceARN": self.arn("file-system", system_id),
            "Tags": parameters.get("Tags") or [],
            "CreationTime": time.time(),
            "LustreConfiguration": {
                "DeploymentType": lustre.get("DeploymentType", "PERSISTENT_2"),
                "PerUnitStorageThroughput": lustre.get("PerUnitStorageThroughput", 250),
                "MountName": mount,
            },
            "_looked_at": 0.0,
            "_token": parameters.get("ClientRequestToken"),
        }
        self.store.table(SYSTEMS)[system_id] = record
        self.folder(system_id).mkdir(parents=True, exist_ok=True)
        return record

    def _show_system(self, record: Record) -> dict[str, Any]:
        return public(record) | {"Lifecycle": self._state(record)}

    def _state(self, record: Record) -> str:
        if "_deleted" in record:
            return "DELETING"
        # Counted from the first look: however busy the machine, whoever looks at a new one sees it pass.
        looked_at = record.setdefault("_looked_at", time.time())
        return "CREATING" if time.time() - looked_at < self.seconds else "AVAILABLE"

    def _gone(self, record: Record) -> bool:
        return "_deleted" in record and time.time() - record["_deleted"] > self.seconds


def public(record: Record) -> dict[str, Any]:
    """Return the members that clients see."""
    return {key: value for key, value in record.items() if not key.startswith("_")}


def paged(name: str, rows: list[dict[str, Any]], parameters: Parameters) -> dict[str, Any]:
    """Return one page of a list under its member name."""
    found, token = page(rows, parameters, default=100, largest=2147483647)
    return {name: found} | ({"NextToken": token} if token else {})


def new_id(kind: str) -> str:
    """Return a new identifier: ``fs-``, ``dra-`` or ``task-`` and 17 hex digits."""
    return f"{kind}-0{secrets.token_hex(8)}"


def _overlap(one: str, other: str) -> bool:
    first, second = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)
