"""SHA-256 of local files, remembered while a file's identity on disk is unchanged.

A remembered digest only names a revision; what is staged is hashed again as its bytes pass.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from include.objects import PROJECT_ROOT

CACHE = PROJECT_ROOT / "var" / "cache" / "digests.json"
# A file changed within its clock's resolution keeps its time stamp: too young is not remembered.
YOUNG_NS = 2_000_000_000
_lock = threading.Lock()


def file_sha256(path: Path) -> str:
    """Return the hex sha256 of a file, read now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remembered_sha256(paths: Sequence[Path], cache: Path = CACHE) -> list[str]:
    """Return the hex sha256 of files; those that are as they were are not read again."""
    known = _read(cache)
    identities = [_identity(path) for path in paths]
    keys = [str(path.resolve()) for path in paths]

    def one(index: int) -> str:
        found = known.get(keys[index])
        if found is not None and found[:-1] == identities[index]:
            return str(found[-1])
        return file_sha256(paths[index])

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        digests = list(pool.map(one, range(len(paths))))
    fresh: dict[str, list[int | str]] = {
        key: [*identity, digest]
        for key, identity, digest in zip(keys, identities, digests, strict=True)
        if time.time_ns() - identity[1] > YOUNG_NS and known.get(key) != [*identity, digest]
    }
    if fresh:
        _remember(fresh, cache)
    return digests


def _identity(path: Path) -> list[int]:
    stat = path.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read(cache: Path) -> dict[str, list[int | str]]:
    try:
        content = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(fresh: dict[str, list[int | str]], cache: Path) -> None:
    with _lock, contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f".{cache.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(_read(cache) | fresh))
        partial.replace(cache)
