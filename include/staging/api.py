"""Stage a model's revision to S3: idempotent, crash-safe, verified; the manifest is the commit."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from include.catalog.specs import JumpStartSource, ModelSpec
from include.errors import ConfigurationError, IntegrityError
from include.objects import AlreadyExistsError, Objects
from include.staging.checks import check_formats
from include.staging.context import Progress, ProgressCallback, StagingContext
from include.staging.lock import StagingLock
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest, ManifestFile
from include.staging.model import StagedModel
from include.staging.mover import check_stored, move
from include.staging.sources import Listing, list_source

FILES_AT_ONCE = 4
LOCK_NAME = "staging.lock"


def resolve_revision(model: ModelSpec, context: StagingContext) -> str:
    """Pin a model's revision: a commit, a content digest, or a JumpStart version."""
    return list_source(model, context).revision


def model_prefix(name: str, revision: str) -> str:
    """Return ``<name>/<revision>``, below a cluster's ``models_uri``."""
    return f"{name}/{revision}"


@dataclass(frozen=True)
class Target:
    """Where one revision lives.

    :param objects: rooted at ``<models_uri>/<name>/<revision>``.
    """

    objects: Objects
    bucket: str
    prefix: str
    s3: Any

    @classmethod
    def open(cls, models_uri: str, name: str, revision: str, context: StagingContext) -> Target:
        """Open the target; the bucket must exist and belong to whom it should."""
        parts = urlsplit(models_uri)
        if parts.scheme != "s3":
            raise ConfigurationError(
                "TargetInvalid",
                f"models_uri = {models_uri!r} is not an s3:// URI",
                fix="write s3://bucket[/prefix] in the cluster's models_uri",
            )
        prefix = "/".join(part for part in (parts.path.strip("/"), model_prefix(name, revision)) if part)
        uri = f"s3://{parts.netloc}/{prefix}"
        return cls(
            Objects.open(uri, session=context.session, region=context.region),
            parts.netloc,
            prefix,
            context.s3(),
        )

    def key(self, path: str) -> str:
        """Full key of a file of the revision."""
        return f"{self.prefix}/{FILES_FOLDER}/{path}"

    def manifest(self) -> Manifest | None:
        """Return the stored manifest, ``None`` when the revision is not staged."""
        data = self.objects.get(MANIFEST_NAME)
        return None if data is None else Manifest.from_bytes(data, self.objects.url(MANIFEST_NAME))

    def sweep_uploads(self, context: StagingContext) -> int:
        """Abort every multipart upload below the revision; only the lock's holder may."""
        aborted = 0
        pages = self.s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}/", **context.owner_arguments()
        )
        for page in pages:
            for upload in page.get("Uploads", ()):
                self.s3.abort_multipart_upload(Bucket=self.bucket, Key=upload["Key"], UploadId=upload["UploadId"])
                aborted += 1
        return aborted


@dataclass
class _Meter:
    total: int
    callback: ProgressCallback | None
    done: int = 0
    started: float = field(default_factory=time.monotonic)
    said: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, path: str, size: int) -> None:
        with self.lock:
            self.done += size
            now = time.monotonic()
            if self.callback is None or (now - self.said < 5 and self.done < self.total):
                return
            self.said = now
            rate = self.done / max(now - self.started, 1e-6)
            eta = (self.total - self.done) / rate if rate else None
            self.callback(Progress(self.done, self.total, rate, eta, path))


def stage(
    model: ModelSpec,
    revision: str,
    models_uri: str,
    context: StagingContext,
    *,
    owner: str,
    progress: ProgressCallback | None = None,
    budget_bytes: int | None = None,
    repair: bool = False,
) -> StagedModel:
    """Stage one revision; a revision that is staged already is only checked.

    :param owner: of the run; names the lock's holder and goes into the manifest.
    :param repair: move a revision again whose objects no longer match its manifest.
    :raises IntegrityError: naming the file, when staged or source bytes are not what was recorded.
    :raises ConfigurationError: before a byte moves: unknown revision, budget, unsafe formats.
    """
    started = time.monotonic()
    if isinstance(model.source, JumpStartSource):
        return _nothing_to_stage(model, revision)
    target = Target.open(models_uri, model.name, revision, context)
    present = target.manifest()
    if present is not None and not repair:
        return _verified(target, present, context, started)
    listing = _admitted(model, revision, context, budget_bytes)
    lock = StagingLock(target.objects, LOCK_NAME, owner)
    with lock.held(lambda: target.manifest() is not None) as ours:
        published = None if repair else target.manifest()
        if published is not None or not ours:
            return _verified(target, published or _require(target), context, started)
        target.sweep_uploads(context)
        manifest = _move_all(model, listing, target, owner, progress)
        manifest = _publish(target, manifest, replace=repair)
    return _staged(target, manifest, moved=listing.total_bytes, reused=False, started=started)


def verify(models_uri: str, name: str, revision: str, context: StagingContext, *, deep: bool = False) -> StagedModel:
    """Check a staged revision against its manifest: every file there, unchanged, and none too many.

    :param deep: read and hash every byte again.
    :raises IntegrityError: naming the first file that differs.
    """
    started = time.monotonic()
    target = Target.open(models_uri, name, revision, context)
    manifest = _require(target)
    staged = _verified(target, manifest, context, started)
    if deep:
        for file in manifest.files:
            _deep_check(target, file)
    return staged


