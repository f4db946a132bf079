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
    folders = {parent: str(parent.resolve()) for parent in {path.parent for path in paths}}
    keys = [f"{folders[path.parent]}/{path.name}" for path in paths]
    digests = [_known(known.get(key), identity) for key, identity in zip(keys, identities, strict=True)]
    unread = [index for index, digest in enumerate(digests) if not digest]
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        for index, digest in zip(unread, pool.map(lambda index: file_sha256(paths[index]), unread), strict=True):
            digests[index] = digest
    fresh: dict[str, list[int | str]] = {
        key: [*identity, digest]
        for key, identity, digest in zip(keys, identities, digests, strict=True)
        if time.time_ns() - identity[1] > YOUNG_NS and known.get(key) != [*identity, digest]
    }
    if fresh:
        _remember(fresh, cache)
    return digests


def _known(entry: list[int | str] | None, identity: list[int]) -> str:
    """The remembered digest of a file that is as it was; empty for another one."""
    return str(entry[-1]) if entry is not None and entry[:-1] == identity else ""


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
