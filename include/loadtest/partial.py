"""What a level had measured when it broke off: out of a folder that goes away, into the store."""

from __future__ import annotations

from pathlib import Path

from include.loadtest.records import load, record_files
from include.objects import Objects


def keep_partial(folder: Path, store: Objects, path: str) -> int:
    """Put the records below ``folder``, spools or Parquet, to ``path`` as one Parquet file; return how many.

    It is made in memory: a full disk is one of the reasons for breaking off.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not record_files(folder) and not list(folder.glob("*.spool")):
        return 0
    table = load(folder).table
    if table.num_rows:
        buffer = pa.BufferOutputStream()
        pq.write_table(table, buffer, compression="zstd")
        store.put(path, buffer.getvalue().to_pybytes())
    return int(table.num_rows)
