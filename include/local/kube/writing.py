"""Create and update, with the rules that protect status, identity, generation and concurrent writers."""

from __future__ import annotations

import copy
import uuid
from typing import Any

from include.local.kube import admission, kinds, metadata
from include.local.kube.admission import Options
from include.local.kube.apply import track_update
from include.local.kube.clock import suffix, timestamp
from include.local.kube.cluster import Cluster
from include.local.kube.definitions import established
from include.local.kube.errors import ApiError, already_exists, bad_request, forbidden, not_found, stale
from include.local.kube.resources import Resource
from include.local.kube.store import Record, encode

Object = dict[str, Any]
_KEEPS_STATUS = frozenset({"Node"})  # the kubelet registers with a status


class Writer:
    """Writes of one client to one cluster.

    :param manager: name under which written fields are recorded.
    """

    def __init__(self, cluster: Cluster, manager: str, options: Options | None = None) -> None:
        self._cluster = cluster
        self._manager = manager
        self._options = options or Options(manager=manager, field_validation="Ignore")

    def create(self, resource: Resource, namespace: str, body: Any, *, managed: list[Object] | None = None) -> Record:
        """Store a new object.

        :param managed: the managed fields, when an apply already decided them.
        :raises ApiError: 400, 403, 404, 409 or 422 as a Kubernetes API server does.
        """
        item = admission.decode(resource, body, namespace, self._options)
        meta = item["metadata"]
        if meta.get("resourceVersion"):
            raise bad_request("resourceVersion should not be set on objects to be created")
        self._require_namespace(resource, namespace)
        for field in metadata.SERVER_OWNED:
            meta.pop(field, None)
        meta.pop("managedFields", None)
        self._name(resource, meta, namespace)
        meta["uid"] = str(uuid.uuid4())
        meta["creationTimestamp"] = timestamp()
        if resource.generation:
            meta["generation"] = 1
        self._initial_status(resource, item)
        admission.complete(resource, item)
        admission.check(resource, item)
        if resource.kind == "CustomResourceDefinition":
            meta["finalizers"] = ["customresourcecleanup.apiextensions.k8s.io"]
            item["status"] = established(item, timestamp())
        if self._cluster.store.get(resource.key, namespace, meta["name"]):
            raise already_exists(meta["name"], resource.plural, resource.group)
        if managed is None:
            self._track(resource, None, item, "")
        else:
            meta["managedFields"] = managed
        return self._commit(resource, item)

    def _require_namespace(self, resource: Resource, namespace: str) -> None:
        if not resource.namespaced:
            return
        found = self._cluster.store.get("/namespaces", "", namespace)
        if found is None:
            raise not_found(namespace, "namespaces")
        if found.object["metadata"].get("deletionTimestamp"):
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            raise forbidden("", resource.plural, resource.group, why)

    def _name(self, resource: Resource, meta: Object, namespace: str) -> None:
        prefix = meta.get("generateName")
        if meta.get("name") or not prefix:
            return
        name = prefix[:58] + suffix()
        while self._cluster.store.get(resource.key, namespace, name):
            name = prefix[:58] + suffix()
        meta["name"] = name

    def _initial_status(self, resource: Resource, item: Object) -> None:
        if not resource.status or (resource.kind in _KEEPS_STATUS and item.get("status")):
            return
        item.pop("status", None)
        if not resource.custom:
            item["status"] = copy.deepcopy(kinds.INITIAL_STATUS.get(resource.kind, {}))

    def update(self, resource: Resource, namespace: str, name: str, body: Any, *, subresource: str = "") -> Record:
        """Replace an object (or only its status); an unchanged object is not written at all.

        :raises ApiError: 400, 404, 409 or 422 as a Kubernetes API server does.
        """
        item = admission.decode(resource, body, namespace, self._options)
        if item["metadata"].setdefault("name", name) != name:
            raise bad_request(
                f"the name of the object ({item['metadata']['name']}) does not match the name on the URL ({name})"
            )
        old = self.current(resource, namespace, name)
        return self.replace(resource, old, item, subresource=subresource)

    def current(self, resource: Resource, namespace: str, name: str) -> Record:
        """Return the stored object.

        :raises ApiError: 404 when there is none.
        """
        found = self._cluster.store.get(resource.key, namespace, name)
        if found is None:
            raise not_found(name, resource.plural, resource.group)
        return found

    def replace(
        self, resource: Resource, old: Record, item: Object, *, subresource: str = "", tracked: bool = False
    ) -> Record:
        """Store ``item`` in place of ``old``; both are decoded objects of the same name.

        :param tracked: ``item`` already carries its managed fields (server-side apply).
        """
        meta, before = item["metadata"], old.object
        self._check_preconditions(resource, meta, before["metadata"])
        if subresource == "status":
            item = _only_status(before, item)
        elif resource.status:
            item.pop("status", None)
            if "status" in before:
                item["status"] = before["status"]
        causes = metadata.carry_over(before["metadata"], item["metadata"])
        admission.complete(resource, item)
        admission.check(resource, item, causes)
        causes = kinds.check_change(resource, before, item)
        if causes:
            raise admission.invalid(resource, item["metadata"]["name"], causes)
        if resource.generation and not subresource and _spec_of(before) != _spec_of(item):
            item["metadata"]["generation"] = before["metadata"].get("generation", 0) + 1
        if not tracked:
            self._track(resource, before, item, subresource)
        if _same(before, item):
            return old
        if _finished(resource, item):
            return self._remove(resource, old, item)
        return self._commit(resource, item)

    def _check_preconditions(self, resource: Resource, meta: Object, before: Object) -> None:
        wanted = meta.get("resourceVersion")
        if wanted and wanted != before["resourceVersion"]:
            raise stale(before["name"], resource.plural, resource.group)
        if meta.get("uid") and meta["uid"] != before["uid"]:
            why = f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before['uid']}"
            raise ApiError(
                409, "Conflict", f'Operation cannot be fulfilled on {resource.plural} "{before["name"]}": {why}',
                {"name": before["name"], "group": resource.group, "kind": resource.plural},
            )  # fmt: skip

    def _track(self, resource: Resource, before: Object | None, item: Object, subresource: str) -> None:
        track_update(before, item, resource.schema, self._manager, subresource, resource.api_version, timestamp())

    def _commit(self, resource: Resource, item: Object) -> Record:
        if self._options.dry_run:
            return Record(item, encode(item))
        return self._cluster.store.write(resource.key, item)

    def _remove(self, resource: Resource, old: Record, item: Object) -> Record:
        """The last finalizer is gone: the object goes with it."""
        if self._options.dry_run:
            return Record(item, encode(item))
        return self._cluster.store.remove(resource.key, Record(item, old.data))


def _only_status(before: Object, item: Object) -> Object:
    """Return the old object with the new status; a status write changes nothing else."""
    result = copy.deepcopy(before)
    result.pop("status", None)
    if "status" in item:
        result["status"] = item["status"]
    return result


def _spec_of(item: Object) -> Object:
    return {key: value for key, value in item.items() if key not in ("metadata", "status")}


def _same(before: Object, item: Object) -> bool:
    """Return whether nothing but the managers' times differs."""

    def plain(value: Object) -> Object:
        meta = dict(value["metadata"])
        meta["managedFields"] = [
            {key: part for key, part in entry.items() if key != "time"} for entry in meta.get("managedFields", ())
        ]
        return {**value, "metadata": meta}

    return plain(before) == plain(item)


def _finished(resource: Resource, item: Object) -> bool:
    meta = item["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers"):
        return False
    if resource.kind == "Namespace":
        return not item.get("spec", {}).get("finalizers")
    return not meta.get("deletionGracePeriodSeconds")
