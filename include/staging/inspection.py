"""Is what lies in the store what the manifest says? Each difference is found and named."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from enum import StrEnum
from typing import Any

from include.errors import IntegrityError
from include.objects import ObjectInfo
from include.staging.manifest import FILES_FOLDER, Manifest, ManifestFile
from include.staging.target import Target

HEADS_AT_ONCE = 16
NAMED = 5


class Depth(StrEnum):
    """How closely a revision is looked at."""

    LISTING = "listing"  # names, sizes, entity tags: one request for a thousand files
    # And the full-object checksum that the store keeps: one request for each file. Where it keeps none, every byte.
    CHECKSUMS = "checksums"
    CONTENT = "content"  # and every byte, read and hashed again


Difference = tuple[str, str]
"""Reason and sentence."""


def inspect(
    target: Target,
    manifest: Manifest,
    depth: Depth = Depth.LISTING,
    early: Mapping[str, ObjectInfo] | None = None,
) -> None:
    """Compare a revision with its manifest.

    :param early: what lay in the revision's folder, perhaps before the manifest was written: what differs from it is
        listed again.
    :raises IntegrityError: naming the files that are missing, changed or too many; all are in its evidence.
    """
    found = [] if early and not any(compare(manifest, early)) else list(compare(manifest, target.stored()))
    if not found and depth is not Depth.LISTING:
        with ThreadPoolExecutor(HEADS_AT_ONCE) as pool:
            heads = list(pool.map(lambda file: target.head(file.path), manifest.files))
        pairs = list(zip(manifest.files, heads, strict=True))
        found = [one for file, head in pairs for one in compare_head(file, head)]
        if not found and depth is Depth.CHECKSUMS:
            bare = [file for file, head in pairs if file.size and "ChecksumCRC64NVME" not in (head or {})]
            found = [one for file in bare for one in _content(target, file)]
    if not found and depth is Depth.CONTENT:
        found = [one for file in manifest.files for one in _content(target, file)]
    if found:
        raise refusal(found, target.objects.uri)


def compare(manifest: Manifest, stored: Mapping[str, ObjectInfo]) -> Iterator[Difference]:
    """Yield how a listing differs from a manifest. Pure."""
    for file in manifest.files:
        info = stored.get(file.path)
        if info is None:
            yield "StagedFileMissing", f"{file.path}: not in the store"
        elif info.size != file.size:
            yield "StagedFileChanged", f"{file.path}: size is {info.size}, manifest says {file.size}"
        elif (info.etag or "").strip('"') != file.etag:
            yield "StagedFileChanged", f"{file.path}: ETag is {info.etag}, manifest says {file.etag}"
    for path in sorted(stored.keys() - {file.path for file in manifest.files}):
        yield "StagedFileUnknown", f"{path}: in the revision's folder but not in its manifest"


def compare_head(file: ManifestFile, head: Mapping[str, Any] | None) -> Iterator[Difference]:
    """Yield how a HEAD answer differs from a manifest's entry; a store that reports no checksum differs in none."""
    if head is None:
        yield "StagedFileMissing", f"{file.path}: not in the store"
        return
    facts = {
        "size": (head["ContentLength"], file.size),
        "ETag": (head["ETag"].strip('"'), file.etag),
        "CRC64NVME": (head.get("ChecksumCRC64NVME", file.crc64nvme), file.crc64nvme),
    }
    for what, (seen, want) in facts.items():
        if seen != want:
            yield "StagedFileChanged", f"{file.path}: {what} is {seen}, manifest says {want}"


def refusal(found: list[Difference], where: str) -> IntegrityError:
    """Return the error that says what differs."""
    lines = tuple(text for _, text in found)
    more = f"; and {len(lines) - NAMED} more" if len(lines) > NAMED else ""
    return IntegrityError(
        found[0][0],
        f"{where}: {'; '.join(lines[:NAMED])}{more}",
        fix="a revision is immutable: find out who writes to it, then stage again with --repair",
        evidence=lines,
    )


def _content(target: Target, file: ManifestFile) -> Iterator[Difference]:
    import obstore

    sums = hashlib.sha256()
    for chunk in obstore.get(target.objects.native, f"{FILES_FOLDER}/{file.path}").stream(min_chunk_size=8 << 20):
        sums.update(chunk)
    if sums.hexdigest() != file.sha256:
        yield "StagedFileChanged", f"{file.path}: sha256 is {sums.hexdigest()}, manifest says {file.sha256}"
