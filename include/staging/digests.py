"""SHA-256 and CRC64NVME of local files, from one read, remembered while a file's identity on disk is unchanged.

What is staged is summed again as its bytes pass, by the CRC64NVME that belongs to the same read: bytes that differ
from those that the SHA-256 was taken of are not published.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from include.objects import PROJECT_ROOT
from include.staging.context import ProgressCallback
from include.staging.progress import Meter

CACHE = PROJECT_ROOT / "var" / "cache" / "digests.json"
# A file changed within its clock's resolution keeps its time stamp: too young is not remembered.
YOUNG_NS = 2_000_000_000
# Small enough to be still in the processor's cache for the second sum.
READ = 1 << 20
_lock = threading.Lock()
Entry = list[int | str]


@dataclass(frozen=True)
class Digests:
    """Of one read of a file: its bytes, hex sha256, and CRC64NVME as S3 writes it."""

    size: int
    sha256: str
    crc64nvme: str


def crc_text(crc: int) -> str:
    """Return a CRC64NVME as S3 writes it: base64 of eight bytes, big endian."""
    return base64.b64encode(crc.to_bytes(8, "big")).decode()


def file_digests(path: Path | str, count: Callable[[str, int], None] = lambda _, __: None) -> Digests:
    """Return the digests of a file, read now.

    :param count: gets path and bytes as they are read.
    """
    from awscrt.checksums import crc64nvme

    sha256, crc, whole, buffer = hashlib.sha256(), 0, 0, memoryview(bytearray(READ))
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while size := file.readinto(buffer):
            sha256.update(buffer[:size])
            crc = crc64nvme(buffer[:size], crc)
            whole += size
            count(str(path), size)
    return Digests(whole, sha256.hexdigest(), crc_text(crc))


def remembered_digests(
    paths: Sequence[Path | str], cache: Path = CACHE, progress: ProgressCallback | None = None
) -> list[Digests]:  # fmt: skip
    """Return the digests of files; those that are as they were are not read again.

    :param progress: told how far the reading is.
    """
    known = _read(cache)
    # As text: of thousands of files, pathlib's parents and names take longer than all the rest.
    places = [os.path.split(os.fspath(path)) for path in paths]
    folders = {folder: os.path.realpath(folder) for folder in {folder for folder, _ in places}}
    keys = [f"{folders[folder]}/{name}" for folder, name in places]
    identities = [_identity(path) for path in paths]
    found = [_known(known.get(key), identity) for key, identity in zip(keys, identities, strict=True)]
    missing = [at for at, digests in enumerate(found) if digests is None]
    fresh: dict[str, Entry] = {}
    meter = Meter(sum(identities[at][0] for at in missing), progress)
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        reads = pool.map(lambda at: file_digests(paths[at], meter.count), missing)
        for at, made in zip(missing, reads, strict=True):
            found[at] = made
            if time.time_ns() - identities[at][1] > YOUNG_NS:
                fresh[keys[at]] = [*identities[at], made.sha256, made.crc64nvme]
    if fresh:
        _remember(fresh, cache)
    return [digests for digests in found if digests is not None]


def _known(entry: Entry | None, identity: list[int]) -> Digests | None:
    """The remembered digests of a file that is as it was."""
    if entry is None or entry[: len(identity)] != identity or len(entry) != len(identity) + 2:
        return None
    return Digests(identity[0], str(entry[-2]), str(entry[-1]))


def _identity(path: Path | str) -> list[int]:
    stat = os.stat(path)  # noqa: PTH116 - half the time, for thousands of files
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _read(cache: Path) -> dict[str, Entry]:
    try:
        content = json.loads(cache.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _remember(fresh: dict[str, Entry], cache: Path) -> None:
    with _lock, contextlib.suppress(OSError):
        cache.parent.mkdir(parents=True, exist_ok=True)
        partial = cache.with_name(f".{cache.name}.{os.getpid()}.partial")
        partial.write_text(json.dumps(_read(cache) | fresh))
        partial.replace(cache)