def _admitted(model: ModelSpec, revision: str, context: StagingContext, budget_bytes: int | None) -> Listing:
    listing = list_source(model, context)
    if listing.revision != revision:
        raise ConfigurationError(
            "RevisionMoved",
            f"model {model.name!r}: the source is at {listing.revision}, the plan says {revision}",
            fix="plan again, or pin source.revision",
        )
    if budget_bytes is not None and listing.total_bytes > budget_bytes:
        raise ConfigurationError(
            "StagingOverBudget",
            f"model {model.name!r} has {listing.total_bytes} bytes, the budget is {budget_bytes}",
            fix="raise the budget or narrow source.include",
        )
    check_formats(model, listing)
    return listing


def _move_all(
    model: ModelSpec, listing: Listing, target: Target, owner: str, progress: ProgressCallback | None
) -> Manifest:
    meter = _Meter(listing.total_bytes, progress)

    def one(index: int) -> ManifestFile:
        file = listing.files[index]
        return move(
            file,
            target.objects,
            f"{FILES_FOLDER}/{file.path}",
            target.s3,
            target.bucket,
            target.key(file.path),
            lambda size: meter.count(file.path, size),
        )

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        files = tuple(pool.map(one, range(len(listing.files))))
    return Manifest(
        name=model.name,
        revision=listing.revision,
        source=listing.origin,
        files=tuple(sorted(files, key=lambda file: file.path)),
        total_bytes=sum(file.size for file in files),
        license=model.license,
        created_at=dt.datetime.now(dt.UTC),
        created_by=owner,
    )


def _publish(target: Target, manifest: Manifest, *, replace: bool) -> Manifest:
    extra = sorted(_stored_paths(target) - {file.path for file in manifest.files})
    for path in extra:
        target.objects.delete(f"{FILES_FOLDER}/{path}")
    try:
        target.objects.put(MANIFEST_NAME, manifest.to_bytes(), create=not replace)
    except AlreadyExistsError:
        return _require(target)
    return manifest


def _verified(target: Target, manifest: Manifest, context: StagingContext, started: float) -> StagedModel:
    from botocore.exceptions import ClientError

    def check(file: ManifestFile) -> None:
        try:
            stored = target.s3.head_object(
                Bucket=target.bucket,
                Key=target.key(file.path),
                ChecksumMode="ENABLED",
                **context.owner_arguments(),
            )
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NotFound"):
                raise
            raise IntegrityError(
                "StagedFileMissing",
                f"{file.path}: not at s3://{target.bucket}/{target.key(file.path)}",
                fix="find out who deleted it, then stage again with --repair",
            ) from error
        check_stored(file, stored)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(check, manifest.files))
    extra = sorted(_stored_paths(target) - {file.path for file in manifest.files})
    if extra:
        raise IntegrityError(
            "StagedFileUnknown",
            f"{', '.join(extra[:5])}: in the revision's folder but not in its manifest",
            fix="a revision is immutable: remove what does not belong there, or stage again with --repair",
        )
    return _staged(target, manifest, moved=0, reused=True, started=started)


def _deep_check(target: Target, file: ManifestFile) -> None:
    import hashlib

    import obstore

    sums = hashlib.sha256()
    for chunk in obstore.get(target.objects.native, f"{FILES_FOLDER}/{file.path}").stream(min_chunk_size=8 << 20):
        sums.update(bytes(chunk))
    if sums.hexdigest() != file.sha256:
        raise IntegrityError(
            "StagedFileChanged",
            f"{file.path}: sha256 is {sums.hexdigest()}, manifest says {file.sha256}",
            fix="stage again with --repair after finding out who wrote to it",
        )


def _stored_paths(target: Target) -> set[str]:
    return set(_paths(target.objects))


def _paths(objects: Objects) -> Iterator[str]:
    for info in objects.list(FILES_FOLDER):
        yield info.path.removeprefix(f"{FILES_FOLDER}/")


def _require(target: Target) -> Manifest:
    manifest = target.manifest()
    if manifest is None:
        raise IntegrityError(
            "NotStaged",
            f"{target.objects.url(MANIFEST_NAME)}: there is no manifest",
            fix="stage the revision",
        )
    return manifest


def _staged(target: Target, manifest: Manifest, *, moved: int, reused: bool, started: float) -> StagedModel:
    return StagedModel(
        name=manifest.name,
        revision=manifest.revision,
        uri=target.objects.uri,
        manifest_uri=target.objects.url(MANIFEST_NAME),
        manifest_digest=manifest.digest,
        files=len(manifest.files),
        total_bytes=manifest.total_bytes,
        moved_bytes=moved,
        reused=reused,
        seconds=time.monotonic() - started,
    )


def _nothing_to_stage(model: ModelSpec, revision: str) -> StagedModel:
    return StagedModel(
        name=model.name, revision=revision, uri="", manifest_uri="", manifest_digest="", files=0, total_bytes=0,
        reused=True,
    )  # fmt: skip
