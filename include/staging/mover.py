"""Move one file into S3: streamed, hashed in flight, visible only when its bytes are the right ones."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from include.errors import FailureClass, IntegrityError, PipelineError
from include.staging.manifest import ManifestFile
from include.staging.sources import SourceFile

if TYPE_CHECKING:
    from include.objects import Objects

PART_BYTES = 16 << 20
PARTS_IN_FLIGHT = 6


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


def move(
    file: SourceFile,
    target: Objects,
    key: str,
    s3: Any,
    bucket: str,
    full_key: str,
    count: Callable[[int], None],
) -> ManifestFile:
    """Stream ``file`` to ``key``; an object appears only if size and sha256 are as the source states.

    :raises IntegrityError: naming the file, when the bytes are not what the source states.
    """
    import obstore

    sums = Sums()
    try:
        obstore.put(
            target.native,
            key,
            _checked(file, sums, count),
            use_multipart=True,
            chunk_size=PART_BYTES,
            max_concurrency=PARTS_IN_FLIGHT,
        )
    except PipelineError:
        raise
    except Exception as error:
        if isinstance(error.__cause__, PipelineError):
            raise error.__cause__ from None
        raise PipelineError("UploadFailed", f"{file.path}: {error}", failure_class=FailureClass.TRANSIENT) from error
    stored = s3.head_object(Bucket=bucket, Key=full_key, ChecksumMode="ENABLED")
    result = ManifestFile(
        path=file.path,
        size=sums.size,
        sha256=sums.sha256.hexdigest(),
        crc64nvme=sums.crc64nvme,
        etag=stored["ETag"].strip('"'),
    )
    check_stored(result, stored)
    return result


def check_stored(file: ManifestFile, stored: Any) -> None:
    """Compare a HEAD answer with the manifest's entry.

    :raises IntegrityError: naming the file and what differs.
    """
    found = {
        "size": (stored["ContentLength"], file.size),
        "ETag": (stored["ETag"].strip('"'), file.etag),
        "CRC64NVME": (stored.get("ChecksumCRC64NVME", file.crc64nvme), file.crc64nvme),
    }
    wrong = [f"{what} is {seen}, manifest says {want}" for what, (seen, want) in found.items() if seen != want]
    if wrong:
        raise IntegrityError(
            "StagedFileChanged",
            f"{file.path}: {'; '.join(wrong)}",
            fix=f"the staged copy of {file.path} is not what was staged; find out who wrote to it, "
            "then stage again with --repair",
        )


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
