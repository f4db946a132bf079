"""Watch: an endless answer, one JSON event per line."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any

from include.local.kube.cluster import Cluster
from include.local.kube.errors import ApiError, bad_request
from include.local.kube.paths import flag
from include.local.kube.reading import Filter
from include.local.kube.resources import Resource
from include.local.kube.store import Event, Record, Watcher, encode, require_version

BOOKMARK_SECONDS = 60.0
_QUIET = Event(0, "", "QUIET", Record({}, b""), None)


def line(kind: str, data: bytes) -> bytes:
    """Return one event as it goes over the wire."""
    return b'{"type":"' + kind.encode() + b'","object":' + data + b"}\n"


def error_line(error: ApiError) -> bytes:
    """Return an ERROR event."""
    return line("ERROR", encode(error.status()))


def project(event: Event, wanted: Filter) -> tuple[str, Record] | None:
    """Return the event as a watcher with selectors sees it: an object that starts or stops matching is
    added or deleted for that watcher.
    """
    now = event.type != "DELETED" and wanted.matches(event.record)
    before = event.previous is not None and wanted.matches(event.previous)
    if now:
        return ("MODIFIED" if before else "ADDED"), event.record
    if not before or event.previous is None:
        return None
    if event.type == "DELETED":
        return "DELETED", event.record
    metadata = {**event.previous.object["metadata"], "resourceVersion": str(event.version)}
    gone = {**event.previous.object, "metadata": metadata}
    return "DELETED", Record(gone, encode(gone))


class Watch:
    """One watch request.

    :raises ApiError: 400 for a bad option, 410 for a resource version outside the history.
    """

    def __init__(self, cluster: Cluster, resource: Resource, wanted: Filter, query: Mapping[str, str]) -> None:
        self._cluster = cluster
        self._resource = resource
        self._wanted = wanted
        self._bookmarks = flag(query, "allowWatchBookmarks")
        self._ends = time.monotonic() + _timeout(query)
        self._initial_end = flag(query, "sendInitialEvents")
        if self._initial_end and query.get("resourceVersionMatch") != "NotOlderThan":
            raise bad_request(
                "resourceVersionMatch: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
            )
        text = query.get("resourceVersion", "")
        fresh = self._initial_end or text in ("", "0")
        if "sendInitialEvents" in query and not self._initial_end and text in ("", "0"):
            fresh, text = False, str(cluster.store.revision)
        self._start = cluster.store.records(resource.key, wanted.namespace) if fresh else []
        self._version = cluster.store.revision if fresh else require_version(text)
        since = None if fresh else self._version
        self._watcher, self._missed = cluster.store.subscribe(resource.key, since)

    @property
    def watcher(self) -> Watcher:
        """The subscription behind this watch."""
        return self._watcher

    def close(self) -> None:
        """Stop the subscription."""
        self._cluster.store.unsubscribe(self._watcher)

    async def lines(self) -> AsyncIterator[bytes]:
        """Yield events until the time is over or the stream is cut."""
        for record in self._start:
            if self._wanted.matches(record):
                yield line("ADDED", record.data)
        if self._initial_end and self._bookmarks:
            yield self._bookmark(initial=True)
        for text in [text for event in self._missed for text in self._project(event)]:
            yield text
        self._missed = []
        while time.monotonic() < self._ends:
            event = await self._next()
            if event is None:
                return
            for text in self._told(event):
                yield text

    def _told(self, event: Event) -> list[bytes]:
        if event is _QUIET:
            return [self._bookmark()] if self._bookmarks else []
        return self._project(event)

    async def _next(self) -> Event | None:
        """Return the next event, ``_QUIET`` when a bookmark is due or the time is over, ``None`` when cut."""
        patience = min(self._ends - time.monotonic(), BOOKMARK_SECONDS)
        try:
            return await asyncio.wait_for(self._watcher.queue.get(), max(0.0, patience))
        except TimeoutError:
            return _QUIET

    def _project(self, event: Event) -> list[bytes]:
        self._version = max(self._version, event.version)
        seen = project(event, self._wanted)
        return [line(seen[0], seen[1].data)] if seen else []

    def _bookmark(self, *, initial: bool = False) -> bytes:
        """A bookmark: everything up to this version has been sent."""
        if self._watcher.queue.empty():
            self._version = max(self._version, self._cluster.store.revision)
        metadata: dict[str, Any] = {"resourceVersion": str(self._version), "creationTimestamp": None}
        if initial:
            metadata["annotations"] = {"k8s.io/initial-events-end": "true"}
        item = {"kind": self._resource.kind, "apiVersion": self._resource.api_version, "metadata": metadata}
        return line("BOOKMARK", encode(item))


def _timeout(query: Mapping[str, str]) -> float:
    text = query.get("timeoutSeconds") or "0"
    if not (text.isdigit() and text.isascii()):
        raise bad_request(f"timeoutSeconds: Invalid value: {text!r}")
    return int(text) or random.uniform(1800, 3600)
