"""Get and list: selectors, pages, and the snapshot that all pages of one list share."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from include.local.kube.cluster import Cluster
from include.local.kube.errors import ApiError, bad_request
from include.local.kube.resources import Resource
from include.local.kube.selectors import Matcher, field_selector, label_selector
from include.local.kube.store import Record, require_version

Object = dict[str, Any]


@dataclass(frozen=True)
class Filter:
    """What of a collection a request is about."""

    namespace: str
    labels: Matcher
    fields: Matcher

    def matches(self, record: Record) -> bool:
        """Return whether a record belongs to the answer."""
        item = record.object
        if self.namespace and item["metadata"].get("namespace") != self.namespace:
            return False
        return self.labels(item["metadata"].get("labels", {})) and self.fields(item)


@dataclass(frozen=True)
class Page:
    """One answer to a list: the records, and where to go on."""

    records: list[Record]
    version: int
    proceed: str = ""
    remaining: int = 0


def filter_of(resource: Resource, namespace: str, name: str, query: Mapping[str, str]) -> Filter:
    """Read the selectors of a request."""
    fields = query.get("fieldSelector", "")
    if name:
        fields = f"{fields},metadata.name={name}" if fields else f"metadata.name={name}"
    return Filter(
        namespace,
        label_selector(query.get("labelSelector", "")),
        field_selector(fields, resource.selectable),
    )


def list_page(cluster: Cluster, resource: Resource, wanted: Filter, query: Mapping[str, str]) -> Page:
    """Return the objects of a collection, at most ``limit`` of them.

    :raises ApiError: 400 for a bad option, 410 when a continued list's snapshot is gone, 504 when the
        asked-for resource version is in the future.
    """
    store = cluster.store
    limit = _limit(query)
    token = query.get("continue", "")
    version, after = (store.revision, None) if not token else _read_token(token)
    if not token:
        version = _exact_version(cluster, query) or version
    records = (
        store.records(resource.key, wanted.namespace)
        if version == store.revision
        else store.records_at(resource.key, wanted.namespace, version)
    )
    matching = [record for record in records if (after is None or record.key > after) and wanted.matches(record)]
    if not limit or len(matching) <= limit:
        return Page(matching, version)
    page = matching[:limit]
    return Page(page, version, _write_token(version, page[-1].key), len(matching) - limit)


def _limit(query: Mapping[str, str]) -> int:
    text = query.get("limit") or "0"
    if not (text.isdigit() and text.isascii()):
        raise bad_request(f"limit: Invalid value: {text!r}")
    return int(text)


def _exact_version(cluster: Cluster, query: Mapping[str, str]) -> int | None:
    text = query.get("resourceVersion", "")
    if not text or text == "0":
        return None
    version = require_version(text)
    if version > cluster.store.revision:
        message = f"Too large resource version: {version}, current: {cluster.store.revision}"
        causes = [{"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]
        raise ApiError(504, "Timeout", message, {"causes": causes, "retryAfterSeconds": 1}, {"Retry-After": "1"})
    return version if query.get("resourceVersionMatch") == "Exact" else None


def _write_token(version: int, key: tuple[str, str]) -> str:
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": list(key)}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _read_token(token: str) -> tuple[int, tuple[str, str]]:
    try:
        value = json.loads(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)))
        namespace, name = value["start"]
        return int(value["rv"]), (str(namespace), str(name))
    except (ValueError, KeyError, TypeError):
        raise bad_request("continue key is not valid") from None
