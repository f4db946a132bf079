"""Move one file into S3: streamed, hashed in flight, visible only when its bytes are the right ones."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from include.errors import FailureClass, IntegrityError, PipelineError
from include.staging.digests import crc_text
from include.staging.inspection import compare_head, refusal
from include.staging.manifest import FILES_FOLDER, ManifestFile
from include.staging.refusals import explain, first_line
from include.staging.sources import SourceFile
from include.staging.target import Target

if TYPE_CHECKING:
    from include.staging.checksums import Running, Stated

PART_BYTES = 16 << 20
MOST_PARTS = 10_000
# Memory is what is in flight: parts of all files together.
BYTES_IN_FLIGHT = 192 << 20
SHA256_KEY, SOURCE_ETAG_KEY = "sha256", "source-etag"
DAMAGED_ON_ITS_WAY = ("SourceCorrupt", "SourceTruncated")
READ_TWICE = "it was read twice: the source or the way to it damages bytes, or somebody changes it; ask its owner"


class Sums:
    """Digests of a file's bytes as they pass.

    The SHA-256 of a local file was computed with its CRC64NVME a moment ago: then the CRC, which costs a twentieth,
    shows that these are the same bytes.
    """

    def __init__(self, file: SourceFile) -> None:
        self.file = file
        self.crc = self.size = 0
        self._sha256 = None if file.sha256 and file.crc64nvme else hashlib.sha256()
        self._stated = None if file.stated is None else _running(file.stated)

    def add(self, chunk: bytes) -> None:
        """Count a chunk in."""
        from awscrt.checksums import crc64nvme

        if self._sha256 is not None:
            self._sha256.update(chunk)
        if self._stated is not None:
            self._stated.add(chunk)
        self.crc = crc64nvme(chunk, self.crc)
        self.size += len(chunk)

    def check(self) -> None:
        """Compare what passed with what the source states.

        :raises IntegrityError: naming the file.
        """
        file, crc = self.file, crc_text(self.crc)
        if self.size != file.size:
            raise IntegrityError(
                "SourceTruncated",
                f"{file.path}: read {self.size} bytes, the source says {file.size}",
                fix=READ_TWICE,
            )
        stated = [("crc64nvme", file.crc64nvme, crc), ("sha256", file.sha256, self._digest())]
        if self._stated is not None:
            stated.append((self._stated.stated.algorithm, self._stated.stated.value, self._stated.text()))
        for name, wanted, found in stated:
            if wanted is not None and found != wanted:
                raise IntegrityError(
                    "SourceCorrupt",
                    f"{file.path}: {name} is {found}, the source says {wanted}",
                    fix=READ_TWICE,
                )

    def entry(self, etag: str) -> ManifestFile:
        """Return the manifest's entry for what passed."""
        return ManifestFile(
            path=self.file.path,
            size=self.size,
            sha256=self._digest(),
            crc64nvme=crc_text(self.crc),
            etag=etag.strip('"'),
        )

    def _digest(self) -> str:
        return self.file.sha256 or "" if self._sha256 is None else self._sha256.hexdigest()


def _running(stated: Stated) -> Running:
    from include.staging.checksums import Running

    return Running(stated)


def part_bytes(size: int) -> int:
    """Return the part size for a file: S3 takes at most 10,000 parts."""
    least = -(-size // MOST_PARTS)
    return max(PART_BYTES, -(-least // (1 << 20)) * (1 << 20))


def move(file: SourceFile, target: Target, count: Callable[[int], None], *, files_at_once: int = 1) -> ManifestFile:
    """Stream ``file`` to its place; an object appears only if size and sha256 are as the source states.

    A file that was damaged on its way is read once more.

    :param count: gets the number of bytes as they pass; what it raises ends the move, and nothing appears.
    :param files_at_once: how many files share the memory for bytes in flight.
    :raises IntegrityError: naming the file, when the bytes are not what the source states or what the store kept.
    """
    passed = 0

    def counted(size: int) -> None:
        nonlocal passed
        count(size)
        passed += size

    try:
        return _move(file, target, counted, files_at_once)
    except IntegrityError as error:
        if error.reason not in DAMAGED_ON_ITS_WAY:
            raise
    # Once more, and what passed does not count twice.
    count(-passed)
    return _move(file, target, count, files_at_once)


def _move(file: SourceFile, target: Target, count: Callable[[int], None], files_at_once: int) -> ManifestFile:
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
        refused = explain(error, target.asked)
        if refused is not None and not refused.retryable:
            raise refused from error
        said = f"{file.path}: {first_line(error)}"
        raise PipelineError("UploadFailed", said, failure_class=FailureClass.TRANSIENT) from error


def attributes(file: SourceFile, target: Target) -> dict[str, str]:
    """Return what is said of an object besides its bytes.

    An object whose upload was completed has the digest that it carries: a wrong one is never completed.
    """
    found = {SHA256_KEY: file.sha256} if file.sha256 else {}
    if file.etag:
        found[SOURCE_ETAG_KEY] = file.etag
    if target.context.storage_class:
        found["Storage-Class"] = target.context.storage_class
    return found


def _put_whole(file: SourceFile, target: Target, count: Callable[[int], None]) -> ManifestFile:
    import obstore

    sums = Sums(file)
    data = b"".join(_checked(sums, count))
    # The store compares the checksum sent along with what it got.
    done = obstore.put(
        target.objects.native,
        f"{FILES_FOLDER}/{file.path}",
        data,
        use_multipart=False,
        attributes=attributes(file, target),
        tags=dict(target.context.tags) or None,
    )
    return sums.entry(done["e_tag"] or "")


def _put_parts(file: SourceFile, target: Target, count: Callable[[int], None], files_at_once: int) -> ManifestFile:
    import obstore

    sums, part = Sums(file), part_bytes(file.size)
    obstore.put(
        target.objects.native,
        f"{FILES_FOLDER}/{file.path}",
        _checked(sums, count),
        use_multipart=True,
        chunk_size=part,
        max_concurrency=max(1, BYTES_IN_FLIGHT // files_at_once // part),
        attributes=attributes(file, target),
        tags=dict(target.context.tags) or None,
    )
    head = target.head(file.path)
    entry = sums.entry(head["ETag"] if head else "")
    if found := list(compare_head(entry, head)):
        raise refusal(found, target.objects.uri)
    return entry


def _checked(sums: Sums, count: Callable[[int], None]) -> Iterator[bytes]:
    for chunk in sums.file.open():
        sums.add(chunk)
        count(len(chunk))
        yield chunk
    # Raising here, before the stream ends, keeps the upload from being completed.
    sums.check()
