"""Move one file into S3: streamed, hashed in flight, visible only when its bytes are the right ones."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from include.errors import FailureClass, IntegrityError, PipelineError
from include.staging.inspection import compare_head, refusal
from include.staging.manifest import FILES_FOLDER, ManifestFile
from include.staging.sources import SourceFile
from include.staging.target import Target

PART_BYTES = 16 << 20
MOST_PARTS = 10_000
# Memory is what is in flight: parts of all files together.
BYTES_IN_FLIGHT = 192 << 20
SHA256_KEY = "sha256"


@dataclass
class Sums:
    """Digests of the bytes that passed."""

    sha256: Any = field(default_factory=hashlib.sha256)
    crc: int = 0
    size: int = 0

    def add(self, chunk: bytes) -> None:
        """Count a chunk in."""
        from awscrt.checksums import crc64nvme

        self.sha256.update(chunk)
        self.crc = crc64nvme(chunk, self.crc)
        self.size += len(chunk)

    @property
    def crc64nvme(self) -> str:
        """The full-object checksum as S3 writes it: base64 of eight bytes, big endian."""
        return base64.b64encode(self.crc.to_bytes(8, "big")).decode()

    def entry(self, path: str, etag: str) -> ManifestFile:
        """Return the manifest's entry for what passed."""
        return ManifestFile(
            path=path, size=self.size, sha256=self.sha256.hexdigest(), crc64nvme=self.crc64nvme, etag=etag.strip('"')
        )


def part_bytes(size: int) -> int:
    """Return the part size for a file: S3 takes at most 10,000 parts."""
    least = -(-size // MOST_PARTS)
    return max(PART_BYTES, -(-least // (1 << 20)) * (1 << 20))


def move(file: SourceFile, target: Target, count: Callable[[int], None], *, files_at_once: int = 1) -> ManifestFile:
    """Stream ``file`` to its place; an object appears only if size and sha256 are as the source states.

    :param count: gets the number of bytes as they pass.
    :param files_at_once: how many files share the memory for bytes in flight.
    :raises IntegrityError: naming the file, when the bytes are not what the source states or what the store kept.
    """
    try:
        if file.size <= PART_BYTES:
            return _put_whole(file, target, count)
        return _put_parts(file, target, count, files_at_once)
    except PipelineError:
        raise
    except Exception as error:
        cause = error.__cause__ or error.__context__
        if isinstance(cause, PipelineError):
            raise cause from None
        raise PipelineError("UploadFailed", f"{file.path}: {error}", failure_class=FailureClass.TRANSIENT) from error


def attributes(file: SourceFile, target: Target) -> dict[str, str]:
    """Return what is said of an object besides its bytes.

    An object whose upload was completed has the digest that it carries: a wrong one is never completed.
    """
    found = {SHA256_KEY: file.sha256} if file.sha256 else {}
    if target.context.storage_class:
        found["Storage-Class"] = target.context.storage_class
    return found


def _put_whole(file: SourceFile, target: Target, count: Callable[[int], None]) -> ManifestFile:
    import obstore

    sums = Sums()
    data = b"".join(_checked(file, sums, count))
    # The store compares the checksum sent along with what it got.
    done = obstore.put(
        target.objects.native,
        f"{FILES_FOLDER}/{file.path}",
        data,
        use_multipart=False,
        attributes=attributes(file, target),
        tags=dict(target.context.tags) or None,
    )
    return sums.entry(file.path, done["e_tag"] or "")


def _put_parts(file: SourceFile, target: Target, count: Callable[[int], None], files_at_once: int) -> ManifestFile:
    import obstore

    sums, part = Sums(), part_bytes(file.size)
    obstore.put(
        target.objects.native,
        f"{FILES_FOLDER}/{file.path}",
        _checked(file, sums, count),
        use_multipart=True,
        chunk_size=part,
        max_concurrency=max(1, BYTES_IN_FLIGHT // files_at_once // part),
        attributes=attributes(file, target),
        tags=dict(target.context.tags) or None,
    )
    head = target.head(file.path)
    entry = sums.entry(file.path, head["ETag"] if head else "")
    if found := list(compare_head(entry, head)):
        raise refusal(found, target.objects.uri)
    return entry


def _checked(file: SourceFile, sums: Sums, count: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in file.open():
        sums.add(chunk)
        count(len(chunk))
        yield chunk
    # Raising here, before the stream ends, keeps the upload from being completed.
    if sums.size != file.size:
        raise IntegrityError(
            "SourceTruncated",
            f"{file.path}: read {sums.size} bytes, the source says {file.size}",
            fix="stage again",
        )
    found = sums.sha256.hexdigest()
    if file.sha256 is not None and found != file.sha256:
        raise IntegrityError(
            "SourceCorrupt",
            f"{file.path}: sha256 is {found}, the source says {file.sha256}",
            fix="the download was damaged or the source was changed; stage again, then ask the source's owner",
        )
