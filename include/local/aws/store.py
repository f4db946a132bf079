"""Records of the gateway's own services, in one JSON file each, written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Record = dict[str, Any]
Tables = dict[str, dict[str, Record]]


class Store:
    """Tables of records by key, kept in ``path``; what was saved survives a killed process."""

    def __init__(self, path: Path) -> None:
        self._path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._tables: Tables = json.loads(path.read_text()) if path.exists() else {}

    def table(self, name: str) -> dict[str, Record]:
        """Return a table; change it only within :meth:`saving`."""
        return self._tables.setdefault(name, {})

    @contextmanager
    def saving(self) -> Iterator[None]:
        """Save all tables at the end of the block, also when it raises."""
        try:
            yield
        finally:
            partial = self._path.with_suffix(".partial")
            partial.write_text(json.dumps(self._tables, indent=1))
            partial.replace(self._path)
