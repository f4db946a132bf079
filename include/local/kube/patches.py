"""PATCH in its four forms, and what an apply creates."""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml

from include.local.kube import admission
from include.local.kube.admission import Options
from include.local.kube.apply import apply
from include.local.kube.clock import timestamp
from include.local.kube.cluster import Cluster
from include.local.kube.errors import ApiError, bad_request, not_found, unsupported_media_type
from include.local.kube.managed import Managers, leaves
from include.local.kube.patching import json_patch, merge_patch, strategic_patch
from include.local.kube.resources import Resource
from include.local.kube.store import Record
from include.local.kube.writing import Writer

Object = dict[str, Any]
JSON, MERGE, STRATEGIC, APPLY = (
    f"application/{kind}"
    for kind in ("json-patch+json", "merge-patch+json", "strategic-merge-patch+json", "apply-patch+yaml")
)
TYPES = (JSON, MERGE, STRATEGIC, APPLY)


def parse(content_type: str, body: bytes) -> Any:
    """Decode a patch.

    :raises ApiError: 415 for another content type, 400 when it does not parse.
    """
    if content_type not in TYPES:
        raise unsupported_media_type(TYPES)
    try:
        return yaml.safe_load(body) if content_type == APPLY else json.loads(body)
    except (ValueError, yaml.YAMLError) as error:
        raise bad_request(f"error decoding patch: {error}") from None


class Patcher:
    """Applies patches of one client."""

    def __init__(self, cluster: Cluster, options: Options) -> None:
        self._cluster = cluster
        self._options = options
        self._writer = Writer(cluster, options.manager, options)

    def patch(
        self, resource: Resource, key: tuple[str, str], content_type: str, patch: Any, subresource: str
    ) -> tuple[bool, Record]:
        """Change one object; returns whether it was created, and its new version.

        :param key: namespace and name.
        """
        old = self._cluster.store.get(resource.key, *key)
        if content_type == APPLY:
            return self._apply(resource, key, old, patch, subresource)
        if old is None:
            raise not_found(key[1], resource.plural, resource.group)
        if content_type == STRATEGIC and resource.custom:
            raise unsupported_media_type((JSON, MERGE, APPLY))
        changed = self._changed(resource, old.object, content_type, patch)
        item = admission.decode(resource, changed, key[0], self._options)
        if item["metadata"].get("name") != key[1]:
            raise bad_request("metadata.name: a patch cannot rename an object")
        return False, self._writer.replace(resource, old, item, subresource=subresource)

    def _changed(self, resource: Resource, old: Object, content_type: str, patch: Any) -> Any:
        if content_type == JSON:
            return json_patch(old, patch)
        if not isinstance(patch, dict):
            raise bad_request("a merge patch must be a JSON object")
        if content_type == MERGE:
            return copy.deepcopy(merge_patch(old, patch))
        return copy.deepcopy(strategic_patch(old, patch, resource.schema))

    def _apply(
        self, resource: Resource, key: tuple[str, str], old: Record | None, wanted: Any, subresource: str
    ) -> tuple[bool, Record]:
        if not isinstance(wanted, dict):
            raise bad_request("an apply configuration must be an object")
        wanted.setdefault("metadata", {}).setdefault("name", key[1])
        wanted = admission.decode(resource, wanted, key[0], self._options)
        if wanted["metadata"]["name"] != key[1]:
            raise bad_request("metadata.name: the applied name does not match the name on the URL")
        if old is None:
            if subresource or wanted["metadata"].get("uid"):
                raise not_found(key[1], resource.plural, resource.group)
            return True, self._create(resource, key[0], wanted)
        if wanted["metadata"].get("uid") not in (None, old.object["metadata"]["uid"]):
            raise ApiError(409, "Conflict", "uid mismatch: the applied uid is not that of the stored object")
        wanted["metadata"].pop("resourceVersion", None)
        merged = copy.deepcopy(
            apply(
                old.object,
                wanted,
                resource.schema,
                self._options.manager,
                force=self._options.force,
                subresource=subresource,
                now=timestamp(),
            )
        )
        return False, self._writer.replace(resource, old, merged, subresource=subresource, tracked=True)

    def _create(self, resource: Resource, namespace: str, wanted: Object) -> Record:
        applied = set(leaves(wanted, resource.schema))
        if resource.status:
            applied = {path for path in applied if path[0] != "f:status"}
        managers = Managers(None)
        managers.assign(self._options.manager, "Apply", "", applied, resource.api_version, timestamp())
        return self._writer.create(resource, namespace, wanted, managed=managers.entries())
