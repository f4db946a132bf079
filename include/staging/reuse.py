"""Bytes that need not move: objects that a killed stager completed, and the same content elsewhere in S3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from include.errors import IntegrityError
from include.objects import ObjectInfo, Objects
from include.staging.inspection import compare_head
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest, ManifestFile
from include.staging.mover import SHA256_KEY, SOURCE_ETAG_KEY, Sums, attributes
from include.staging.sources import SourceFile, StoredAt
from include.staging.target import Target, bucket_and_prefix, open_objects

# Smaller files are moved again: asking about one costs as much.
WORTH_ASKING = 1 << 20
# CopyObject takes at most 5 GiB; larger objects are copied by ranges.
MOST_IN_ONE_COPY = 5 << 30
COPY_PART = 512 << 20
READS_AT_ONCE = 16
READ_BYTES = 8 << 20


@dataclass(frozen=True)
class Reusable:
    """What can be had without reading the source.

    :param kept: objects of this revision that an earlier attempt completed, by path.
    :param elsewhere: the same content in other revisions of the bucket, by sha256.
    """

    kept: Mapping[str, ObjectInfo] = field(default_factory=dict)
    elsewhere: Mapping[str, StoredAt] = field(default_factory=dict)


def find_reusable(target: Target, files: Iterable[SourceFile]) -> Reusable:
    """Look around once, before the first byte moves."""
    large = [file for file in files if file.size >= WORTH_ASKING]
    known = any(file.sha256 for file in large)
    if not known and not any(file.etag for file in large):
        return Reusable()
    return Reusable(target.stored(), _index(target) if known else {})


def reuse(
    file: SourceFile, target: Target, reusable: Reusable, check: Callable[[], None] = lambda: None
) -> ManifestFile | None:
    """Return the manifest's entry of a file that needs no moving; ``None``: it must be moved.

    :param check: asked now and then where that takes long; what it raises ends it.
    """
    if file.size < WORTH_ASKING:
        return None
    kept = reusable.kept.get(file.path)
    if kept is not None and kept.size == file.size:
        entry = _keep(file, target, check)
        if entry is not None:
            return entry
    stored = file.stored_at or reusable.elsewhere.get(file.sha256 or "")
    if file.sha256 and stored is not None and stored.key != target.key(file.path):
        return _copy(file, stored, target)
    return None


def revisions(root: Objects) -> list[tuple[str, str]]:
    """Return name and revision of everything below ``models_uri``, staged or not.

    :param root: rooted at ``models_uri``.
    """
    import obstore

    names = obstore.list_with_delimiter(root.native)["common_prefixes"]
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        below = pool.map(lambda name: obstore.list_with_delimiter(root.native, name), names)
    found = [path.strip("/") for page in below for path in page["common_prefixes"]]
    pairs = [tuple(path.rsplit("/", 1)) for path in found if "/" in path]
    # Names that begin with a dot are ours: reports and records of deliveries to FSx.
    return sorted((name, revision) for name, revision in pairs if not name.startswith("."))


def _index(target: Target) -> dict[str, StoredAt]:
    root = open_objects(target.models_uri, target.context)
    above = bucket_and_prefix(target.models_uri)[1]

    def read(pair: tuple[str, str]) -> tuple[str, Manifest | None]:
        folder = "/".join(pair)
        data = root.get(f"{folder}/{MANIFEST_NAME}")
        try:
            return folder, Manifest.from_bytes(data, folder) if data else None
        except IntegrityError:
            # Somebody's broken revision is no reason to fail this one.
            return folder, None

    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        found = list(pool.map(read, revisions(root)))
    return {
        file.sha256: StoredAt(
            target.bucket, f"{above}/{folder}/{FILES_FOLDER}/{file.path}".lstrip("/"), file.etag, file.crc64nvme
        )
        for folder, manifest in found
        for file in (manifest.files if manifest else ())
        if file.size >= WORTH_ASKING
    }


def _keep(file: SourceFile, target: Target, check: Callable[[], None]) -> ManifestFile | None:
    head = target.head(file.path)
    checksum = (head or {}).get("ChecksumCRC64NVME")
    if head is None or not checksum:
        return None
    carried = head.get("Metadata") or {}
    if file.sha256:
        return _entry(file, head, checksum) if carried.get(SHA256_KEY) == file.sha256 else None
    if not file.etag or carried.get(SOURCE_ETAG_KEY) != file.etag:
        return None
    return _summed_again(file, target, checksum, check)


def _summed_again(file: SourceFile, target: Target, checksum: str, check: Callable[[], None]) -> ManifestFile | None:
    """Read what an earlier attempt moved, for its SHA-256: from the bucket, and nothing is written again."""
    import obstore

    found = obstore.get(target.objects.native, f"{FILES_FOLDER}/{file.path}")
    sums = Sums(file)
    for chunk in found.stream(min_chunk_size=READ_BYTES):
        check()
        sums.add(bytes(chunk))
    try:
        sums.check()
    except IntegrityError:
        return None
    entry = sums.entry(found.meta["e_tag"] or "")
    return entry if entry.crc64nvme == checksum else None


def _copy(file: SourceFile, stored: StoredAt, target: Target) -> ManifestFile | None:
    """Copy inside S3; ``None`` when the source is not what its manifest said, or the store cannot."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        if file.size <= MOST_IN_ONE_COPY:
            _copy_whole(file, stored, target)
        else:
            _copy_ranges(file, stored, target)
        head = target.head(file.path)
    except (ClientError, BotoCoreError, Boto3Error):
        return None
    entry = _entry(file, head or {"ETag": ""}, stored.crc64nvme)
    # Without the store's own checksum nothing proves the copy: then the bytes are moved and hashed.
    if head is None or "ChecksumCRC64NVME" not in head or list(compare_head(entry, head)):
        return None
    return entry


