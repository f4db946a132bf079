"""The query index: Parquet segments beside the store, read by DuckDB; rebuilt from the store at any time.

A refresh reads only what the markers name (:mod:`include.results.pending`), so its cost follows what is new. Rows
whose marker is younger than ``SETTLE`` stay in memory: the file that it names may still be under way.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import io
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.errors import IntegrityError
from include.results.journal import RunJournal
from include.results.pending import Kind, Marker, pending
from include.results.rows import result_row, result_schema, run_row, run_schema, table
from include.results.store import ResultsStore

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

SETTLE = dt.timedelta(seconds=60)
LOST = dt.timedelta(hours=1)
SEGMENTS = "index/segments"
MOST_SEGMENTS = 32
KINDS: tuple[Kind, ...] = ("results", "runs")
_IDENTITY = {"results": "result_id", "runs": "run_path"}
_ORDER = {"results": "started_at DESC", "runs": "ended_at DESC, absent IS NULL"}
_UPSERT = """
BEGIN;
CREATE TABLE IF NOT EXISTS {kind} AS SELECT * FROM incoming LIMIT 0;
CREATE OR REPLACE TEMP TABLE newest AS
  SELECT * FROM (
    SELECT * FROM incoming
    UNION ALL BY NAME SELECT * FROM {kind} WHERE {identity} IN (SELECT {identity} FROM incoming)
  ) QUALIFY row_number() OVER (PARTITION BY {identity} ORDER BY {order}) = 1;
