"""Stage a model's revision to S3: idempotent, crash-safe, verified; the manifest is the commit."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from include.catalog.weights import HuggingFaceSource, JumpStartSource, WeightsSpec
from include.errors import ConfigurationError
from include.objects import AlreadyExistsError
from include.staging.context import ProgressCallback, StagingContext
from include.staging.inspection import Depth, compare, inspect, refusal
from include.staging.lock import StagingLock
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest, ManifestFile
from include.staging.model import StagedModel
from include.staging.progress import Meter
from include.staging.refusals import explained
from include.staging.sources import Listing, list_source
from include.staging.target import LOCK_NAME, Target, model_prefix

__all__ = ["StagingContext", "model_prefix", "resolve_revision", "stage", "verify"]


def resolve_revision(model: WeightsSpec, context: StagingContext, wanted: str | None = None) -> str:
    """Pin a model's revision: a commit, a content digest, or a JumpStart version.

    :param wanted: a branch, tag or commit of a Hub repository, instead of the source's; the other sources are at one
        revision only.
    """
    return list_source(_at(model, wanted or ""), context).revision


def stage(
    model: WeightsSpec,
    revision: str,
    models_uri: str,
    context: StagingContext,
    *,
    owner: str,
    progress: ProgressCallback | None = None,
    budget_bytes: int | None = None,
    repair: bool = False,
    notice: Callable[[str], None] | None = None,
) -> StagedModel:
    """Stage one revision; a revision that is staged already is only checked.

    :param owner: of the run; names the lock's holder and goes into the manifest.
    :param repair: move a revision again whose objects no longer match its manifest, or whose manifest is damaged.
    :param notice: gets sentences that a person should read before the bytes move (cross-region cost).
    :raises IntegrityError: naming the file, when staged or source bytes are not what was recorded.
    :raises ConfigurationError: before a byte moves: unknown revision, budget, unsafe formats, a foreign bucket.
    """
    started = time.monotonic()
    if isinstance(model.source, JumpStartSource):
        return _nothing_to_stage(model, revision)
    target = Target.open(models_uri, model.name, revision, context)
    with explained(target.asked):
        found = None if repair else _found(target, owner, started)
        if found is not None:
            return found
        listing = _admitted(model, revision, target, budget_bytes, notice)
        meter = Meter(listing.total_bytes, progress)
        manifest = _move_and_publish(model, listing, target, owner, meter, repair=repair)
        if manifest is None:
            return _verified(target, target.require_manifest(), started)
        return _staged(target, manifest, moved=meter.done, reused=False, started=started)


def verify(
    models_uri: str, name: str, revision: str, context: StagingContext, *, depth: Depth = Depth.CHECKSUMS
) -> StagedModel:
    """Check a staged revision against its manifest: every file there, unchanged, and none too many.

    :raises IntegrityError: naming the files that differ.
    """
    started = time.monotonic()
    target = Target.open(models_uri, name, revision, context)
    with explained(target.asked):
        return _verified(target, target.require_manifest(), started, depth)


def _found(target: Target, owner: str, started: float) -> StagedModel | None:
    """Return a revision that is staged already, checked."""
    if target.context.expected_bucket_owner:
        target.region()
    with ThreadPoolExecutor(1) as pool:
        # Most of a re-staging that moves nothing is waiting for the store's listing.
        listing = pool.submit(target.stored)
        manifest = target.manifest()
        if manifest is None:
            return None
        _lock(target, owner).clear_abandoned()
    early = None if listing.exception() else listing.result()
    inspect(target, manifest, early=early)
    return _staged(target, manifest, moved=0, reused=True, started=started)


def _lock(target: Target, owner: str) -> StagingLock:
    context = target.context
    return StagingLock(target.objects, LOCK_NAME, owner, context.lock_stale_seconds, context.tags)


def _at(model: WeightsSpec, revision: str) -> WeightsSpec:
    """Return the model with its Hub repository at this revision: a branch may have moved on since the plan."""
    if not revision or not isinstance(model.source, HuggingFaceSource):
        return model
    return model.model_copy(update={"source": model.source.model_copy(update={"revision": revision})})


def _admitted(
    model: WeightsSpec,
    revision: str,
    target: Target,
    budget_bytes: int | None,
    notice: Callable[[str], None] | None,
) -> Listing:
    from include.staging.checks import check_formats
    from include.staging.gates import check_license, check_place

    listing = list_source(_at(model, revision), target.context)
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
    for sentence in (*check_license(model, listing), *check_place(target, listing), *check_formats(model, listing)):
        if notice is not None:
            notice(sentence)
    return listing


def _move_and_publish(
    model: WeightsSpec, listing: Listing, target: Target, owner: str, meter: Meter, *, repair: bool
) -> Manifest | None:
    """Move a revision and write its manifest; ``None`` when somebody else has done it meanwhile."""
    # A revision that is there needs neither.
    from include.staging.moving import move_all
    from include.staging.reuse import Reusable, find_reusable

    lock = _lock(target, owner)
    # What is repaired may have a manifest that nobody can read: then only the lock says when another repair is done.
    with lock.held(lambda: not repair and target.manifest() is not None) as ours:
        if not ours or (not repair and target.manifest() is not None):
            return None
        target.sweep_uploads()
        try:
            found = Reusable() if repair else find_reusable(target, listing.files)
            files = move_all(listing.files, target, found, lock.require_held, meter)
        except BaseException as error:
            _leave_no_parts(target, lock, error)
            raise
        return _publish(target, _manifest(model, listing, files, owner), lock, replace=repair)


def _leave_no_parts(target: Target, lock: StagingLock, error: BaseException) -> None:
    """Abort our uploads after a failure; those of a stager that took over are not ours to abort.

    What cannot succeed is not retried, so nobody else would.
    """
    try:
        target.sweep_uploads(lock.is_ours)
    except Exception as another:  # noqa: BLE001 (the first error is the one to tell)
        error.add_note(f"parts of unfinished uploads may be left: {another}")


def _manifest(model: WeightsSpec, listing: Listing, files: tuple[ManifestFile, ...], owner: str) -> Manifest:
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


def _publish(target: Target, manifest: Manifest, lock: StagingLock, *, replace: bool) -> Manifest:
    wanted = {file.path for file in manifest.files}
    stored = target.stored()
    lock.require_held()
    # Parts of a stager that we took over, begun after we had swept.
    target.sweep_uploads(lock.is_ours)
    for path in sorted(stored.keys() - wanted):
        target.objects.delete(f"{FILES_FOLDER}/{path}")
    found = list(compare(manifest, {path: info for path, info in stored.items() if path in wanted}))
    if found:
        raise refusal(found, target.objects.uri)
    try:
        target.objects.put(MANIFEST_NAME, manifest.to_bytes(), create=not replace, tags=target.context.tags)
    except AlreadyExistsError:
        return _published_by_another(target, manifest)
    return manifest


def _published_by_another(target: Target, ours: Manifest) -> Manifest:
    """Return the manifest that somebody wrote while we moved.

    :raises IntegrityError: it is not of what lies there now.
    """
    theirs = target.require_manifest()
    if theirs.digest != ours.digest:
        inspect(target, theirs, Depth.CHECKSUMS)
    return theirs


def _verified(target: Target, manifest: Manifest, started: float, depth: Depth = Depth.LISTING) -> StagedModel:
    inspect(target, manifest, depth)
    return _staged(target, manifest, moved=0, reused=True, started=started)


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


def _nothing_to_stage(model: WeightsSpec, revision: str) -> StagedModel:
    return StagedModel(
        name=model.name, revision=revision, uri="", manifest_uri="", manifest_digest="", files=0, total_bytes=0,
        reused=True,
    )  # fmt: skip
