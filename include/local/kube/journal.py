"""The state on disk: an SQLite file in write-ahead mode.

Every write is one committed transaction before it is acknowledged, so killing the process loses nothing. The
log is not synced to the device on every commit (``synchronous=NORMAL``): a power cut may lose the last moments,
but never consistency, which is enough for a development cluster and keeps a write below a millisecond.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_TABLES = """
CREATE TABLE IF NOT EXISTS objects (resource TEXT, namespace TEXT, name TEXT, data BLOB,
    PRIMARY KEY (resource, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS events (version INTEGER PRIMARY KEY, resource TEXT, type TEXT, data BLOB, previous BLOB);
CREATE INDEX IF NOT EXISTS events_by_resource ON events (resource, version);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
"""


@dataclass(frozen=True)
class Line:
    """One stored event: encoded objects, ``previous`` for a change or a deletion."""

    version: int
    resource: str
    type: str
    data: bytes
    previous: bytes | None


class Journal:
    """Objects, recent events and a few facts, in one file."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_TABLES)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def write(self, line: Line, namespace: str, name: str) -> None:
        """Commit one event together with the state that it leads to."""
        execute = self._connection.execute
        execute("BEGIN IMMEDIATE")
        try:
            key = (line.resource, namespace, name)
            if line.type == "DELETED":
                execute("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", key)
            else:
                execute("INSERT OR REPLACE INTO objects VALUES (?,?,?,?)", (*key, line.data))
            execute(
                "INSERT INTO events VALUES (?,?,?,?,?)",
                (line.version, line.resource, line.type, line.data, line.previous),
            )
            execute("COMMIT")
        except BaseException:
            # A full disk rolls back by itself, and a second rollback would hide its error.
            if self._connection.in_transaction:
                execute("ROLLBACK")
            raise

    def objects(self) -> Iterator[tuple[str, bytes]]:
        """Yield every object as (resource, encoded object)."""
        yield from self._connection.execute("SELECT resource, data FROM objects ORDER BY resource, namespace, name")

    def events(self) -> Iterator[Line]:
        """Yield the kept events, oldest first."""
        for row in self._connection.execute("SELECT * FROM events ORDER BY version"):
            yield Line(*row)

    def forget(self, resource: str, version: int) -> None:
        """Drop the events of a resource up to and including ``version``, and remember that they are gone."""
        self._connection.execute("DELETE FROM events WHERE resource=? AND version<=?", (resource, version))
        compacted = self.fact("compacted", {})
        compacted[resource] = max(version, compacted.get(resource, 0))
        self.set_fact("compacted", compacted)

    def fact(self, name: str, default: Any) -> Any:
        """Return a stored fact."""
        row = self._connection.execute("SELECT value FROM facts WHERE name=?", (name,)).fetchone()
        return json.loads(row[0]) if row else default

    def set_fact(self, name: str, value: Any) -> None:
        """Store a fact (any JSON value)."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?,?)", (name, json.dumps(value)))
