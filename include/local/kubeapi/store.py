"""Objects with resource versions, watch history and SQLite persistence: a killed server loses no answered write."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
import json
import sqlite3
import uuid
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.local.kubeapi.kinds import BUILT_IN, Kind, from_definition

HISTORY = 5000
Object = dict[str, Any]
Key = tuple[str, str, str]  # resource, namespace, name


class ApiFault(Exception):
    """An answer other than success, as a Kubernetes Status."""

    def __init__(self, code: int, reason: str, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details


@dataclass(frozen=True)
class Change:
    """One change: ADDED, MODIFIED or DELETED, with the object after and before it."""

    version: int
    type: str
    resource: str
    object: Object
    before: Object | None


@dataclass
class Store:
    """All objects, in memory, mirrored to SQLite before a write is answered."""

    path: Path
    objects: dict[Key, Object] = field(default_factory=dict)
    kinds: dict[tuple[str, str, str], Kind] = field(default_factory=dict)
    history: deque[Change] = field(default_factory=lambda: deque(maxlen=HISTORY))
    version: int = 0
    oldest: int = 0
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.db = sqlite3.connect(self.path, isolation_level=None)
        self.db.execute("PRAGMA journal_mode=WAL")
        # A killed process loses nothing with NORMAL; only a power cut could, and this is a laptop's stand-in.
        self.db.execute("PRAGMA synchronous=NORMAL")
        self.db.execute(
            "CREATE TABLE IF NOT EXISTS objects (resource, namespace, name, body, PRIMARY KEY (resource, namespace, name))"
        )
        self.db.execute("CREATE TABLE IF NOT EXISTS meta (key PRIMARY KEY, value)")
        for kind in BUILT_IN:
            self.register(kind)
        for resource, namespace, name, body in self.db.execute("SELECT * FROM objects"):
            self.objects[(resource, namespace, name)] = json.loads(body)
        row = self.db.execute("SELECT value FROM meta WHERE key='version'").fetchone()
        # Watchers from before a restart get 410 and list again: history is not persisted.
        self.version = self.oldest = int(row[0]) + 1 if row else int(dt.datetime.now(dt.UTC).timestamp())
        for (resource, _, _), item in list(self.objects.items()):
            if resource == "customresourcedefinitions.apiextensions.k8s.io":
                self.register_definition(item)

    def register(self, kind: Kind) -> None:
        """Serve a kind."""
        self.kinds[(kind.group, kind.version, kind.plural)] = kind

    def register_definition(self, definition: Object) -> None:
        """Serve the kinds of a CustomResourceDefinition."""
        for kind in from_definition(definition):
            self.register(kind)

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return an object.

        :raises ApiFault: 404.
        """
        found = self.objects.get((kind.resource, namespace, name))
        if found is None:
            raise not_found(kind, name)
        return found

    def items(self, kind: Kind, namespace: str | None) -> list[Object]:
        """Return the objects of a kind in a namespace (``None``: in all), by name."""
        found = [
            (key, item)
            for key, item in self.objects.items()
            if key[0] == kind.resource and (namespace is None or key[1] == namespace)
        ]
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    async def create(self, kind: Kind, namespace: str, item: Object, *, dry_run: bool = False) -> Object:
        """Add an object, with uid, times and version filled in.

        :raises ApiFault: 409 when the name is taken; 404 when the namespace is not there.
        """
        meta = item.setdefault("metadata", {})
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + uuid.uuid4().hex[:5]
        name = meta.get("name")
        if not name:
            raise ApiFault(422, "Invalid", "metadata.name: Required value: name or generateName is required")
        if kind.namespaced:
            meta["namespace"] = namespace
            if ("namespaces", "", namespace) not in self.objects:
                raise ApiFault(404, "NotFound", f'namespaces "{namespace}" not found')
        if (kind.resource, namespace, name) in self.objects:
            details = {"name": name, "group": kind.group, "kind": kind.plural}
            raise ApiFault(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', details)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = now()
        meta["generation"] = 1
        for field_ in ("deletionTimestamp", "resourceVersion", "managedFields"):
            meta.pop(field_, None)
        if kind.status:
            item.pop("status", None)
            if kind.schema is None:
                item["status"] = {}
        item["apiVersion"], item["kind"] = kind.api_version, kind.kind
        if dry_run:
            meta["resourceVersion"] = ""
            return item
        return await self._write(kind, namespace, name, item, None)

    async def replace(
        self, kind: Kind, namespace: str, name: str, item: Object, *, subresource: str = "", dry_run: bool = False
    ) -> Object:
        """Store an object's new content; what the caller may not change is kept from the old one.

        :raises ApiFault: 409 when ``metadata.resourceVersion`` is not the current one.
        """
        old = self.get(kind, namespace, name)
        asked = item.get("metadata", {}).get("resourceVersion")
        if asked and asked != old["metadata"]["resourceVersion"]:
            message = f'Operation cannot be fulfilled on {kind.resource} "{name}": the object has been modified; please apply your changes to the latest version and try again'
            raise ApiFault(409, "Conflict", message, {"name": name, "kind": kind.plural})
        new = _merged(kind, old, item, subresource)
        if _content(new) == _content(old):
            return old
        if dry_run:
            return new
        stored = await self._write(kind, namespace, name, new, old)
        if stored["metadata"].get("deletionTimestamp") and not stored["metadata"].get("finalizers"):
            return await self._remove(kind, namespace, name)
        return stored

    async def delete(self, kind: Kind, namespace: str, name: str, options: Object) -> Object:
        """Delete an object, or mark it while finalizers hold it.

        :raises ApiFault: 409 when a precondition does not hold.
        """
        old = self.get(kind, namespace, name)
        wanted = options.get("preconditions") or {}
        for field_ in ("uid", "resourceVersion"):
            if wanted.get(field_) and wanted[field_] != old["metadata"][field_]:
                message = f"Precondition failed: {field_.upper()} in precondition: {wanted[field_]}, {field_.upper()} in object meta: {old['metadata'][field_]}"
                raise ApiFault(409, "Conflict", message, {"name": name, "kind": kind.plural})
        if "All" in (options.get("dryRun") or ()):
            return old
        if old["metadata"].get("finalizers"):
            if old["metadata"].get("deletionTimestamp"):
                return old
            new = copy.deepcopy(old)
            new["metadata"]["deletionTimestamp"] = now()
            new["metadata"]["deletionGracePeriodSeconds"] = 0
            new["metadata"]["generation"] = int(new["metadata"].get("generation", 1)) + 1
            return await self._write(kind, namespace, name, new, old)
        return await self._remove(kind, namespace, name, orphan=options.get("propagationPolicy") == "Orphan")

    async def _remove(self, kind: Kind, namespace: str, name: str, *, orphan: bool = False) -> Object:
        old = self.objects.pop((kind.resource, namespace, name))
        gone = copy.deepcopy(old)
        self.version += 1
        gone["metadata"]["resourceVersion"] = str(self.version)
        self.db.execute(
            "DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", (kind.resource, namespace, name)
        )
        self._keep_version()
        await self._publish(Change(self.version, "DELETED", kind.resource, gone, old))
        if not orphan:
            await self._collect(old["metadata"]["uid"])
        if kind.resource == "namespaces":
            await self._empty(name)
        return gone

    async def _collect(self, owner: str) -> None:
        for (resource, namespace, name), item in list(self.objects.items()):
            owners = item["metadata"].get("ownerReferences") or ()
            if any(reference.get("uid") == owner for reference in owners):
                kind = self.by_resource(resource)
                if (resource, namespace, name) in self.objects:
                    await self.delete(kind, namespace, name, {})

    async def _empty(self, namespace: str) -> None:
        for resource, where, name in list(self.objects):
            if where == namespace and (resource, where, name) in self.objects:
                await self.delete(self.by_resource(resource), where, name, {})

    def by_resource(self, resource: str) -> Kind:
        """Return the kind of a ``plural.group``."""
        return next(kind for kind in self.kinds.values() if kind.resource == resource)

    async def _write(self, kind: Kind, namespace: str, name: str, item: Object, old: Object | None) -> Object:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        self.db.execute(
            "INSERT OR REPLACE INTO objects VALUES (?,?,?,?)", (kind.resource, namespace, name, json.dumps(item))
        )
        self._keep_version()
        self.objects[(kind.resource, namespace, name)] = item
        if kind.resource == "customresourcedefinitions.apiextensions.k8s.io":
            self.register_definition(item)
        await self._publish(Change(self.version, "MODIFIED" if old else "ADDED", kind.resource, item, old))
        return item

    def _keep_version(self) -> None:
        self.db.execute("INSERT OR REPLACE INTO meta VALUES ('version', ?)", (self.version,))

    async def _publish(self, change: Change) -> None:
        if len(self.history) == HISTORY:
            self.oldest = self.history[0].version
        self.history.append(change)
        async with self.changed:
            self.changed.notify_all()


def now() -> str:
    """The current time as Kubernetes writes it."""
    return dt.datetime.now(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def not_found(kind: Kind, name: str) -> ApiFault:
    """A 404 for an object."""
    details = {"name": name, "group": kind.group, "kind": kind.plural}
    return ApiFault(404, "NotFound", f'{kind.resource} "{name}" not found', details)


def _merged(kind: Kind, old: Object, item: Object, subresource: str) -> Object:
    new = copy.deepcopy(old)
    if subresource == "status":
        new["status"] = item.get("status", {})
        return new
    meta = {**item.get("metadata", {})}
    for name in ("uid", "creationTimestamp", "generation", "resourceVersion", "name", "namespace", "deletionTimestamp"):
        meta.pop(name, None)
        if name in old["metadata"]:
            meta[name] = old["metadata"][name]
    fresh = {key: value for key, value in item.items() if key not in ("metadata", "status")}
    new = {**fresh, "metadata": meta}
    if "status" in old:
        new["status"] = old["status"] if kind.status else item.get("status", old["status"])
    new["apiVersion"], new["kind"] = kind.api_version, kind.kind
    if {k: v for k, v in new.items() if k not in ("metadata", "status")} != {
        k: v for k, v in old.items() if k not in ("metadata", "status")
    }:
        meta["generation"] = int(old["metadata"].get("generation", 1)) + 1
    return new


def _content(item: Object) -> Object:
    meta = {key: value for key, value in item["metadata"].items() if key not in ("resourceVersion", "managedFields")}
    return {**item, "metadata": meta}