DELETE FROM {kind} WHERE {identity} IN (SELECT {identity} FROM newest);
INSERT INTO {kind} SELECT * FROM newest;
DROP TABLE newest;
COMMIT;
"""


@dataclass
class Index:
    """Tables ``results`` and ``runs`` of a store, in memory, for any number of reading threads.

    :param problems: files that could not be read, one sentence each, since the last :meth:`refresh`.
    """

    store: ResultsStore
    problems: list[str] = field(default_factory=list)
    _loaded: dict[Kind, set[str]] = field(default_factory=dict)
    _connection: duckdb.DuckDBPyConnection | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def refresh(self, *, write: bool = True) -> None:
        """Take in what is new.

        :param write: also turn settled rows into a segment and remove their markers; a reader without the right
            to write passes ``False``.
        """
        with self._lock:
            self.problems.clear()
            for kind in KINDS:
                fresh, settled = self._fresh(kind)
                if write and settled:
                    self._write_segment(kind, [row for marker, row in fresh if marker in settled])
                    for marker in settled:
                        self.store.objects.delete(marker.path)
                    fresh = [(marker, row) for marker, row in fresh if marker not in settled]
                if write:
                    self._compact(kind)
                self._load(kind, [row for _, row in fresh])

    def rebuild(self) -> None:
        """Write the index again from every file of the store; the old segments go last."""
        with self._lock:
            self.problems.clear()
            for kind in KINDS:
                old = self._segments(kind)
                paths = self.store.result_paths() if kind == "results" else self.store.record_paths()
                rows = [row for row in self._read_all(kind, paths) if row is not None]
                kept = self._write_segment(kind, rows) if rows else ""
                for path in old:
                    if path != kept:
                        self.store.objects.delete(path)
                for marker in list(pending(self.store.objects, kind)):
                    self.store.objects.delete(marker.path)
                self._load(kind, [])

    def query(self, sql: str, parameters: Sequence[Any] | dict[str, Any] | None = None) -> list[dict[str, Any]]:
        """Run SQL over ``results`` and ``runs``; values only through ``parameters`` (``?`` or ``$name``).

        Times come as UTC. Loads the index on first use, without writing to the store.
        """
        cursor = self.connection().cursor()
        found = cursor.execute(sql, parameters) if parameters else cursor.execute(sql)
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]

    def connection(self) -> duckdb.DuckDBPyConnection:
        """Return the DuckDB connection; take a ``cursor()`` of it per thread."""
        if self._connection is None or not self._loaded:
            self.refresh(write=False)
        return self._duckdb()

    def _duckdb(self) -> duckdb.DuckDBPyConnection:
        if self._connection is None:
            import duckdb

            self._connection = duckdb.connect(":memory:", config={"threads": 2, "enable_external_access": False})
        return self._connection

    def _fresh(self, kind: Kind) -> tuple[list[tuple[Marker, dict[str, Any]]], set[Marker]]:
        now = dt.datetime.now(dt.UTC)
        markers = list(pending(self.store.objects, kind))
        rows = self._read_all(kind, (marker.target for marker in markers))
        fresh = [(marker, row) for marker, row in zip(markers, rows, strict=True) if row is not None]
        settled = {marker for marker, _ in fresh if now - marker.written_at > SETTLE}
        for marker, row in zip(markers, rows, strict=True):
            if row is None and now - marker.written_at > LOST and self.store.objects.head(marker.target) is None:
                self.store.objects.delete(marker.path)
        return fresh, settled

    def _read_all(self, kind: Kind, paths: Iterable[str]) -> list[dict[str, Any] | None]:
        read = self._result if kind == "results" else self._run
        with ThreadPoolExecutor(16) as pool:
            return list(pool.map(lambda path: self._guarded(read, path), paths))

    def _guarded(self, read: Callable[[str], dict[str, Any] | None], path: str) -> dict[str, Any] | None:
        """One file that cannot be read must not hide the others; it is told, never skipped in silence."""
        try:
            return read(path)
        except IntegrityError as error:
            self.problems.append(error.message.splitlines()[0])
            return None

    def _result(self, path: str) -> dict[str, Any] | None:
        try:
            return result_row(self.store.result(path), path)
        except FileNotFoundError:
            return None

    def _run(self, path: str) -> dict[str, Any] | None:
        record = self.store.record(path)
        if record is None:
            return None
        return run_row(record, path, RunJournal(self.store.objects, record.run).read_teardown())

    def _segments(self, kind: Kind) -> list[str]:
        return sorted(info.path for info in self.store.objects.list(f"{SEGMENTS}/{kind}"))

    def _write_segment(self, kind: Kind, rows: list[dict[str, Any]]) -> str:
        return self._put_segment(kind, table(rows, _schema(kind)))

    def _put_segment(self, kind: Kind, content: pa.Table) -> str:
        import pyarrow.parquet as pq

        buffer = io.BytesIO()
        pq.write_table(content, buffer, compression="zstd")
        data = buffer.getvalue()
        path = f"{SEGMENTS}/{kind}/{hashlib.sha256(data).hexdigest()[:32]}.parquet"
        self.store.objects.put(path, data)
        return path

    def _compact(self, kind: Kind) -> None:
        """Merge segments when there are many."""
        paths = self._segments(kind)
        if len(paths) <= MOST_SEGMENTS:
            return
        import pyarrow as pa

        parts = [part for path in paths if (part := self._segment(kind, path)) is not None]
        merged = self._put_segment(kind, pa.concat_tables(parts))
        for path in paths:
            if path != merged:
                self.store.objects.delete(path)

    def _segment(self, kind: Kind, path: str) -> pa.Table | None:
        """Return a segment, ``None`` when a compaction took it; its rows are then in another.

        :raises IntegrityError: it is not what was written.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        data = self.store.objects.get(path)
        try:
            return None if data is None else _conform(pq.read_table(io.BytesIO(data)), _schema(kind))
        except (pa.ArrowException, OSError) as error:
            raise IntegrityError(
                "IndexUnreadable",
                f"{self.store.objects.url(path)}: {str(error).splitlines()[0]}",
                fix="make the index again from the results: `python -m include.results reindex`",
            ) from error

    def _load(self, kind: Kind, rows: list[dict[str, Any]]) -> None:
        """Take new segments and rows into the DuckDB table; one row per identity remains, the newest."""
        import pyarrow as pa

        seen = self._loaded.setdefault(kind, set())
        parts = [table(rows, _schema(kind))]
        while new := [path for path in self._segments(kind) if path not in seen]:
            for path in new:
                found = self._segment(kind, path)
                if found is not None:
                    parts.append(found)
                seen.add(path)
        content = pa.concat_tables(parts)
        cursor = self._duckdb().cursor()
        cursor.register("incoming", content)
        cursor.execute(_UPSERT.format(kind=kind, identity=_IDENTITY[kind], order=_ORDER[kind]))
        cursor.unregister("incoming")


def _schema(kind: Kind) -> pa.Schema:
    return result_schema() if kind == "results" else run_schema()


def _conform(found: pa.Table, schema: pa.Schema) -> pa.Table:
    """Fit a segment that an older version wrote: a column that it lacks is null."""
    import pyarrow as pa

    columns = [
        found[item.name].cast(item.type) if item.name in found.column_names else pa.nulls(found.num_rows, item.type)
        for item in schema
    ]
    return pa.Table.from_arrays(columns, schema=schema)
