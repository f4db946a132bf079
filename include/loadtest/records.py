"""Per-request records as Parquet: the truth of a run, from which every statistic can be computed again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from include.errors import ConfigurationError, IntegrityError
from include.loadtest.spool import HEALTH, META, ROW, SUMMARY, Row, read_spool

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

RECORDS = "requests.parquet"
METADATA_KEY = b"hyperpod.loadtest"
SCHEMA_VERSION = 1

# Times are Unix ns (one clock for all workers and for scraped metrics); null: it never happened or is unknown.
_TIMES = ("scheduled", "ready", "sent", "first_byte", "first_token", "last_token", "end")
_COUNTS = ("input_tokens", "output_tokens", "cached_tokens", "asked_input", "asked_output")


def schema() -> pa.Schema:
    """Return the columns of a record file."""
    import pyarrow as pa

    texts, dictionary = pa.string(), pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("request_id", texts),
            ("worker", pa.int32()),
            ("index", pa.int64()),
            ("phase", dictionary),
            ("arm", dictionary),
            ("session", pa.int64()),
            ("turn", pa.int32()),
            ("group", pa.int32()),
            ("prompt", pa.int32()),
            *((f"{name}_ns", pa.int64()) for name in _TIMES),
            ("chunk_offsets_ns", pa.list_(pa.int64())),
            ("chunks", pa.int32()),
            *((name, pa.int32()) for name in _COUNTS),
            ("status", pa.int32()),
            ("ok", pa.bool_()),
            ("error_class", dictionary),
            ("error", texts),
            ("finish_reason", dictionary),
            ("bytes_in", pa.int64()),
            ("connect_ns", pa.int64()),
            ("reused", pa.bool_()),
            ("resent", pa.int32()),
        ]
    )


class Shard(msgspec.Struct):
    """What one generator left behind; ``summary`` is ``None`` when it was killed."""

    meta: dict[str, Any]
    rows: list[Row]
    health: list[dict[str, Any]]
    summary: dict[str, Any] | None


def read_shard(spool: Path) -> Shard:
    """Read a generator's spool as far as it is whole."""
    shard = Shard({}, [], [], None)
    for kind, value in read_spool(spool):
        if kind == ROW:
            shard.rows.append(value)
        elif kind == HEALTH:
            shard.health.append(value)
        elif kind == META:
            shard.meta = value
        elif kind == SUMMARY:
            shard.summary = value
    return shard


