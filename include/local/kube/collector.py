"""Background deletion: dependents of deleted owners, the content of namespaces, objects of removed definitions.

Runs only when something changed: an idle server does not wake up.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

from include.local.kube.cluster import Cluster
from include.local.kube.deleting import FOREGROUND, ORPHAN, DeleteOptions, delete
from include.local.kube.registry import CRD_KEY
from include.local.kube.resources import Resource
from include.local.kube.store import Event, Record

log = logging.getLogger(__name__)
Object = dict[str, Any]
_NAMESPACES = "/namespaces"


class Collector:
    """Follows every commit and finishes deletions."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._dirty: asyncio.Queue[tuple[str, Record, bool]] = asyncio.Queue()
        self._dependents: dict[str, set[tuple[str, str, str]]] = {}
        self._owned: dict[tuple[str, str, str], tuple[str, ...]] = {}

    def start(self) -> None:
        """Index what is stored and look at all of it once."""
        for resource, record in self._cluster.store.all_records():
            self._index(resource, record, gone=False)
            self._dirty.put_nowait((resource, record, False))
        self._cluster.store.listen(self._on_event)

    def _on_event(self, event: Event) -> None:
        gone = event.type == "DELETED"
        self._index(event.resource, event.record, gone=gone)
        meta = event.record.object["metadata"]
        new_owners = event.type == "ADDED" and meta.get("ownerReferences")
        if gone or new_owners or meta.get("deletionTimestamp"):
            self._dirty.put_nowait((event.resource, event.record, gone))

    def _index(self, resource: str, record: Record, *, gone: bool) -> None:
        key = (resource, *record.key)
        references = () if gone else record.object["metadata"].get("ownerReferences", ())
        owners = tuple(reference["uid"] for reference in references)
        for uid in self._owned.pop(key, ()):
            group = self._dependents.get(uid, set())
            group.discard(key)
            if not group:
                self._dependents.pop(uid, None)
        if owners:
            self._owned[key] = owners
            for uid in owners:
                self._dependents.setdefault(uid, set()).add(key)

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            resource, record, gone = await self._dirty.get()
            try:
                self._handle(resource, record, gone)
            except Exception:
                log.exception("collecting %s %s failed", resource, record.key)
            await asyncio.sleep(0)

    def _handle(self, key: str, record: Record, gone: bool) -> None:
        resource = self._cluster.registry.by_key(key)
        meta = record.object["metadata"]
        if gone:
            self._owner_gone(meta["uid"])
            self._content_gone(key, meta)
            return
        current = self._cluster.store.get(key, *record.key)
        if current is None or resource is None or current.object["metadata"]["uid"] != meta["uid"]:
            return
        if current.object["metadata"].get("deletionTimestamp"):
            self._finish(resource, current)
        elif meta.get("ownerReferences"):
            self._drop_if_ownerless(key, current)

    def _finish(self, resource: Resource, record: Record) -> None:
        finalizers = record.object["metadata"].get("finalizers", ())
        if ORPHAN in finalizers:
            self._orphan(record)
            self._release(resource, record, ORPHAN)
        elif FOREGROUND in finalizers and not self._delete_blocking(record):
            self._release(resource, record, FOREGROUND)
        elif resource.key == _NAMESPACES:
            self._empty_namespace(resource, record)
        elif resource.key == CRD_KEY:
            self._empty_definition(resource, record)

    def _release(self, resource: Resource, record: Record, finalizer: str) -> None:
        """Remove a finalizer; the object goes with its last one."""
        current = self._cluster.store.get(resource.key, *record.key)
        if current is None:
            return
        meta = dict(current.object["metadata"])
        meta["finalizers"] = [name for name in meta.get("finalizers", ()) if name != finalizer]
        item = {**current.object, "metadata": meta}
        if meta["finalizers"] or meta.get("deletionGracePeriodSeconds"):
            self._cluster.store.write(resource.key, item)
            return
        del meta["finalizers"]
        self._cluster.store.remove(resource.key, Record(item, current.data))

    def _dependents_of(self, uid: str) -> list[tuple[str, Record]]:
        found = []
        for resource, namespace, name in sorted(self._dependents.get(uid, ())):
            record = self._cluster.store.get(resource, namespace, name)
            if record:
                found.append((resource, record))
        return found

    def _orphan(self, owner: Record) -> None:
        uid = owner.object["metadata"]["uid"]
        for resource, record in self._dependents_of(uid):
            self._drop_references(resource, record, {uid})

    def _drop_references(self, resource: str, record: Record, uids: set[str]) -> None:
        meta = dict(record.object["metadata"])
        kept = [item for item in meta["ownerReferences"] if item["uid"] not in uids]
        meta["ownerReferences"] = kept
        if not kept:
            del meta["ownerReferences"]
        self._cluster.store.write(resource, {**record.object, "metadata": meta})

    def _delete_blocking(self, owner: Record) -> bool:
        """Delete dependents; return whether any that blocks its owner still exists."""
        uid = owner.object["metadata"]["uid"]
        waiting = False
        for key, record in self._dependents_of(uid):
            references = record.object["metadata"]["ownerReferences"]
            blocks = any(item["uid"] == uid and item.get("blockOwnerDeletion") for item in references)
            gone = self._delete(key, record, "Foreground" if blocks else "Background")
            waiting = waiting or (blocks and not gone)
        return waiting

    def _delete(self, key: str, record: Record, policy: str | None = None) -> bool:
        resource = self._cluster.registry.by_key(key)
        if resource is None:
            self._cluster.store.remove(key, record)
            return True
        if record.object["metadata"].get("deletionTimestamp"):
            return False
        gone, _ = delete(self._cluster, resource, record, DeleteOptions(policy=policy))
        return gone

    def _owner_gone(self, uid: str) -> None:
        for key, record in self._dependents_of(uid):
            self._drop_if_ownerless(key, record)

    def _drop_if_ownerless(self, key: str, record: Record) -> None:
        """Delete an object none of whose owners exists; forget those that are gone when others remain."""
        references = record.object["metadata"].get("ownerReferences", ())
        namespace = record.key[0]
        missing = {item["uid"] for item in references if not self._exists(item, namespace)}
        if not missing:
            return
        if len(missing) < len(references):
            self._drop_references(key, record, missing)
        else:
            self._delete(key, record, "Background")

    def _exists(self, reference: Object, namespace: str) -> bool:
        resource = self._cluster.registry.by_kind(reference["apiVersion"], reference["kind"])
        if resource is None:
            return False
        where = namespace if resource.namespaced else ""
        found = self._cluster.store.get(resource.key, where, reference["name"])
        return found is not None and found.object["metadata"]["uid"] == reference["uid"]

    def _content_gone(self, key: str, meta: Object) -> None:
        """An object is gone: its owner, namespace or definition may have waited for that."""
        store = self._cluster.store
        waiting: list[tuple[str, Record | None]] = [
            (_NAMESPACES, store.get(_NAMESPACES, "", meta.get("namespace", "")))
        ]
        group, _, plural = key.partition("/")
        waiting.append((CRD_KEY, store.get(CRD_KEY, "", f"{plural}.{group}")))
        for reference in meta.get("ownerReferences", ()):
            owner = self._cluster.registry.by_kind(reference["apiVersion"], reference["kind"])
            if owner:
                where = meta.get("namespace", "") if owner.namespaced else ""
                waiting.append((owner.key, store.get(owner.key, where, reference["name"])))
        for resource, record in waiting:
            if record and record.object["metadata"].get("deletionTimestamp"):
                self._dirty.put_nowait((resource, record, False))

    def _empty_namespace(self, resource: Resource, record: Record) -> None:
        name = record.object["metadata"]["name"]
        content = [(key, item) for key, item in self._cluster.store.all_records() if item.key[0] == name]
        remaining = sum(not self._delete(key, item) for key, item in content)
        if remaining or not record.object["spec"].get("finalizers"):
            return
        current = self._cluster.store.get(resource.key, "", name)
        if current is None:
            return
        item = {**current.object, "metadata": dict(current.object["metadata"]), "spec": {}}
        if item["metadata"].get("finalizers"):
            self._cluster.store.write(resource.key, item)
        else:
            self._cluster.store.remove(resource.key, Record(item, current.data))

    def _empty_definition(self, resource: Resource, record: Record) -> None:
        spec = record.object["spec"]
        content = self._cluster.store.records(f"{spec['group']}/{spec['names']['plural']}")
        remaining = sum(not self._delete(f"{spec['group']}/{spec['names']['plural']}", item) for item in content)
        finalizers = record.object["metadata"].get("finalizers", ())
        if not remaining and finalizers:
            self._release(resource, record, finalizers[0])