def _entry(file: SourceFile, head: Mapping[str, Any], checksum: str) -> ManifestFile:
    return ManifestFile(
        path=file.path, size=file.size, sha256=file.sha256 or "", crc64nvme=checksum, etag=head["ETag"].strip('"')
    )


def _arguments(file: SourceFile, target: Target) -> dict[str, Any]:
    context, said = target.context, attributes(file, target)
    arguments: dict[str, Any] = {"Metadata": {SHA256_KEY: said[SHA256_KEY]}, "ChecksumAlgorithm": "CRC64NVME"}
    if context.storage_class:
        arguments["StorageClass"] = context.storage_class
    if context.tags:
        arguments["Tagging"] = urlencode(dict(context.tags))
    if context.kms_key:
        arguments |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": context.kms_key}
    return arguments | context.owner_arguments()


def _copy_whole(file: SourceFile, stored: StoredAt, target: Target) -> None:
    target.s3.copy_object(
        Bucket=target.bucket,
        Key=target.key(file.path),
        CopySource={"Bucket": stored.bucket, "Key": stored.key},
        CopySourceIfMatch=stored.etag,
        MetadataDirective="REPLACE",
        TaggingDirective="REPLACE",
        **_arguments(file, target),
    )


def _copy_ranges(file: SourceFile, stored: StoredAt, target: Target) -> None:
    place = {"Bucket": target.bucket, "Key": target.key(file.path)}
    owner = target.context.owner_arguments()
    upload = target.s3.create_multipart_upload(**place, ChecksumType="FULL_OBJECT", **_arguments(file, target))
    place["UploadId"] = upload["UploadId"]

    def part(number: int) -> dict[str, Any]:
        begin = (number - 1) * COPY_PART
        done = target.s3.upload_part_copy(
            **place,
            PartNumber=number,
            CopySource={"Bucket": stored.bucket, "Key": stored.key},
            CopySourceIfMatch=stored.etag,
            CopySourceRange=f"bytes={begin}-{min(begin + COPY_PART, file.size) - 1}",
            **owner,
        )["CopyPartResult"]
        checksum = {name: done[name] for name in ("ChecksumCRC64NVME",) if name in done}
        return {"PartNumber": number, "ETag": done["ETag"], **checksum}

    try:
        with ThreadPoolExecutor(READS_AT_ONCE) as pool:
            parts = list(pool.map(part, range(1, -(-file.size // COPY_PART) + 1)))
        target.s3.complete_multipart_upload(**place, MultipartUpload={"Parts": parts}, **owner)
    except BaseException:
        target.s3.abort_multipart_upload(**place, **owner)
        raise