def shard_table(shard: Shard) -> pa.Table:
    """Return a shard's records, with its meta data and health in the table's metadata."""
    import numpy as np
    import pyarrow as pa

    rows, anchor = shard.rows, int(shard.meta.get("anchor_ns", 0))
    job = shard.meta.get("job", {})
    arrays: dict[str, Any] = {
        name: [getattr(row, name) for row in rows]
        for name in (
            "request_id", "index", "phase", "turn", "prompt", "status", "error_class", "error", "finish_reason",
            "bytes_in", "connect_ns", "reused", "resent",
        )
    }  # fmt: skip
    arrays["worker"] = [job.get("worker", 0)] * len(rows)
    arrays["arm"] = [job.get("arm", "cold")] * len(rows)
    arrays["ok"] = [not row.error_class for row in rows]
    for name in ("session", "group"):
        arrays[name] = _nullable([getattr(row, name) for row in rows], missing=-1)
    for name in _COUNTS:
        arrays[name] = _nullable([getattr(row, name) for row in rows], missing=-1)
    for name in _TIMES:
        arrays[f"{name}_ns"] = _nullable([getattr(row, name) for row in rows], missing=0, add=anchor)
    lengths = np.array([len(row.marks) // 8 for row in rows], dtype=np.int64)
    marks = np.frombuffer(b"".join(row.marks for row in rows), dtype="<i8")
    marks = marks - np.repeat(np.array([row.sent for row in rows], dtype=np.int64), lengths)
    edges = np.concatenate(([0], np.cumsum(lengths))).astype(np.int32)
    arrays["chunk_offsets_ns"] = pa.ListArray.from_arrays(pa.array(edges), pa.array(marks))
    arrays["chunks"] = lengths.astype(np.int32)
    fields = schema()
    columns = [
        pa.array(arrays[field.name], field.type) if not isinstance(arrays[field.name], pa.Array) else arrays[field.name]
        for field in fields
    ]  # fmt: skip
    return pa.Table.from_arrays(columns, schema=fields).replace_schema_metadata(
        {METADATA_KEY: json.dumps({"schema_version": SCHEMA_VERSION, "workers": [_worker(shard, anchor)]}).encode()}
    )


def _nullable(values: Sequence[int], *, missing: int, add: int = 0) -> pa.Array:
    import numpy as np
    import pyarrow as pa

    numbers = np.asarray(values, dtype=np.int64)
    return pa.array(numbers + add, mask=numbers == missing)


def _worker(shard: Shard, anchor: int) -> dict[str, Any]:
    """Return what is known of a generator, in plain JSON; times as Unix ns."""
    summary = dict(shard.summary or {})
    for name in ("t0", "ended", "stopped_at", "started"):
        if summary.get(name):
            summary[name] += anchor
    health = [
        {
            "at": beat["at"] + anchor,
            "cpu_ns": beat["cpu_ns"],
            "wait_ns": beat["wait_ns"],
            "rss_kib": beat["rss_kib"],
            "late_us": memoryview(beat["late_us"]).cast("I").tolist(),
        }
        for beat in shard.health
    ]
    return {"meta": shard.meta, "summary": summary or None, "health": health}


class Records(msgspec.Struct):
    """Records in memory and what is known of the generators that made them."""

    table: Any
    workers: list[dict[str, Any]]

    def column(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a numeric column as floats, NaN for null."""
        import numpy as np

        values: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(self.table[name].to_numpy(), dtype=np.float64)
        return values

    def times(self, name: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return a time column in seconds after the earliest scheduled time, exact to the ns, NaN for null."""
        import numpy as np

        origin = self.origin_ns
        column: Any = self.table[name].combine_chunks()
        shifted = column.fill_null(origin).to_numpy(zero_copy_only=False) - origin
        result: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(shifted, dtype=np.float64) / 1e9
        result[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return result

    def between_ms(self, start: str, stop: str) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return ``stop`` − ``start`` of two time columns in ms, taken in whole ns, NaN where either is null."""
        import numpy as np

        first: Any = self.table[start].combine_chunks()
        last: Any = self.table[stop].combine_chunks()
        ns = last.fill_null(0).to_numpy(zero_copy_only=False) - first.fill_null(0).to_numpy(zero_copy_only=False)
        result: np.ndarray[Any, np.dtype[np.float64]] = np.asarray(ns, dtype=np.float64) / 1e6
        for column in (first, last):
            result[column.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return result

    @property
    def origin_ns(self) -> int:
        """Earliest scheduled time, Unix ns; 0 without records."""
        import pyarrow.compute as pc

        return int(pc.min(self.table["scheduled_ns"]).as_py() or 0) if self.table.num_rows else 0

    def where(self, mask: np.ndarray[Any, Any]) -> Records:
        """Return the rows for which ``mask`` is true; neighbouring rows are a view, not a copy."""
        import pyarrow as pa

        first, count = int(mask.argmax()) if len(mask) else 0, int(mask.sum())
        if mask[first : first + count].all():
            return Records(self.table.slice(first, count), self.workers)
        return Records(self.table.filter(pa.array(mask)), self.workers)

    def phase(self, name: str) -> Records:
        """Return the rows of one phase (``warmup``, ``prime``, ``measure``)."""
        import pyarrow as pa

        column: Any = self.table["phase"].combine_chunks()
        coded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
        known = coded.dictionary.to_pylist()
        codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        return self.where(codes == (known.index(name) if name in known else -2))

    def succeeded(self) -> np.ndarray[Any, np.dtype[np.bool_]]:
        """Return which requests succeeded."""
        return _booleans(self.table["ok"])


def _booleans(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Return a column of truth values, null as false, without one Python object for each."""
    whole: Any = column.fill_null(False).combine_chunks()
    found: np.ndarray[Any, np.dtype[np.bool_]] = whole.to_numpy(zero_copy_only=False)
    return found


def merge(tables: Iterable[pa.Table]) -> pa.Table:
    """Return the union of record tables, ordered by scheduled time; nothing is combined or dropped."""
    import pyarrow as pa

    given = list(tables)
    workers: list[dict[str, Any]] = []
    for table in given:
        workers += json.loads((table.schema.metadata or {}).get(METADATA_KEY, b'{"workers":[]}'))["workers"]
    plain = [table.replace_schema_metadata(None).cast(schema()) for table in given]
    whole = pa.concat_tables(plain) if plain else schema().empty_table()
    whole = whole.unify_dictionaries().sort_by([("scheduled_ns", "ascending"), ("request_id", "ascending")])
    content = json.dumps({"schema_version": SCHEMA_VERSION, "workers": workers}).encode()
    return whole.replace_schema_metadata({METADATA_KEY: content})


def write_parquet(table: pa.Table, path: Path) -> Path:
    """Write records; a reader never sees half a file."""
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    try:
        pq.write_table(
            table,
            partial,
            compression="zstd",
            use_dictionary=["phase", "arm", "error_class", "finish_reason"],
            column_encoding={"chunk_offsets_ns.list.element": "DELTA_BINARY_PACKED"},
            write_statistics=True,
        )
    except OSError:
        partial.unlink(missing_ok=True)
        raise
    return partial.replace(path)


def compact(folder: Path, name: str = RECORDS) -> Path:
    """Turn the spools below ``folder`` into one Parquet file; also after a crash, for whatever was written.

    :raises ConfigurationError: ``NothingToCollect``: there are no spools. ``WouldLoseRecords``: the file that is there
        already holds requests that the spools do not.
    """
    spools = sorted(folder.glob("*.spool"))
    if not spools:
        raise ConfigurationError(
            "NothingToCollect",
            f"{folder} holds no spool",
            fix="Give the folder of a run that was killed; `report` reads records that were collected already.",
        )
    table, path = merge(shard_table(read_shard(spool)) for spool in spools), folder / name
    lost = _missing_from(table, path)
    if lost:
        raise ConfigurationError(
            "WouldLoseRecords",
            f"{path} holds {lost} requests that the spools beside it do not",
            fix="Move the Parquet file or the spools to a folder of their own: they are of two runs.",
        )
    return write_parquet(table, path)


def _missing_from(table: pa.Table, path: Path) -> int:
    """Return how many requests of the record file at ``path``, if there is one, are not in ``table``."""
    if not path.exists():
        return 0
    kept = set(_tables(path, ("request_id",))[0]["request_id"].to_pylist())
    return len(kept.difference(table["request_id"].to_pylist()))


def record_files(folder: Path) -> list[Path]:
    """Return the record files of a run's folder; scraped metrics lie beside them and are none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    if (whole := folder / RECORDS).exists():
        return [whole]
    found = []
    for file in sorted(folder.glob("*.parquet")):
        try:
            known = METADATA_KEY in (pq.read_schema(file).metadata or {})
        except (OSError, pa.ArrowException):
            known = True  # reading it will say what is wrong
        if known:
            found.append(file)
    return found


def load(source: Path | Sequence[Path], columns: Sequence[str] | None = None) -> Records:
    """Read records.

    :param source: a Parquet file, a run's folder (spools are read when there is no Parquet yet), or several of these,
        which are merged.
    :param columns: of a single Parquet file, only these; the others cost neither time nor memory.
    :raises IntegrityError: a file is not a record file, or a folder holds none.
    """
    sources = [source] if isinstance(source, Path) else list(source)
    files = [file for path in sources for file in (record_files(path) if path.is_dir() else [path])]
    wanted = columns if len(files) == 1 and files[0].is_file() else None
    tables = [table for path in sources for table in _tables(path, wanted)]
    table = tables[0] if len(tables) == 1 else merge(tables)
    content = json.loads((table.schema.metadata or {}).get(METADATA_KEY, b'{"workers":[]}'))
    return Records(table, content["workers"])


def _tables(path: Path, columns: Sequence[str] | None = None) -> list[pa.Table]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.is_dir():
        parquet = record_files(path)
        if not parquet:
            spools = sorted(path.glob("*.spool"))
            if not spools:
                raise IntegrityError("NoRecords", f"{path} holds no records", fix="Give the folder of one run.")
            return [shard_table(read_shard(spool)) for spool in spools]
        return [table for file in parquet for table in _tables(file, columns)]
    try:
        # Not read_table: that imports pyarrow.dataset, which costs more than reading a small file.
        with pq.ParquetFile(path, memory_map=True) as file:
            names = file.schema_arrow.names
            table = file.read(columns=None if columns is None else [name for name in columns if name in names])
    except (OSError, pa.ArrowException) as error:
        raise IntegrityError(
            "UnreadableRecords", f"{path} is not a readable record file: {error}", fix="Collect the spools again."
        ) from error
    missing = [name for name in schema().names if name not in names]
    if missing:
        raise IntegrityError(
            "NotRecords", f"{path} lacks the columns {', '.join(missing)}", fix="Give a load test's Parquet file."
        )
    return [table]
