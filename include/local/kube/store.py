"""All objects in memory, one revision counter, the recent history, and those who wait for changes."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from include.local.kube.errors import ApiError, expired
from include.local.kube.journal import Journal, Line

Object = dict[str, Any]
Key = tuple[str, str]
HISTORY = 2000
WATCH_BACKLOG = 10_000


@dataclass(frozen=True)
class Record:
    """One version of one object, decoded (never modified) and encoded."""

    object: Object
    data: bytes

    @property
    def version(self) -> int:
        """Its resource version."""
        return int(self.object["metadata"]["resourceVersion"])

    @property
    def key(self) -> Key:
        """Namespace and name."""
        metadata = self.object["metadata"]
        return metadata.get("namespace", ""), metadata["name"]


@dataclass(frozen=True)
class Event:
    """A change: ``type`` is ADDED, MODIFIED or DELETED."""

    version: int
    resource: str
    type: str
    record: Record
    previous: Record | None


class Watcher:
    """A subscription to one resource's events; ``None`` in the queue means: the stream was cut."""

    def __init__(self, resource: str) -> None:
        self.resource = resource
        self.queue: asyncio.Queue[Event | None] = asyncio.Queue()

    def push(self, event: Event | None) -> None:
        """Hand over an event; a reader that is far behind is cut off instead of filling the memory."""
        if self.queue.qsize() > WATCH_BACKLOG:
            event = None
        self.queue.put_nowait(event)


def encode(item: Object) -> bytes:
    """Return the JSON text of an object."""
    return json.dumps(item, separators=(",", ":"), ensure_ascii=False).encode()


class Store:
    """The state of the cluster. Single-threaded: everything happens in the event loop's thread.

    :param history: events kept per resource for watches that resume.
    """

    def __init__(self, journal: Journal, history: int = HISTORY) -> None:
        self._journal = journal
        self._history_limit = history
        self._objects: dict[str, dict[Key, Record]] = {}
        self._events: dict[str, deque[Event]] = {}
        self._compacted: dict[str, int] = dict(journal.fact("compacted", {}))
        self._watchers: dict[str, set[Watcher]] = {}
        self._listeners: list[Callable[[Event], None]] = []
        self._unpruned: dict[str, int] = {}
        self.revision = 1
        self._load()

    def _load(self) -> None:
        self.revision = max([self.revision, *self._compacted.values()])
        for resource, data in self._journal.objects():
            record = Record(json.loads(data), data)
            self._objects.setdefault(resource, {})[record.key] = record
            self.revision = max(self.revision, record.version)
        for line in self._journal.events():
            previous = Record(json.loads(line.previous), line.previous) if line.previous else None
            record = Record(json.loads(line.data), line.data)
            event = Event(line.version, line.resource, line.type, record, previous)
            self._events.setdefault(line.resource, deque()).append(event)
            self.revision = max(self.revision, line.version)

    def get(self, resource: str, namespace: str, name: str) -> Record | None:
        """Return the current version of an object."""
        return self._objects.get(resource, {}).get((namespace, name))

    def records(self, resource: str, namespace: str = "") -> list[Record]:
        """Return the current objects, of one namespace when given, sorted by namespace and name."""
        found = self._objects.get(resource, {})
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def all_records(self) -> Iterator[tuple[str, Record]]:
        """Yield every object with its resource key."""
        for resource, found in list(self._objects.items()):
            for record in list(found.values()):
                yield resource, record

    def records_at(self, resource: str, namespace: str, version: int) -> list[Record]:
        """Return the objects as they were at an older revision.

        :raises ApiError: 410 when the history does not reach that far.
        """
        self._require_history(resource, version)
        found = dict(self._objects.get(resource, {}))
        for event in reversed(self._events.get(resource, ())):
            if event.version <= version:
                break
            found.pop(event.record.key, None)
            if event.previous:
                found[event.previous.key] = event.previous
        return [found[key] for key in sorted(found) if not namespace or key[0] == namespace]

    def write(self, resource: str, item: Object) -> Record:
        """Store a new or changed object under the next revision; takes ownership of ``item``."""
        metadata = item["metadata"]
        previous = self.get(resource, metadata.get("namespace", ""), metadata["name"])
        return self._commit(resource, "MODIFIED" if previous else "ADDED", item, previous)

    def remove(self, resource: str, record: Record) -> Record:
        """Delete an object; its last version carries the revision of the deletion."""
        item = {**record.object, "metadata": dict(record.object["metadata"])}
        return self._commit(resource, "DELETED", item, record)

    def _commit(self, resource: str, kind: str, item: Object, previous: Record | None) -> Record:
        revision = self.revision + 1
        item["metadata"]["resourceVersion"] = str(revision)
        record = Record(item, encode(item))
        line = Line(revision, resource, kind, record.data, previous.data if previous else None)
        self._journal.write(line, *record.key)
        self.revision = revision
        found = self._objects.setdefault(resource, {})
        if kind == "DELETED":
            del found[record.key]
        else:
            found[record.key] = record
        self._publish(Event(revision, resource, kind, record, previous))
        return record

    def _publish(self, event: Event) -> None:
        events = self._events.setdefault(event.resource, deque())
        events.append(event)
        if len(events) > self._history_limit:
            self._compacted[event.resource] = events.popleft().version
            self._unpruned[event.resource] = self._unpruned.get(event.resource, 0) + 1
            if self._unpruned[event.resource] >= 500:
                self._unpruned[event.resource] = 0
                self._journal.forget(event.resource, self._compacted[event.resource])
        for watcher in self._watchers.get(event.resource, ()):
            watcher.push(event)
        for listener in self._listeners:
            listener(event)

    def listen(self, listener: Callable[[Event], None]) -> None:
        """Call ``listener`` after every commit."""
        self._listeners.append(listener)

    def subscribe(self, resource: str, since: int | None) -> tuple[Watcher, list[Event]]:
        """Start watching; return the watcher and the events after ``since`` that already happened.

        :raises ApiError: 410 when ``since`` is older than the history, or newer than the present.
        """
        missed: list[Event] = []
        if since is not None:
            self._require_history(resource, since)
            if since > self.revision:
                raise expired(f"too large resource version: {since}, current: {self.revision}")
            missed = [event for event in self._events.get(resource, ()) if event.version > since]
        watcher = Watcher(resource)
        self._watchers.setdefault(resource, set()).add(watcher)
        return watcher, missed

    def unsubscribe(self, watcher: Watcher) -> None:
        """Stop watching."""
        self._watchers.get(watcher.resource, set()).discard(watcher)

    def _require_history(self, resource: str, version: int) -> None:
        oldest = self._compacted.get(resource, 0)
        if version < oldest:
            raise expired(f"too old resource version: {version} ({oldest})")

    def compact(self) -> int:
        """Forget all history now; returns the revision up to which it is gone."""
        for resource in {*self._objects, *self._events}:
            self._compacted[resource] = self.revision
            self._journal.forget(resource, self.revision)
            self._events.pop(resource, None)
        return self.revision

    def cut_watches(self) -> int:
        """End every open watch; returns how many there were."""
        watchers = [watcher for group in self._watchers.values() for watcher in group]
        for watcher in watchers:
            watcher.push(None)
        return len(watchers)


def require_version(text: str) -> int:
    """Parse a resource version of a query.

    :raises ApiError: 400 when it is not a number.
    """
    if not (text.isdigit() and text.isascii()):
        raise ApiError(400, "BadRequest", f"resourceVersion: Invalid value: {text!r}: must be a decimal number")
    return int(text)
