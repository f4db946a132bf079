"""Garbage collection of staged revisions: by count and age, never one that is in use."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from include.errors import IntegrityError
from include.objects import Objects
from include.staging.context import StagingContext
from include.staging.manifest import MANIFEST_NAME
from include.staging.refusals import Asked
from include.staging.reuse import revisions
from include.staging.target import LOCK_NAME, Target, in_its_region, manifest_of
from include.staging.uploads import NO_UPLOADS, Uploads, unfinished_uploads

Revision = tuple[str, str]
"""Name and revision."""


@dataclass(frozen=True)
class Staged:
    """One revision below ``models_uri``.

    :param at: when it was staged; for an unfinished one when its newest object was written.
    :param finished: it has a manifest.
    :param damaged: the manifest's error: nobody knows what is in there, so a person must look.
    :param size: bytes in the store, whatever the manifest says.
    :param uploads: what no listing shows, and costs the same.
    """

    name: str
    revision: str
    at: dt.datetime
    finished: bool
    size: int
    objects: int
    digest: str = ""
    damaged: str = ""
    uploads: Uploads = NO_UPLOADS

    @property
    def key(self) -> Revision:
        """Name and revision."""
        return self.name, self.revision


@dataclass(frozen=True)
class Retention:
    """What is kept: the newest ``count`` of each model, and everything younger than ``age``."""

    count: int = 2
    age: dt.timedelta = dt.timedelta(days=7)


@dataclass(frozen=True)
class Decision:
    """What happens to a revision, and why."""

    staged: Staged
    delete: bool
    reason: str


def list_staged(models_uri: str, context: StagingContext, name: str | None = None) -> list[Staged]:
    """Return every revision below ``models_uri``, newest first within a model."""
    asked = Asked("models_uri", models_uri, context)
    root, staged = in_its_region(models_uri, context, asked, lambda root: (root, revisions(root)))
    uploads = unfinished_uploads(models_uri, context)
    pairs = [pair for pair in sorted({*staged, *uploads}) if name in (None, pair[0])]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda pair: _look(root, pair, uploads.get(pair, NO_UPLOADS)), pairs))
    return sorted(found, key=lambda one: (one.name, -one.at.timestamp()))


def _look(root: Objects, pair: Revision, uploads: Uploads) -> Staged:
    import obstore

    folder = "/".join(pair)
    metas = [meta for page in obstore.list(root.native, folder) for meta in page]
    times = [meta["last_modified"] for meta in metas] + ([uploads.newest] if uploads.newest else [])
    newest = max(times, default=dt.datetime.now(dt.UTC))
    size = sum(meta["size"] for meta in metas)
    data = root.get(f"{folder}/{MANIFEST_NAME}")
    if data is None:
        return Staged(*pair, newest, False, size, len(metas), uploads=uploads)
    try:
        manifest = manifest_of(data, *pair, f"{root.uri}/{folder}/{MANIFEST_NAME}")
    except IntegrityError as error:
        return Staged(*pair, newest, True, size, len(metas), damaged=str(error), uploads=uploads)
    return Staged(*pair, manifest.created_at, True, size, len(metas), manifest.digest, uploads=uploads)


def decide(
    staged: Iterable[Staged], retention: Retention, in_use: Collection[Revision], now: dt.datetime
) -> list[Decision]:
    """Decide about every revision. Pure.

    :param in_use: what a live endpoint or a last-good record uses: always kept.
    """
    found: list[Decision] = []
    seen: dict[str, int] = {}
    for one in sorted(staged, key=lambda item: (item.name, -item.at.timestamp())):
        rank = seen.get(one.name, 0)
        seen[one.name] = rank + (one.finished and not one.damaged)
        if one.key in in_use:
            found.append(Decision(one, False, "in use"))
        elif one.damaged:
            found.append(Decision(one, False, f"damaged, look at it: {one.damaged}"))
        elif now - one.at < retention.age:
            found.append(Decision(one, False, f"younger than {retention.age.days} days"))
        elif one.finished and rank < retention.count:
            found.append(Decision(one, False, f"among the {retention.count} newest"))
        else:
            found.append(Decision(one, True, "old" if one.finished else "never finished"))
    return found


def delete(models_uri: str, staged: Staged, context: StagingContext) -> int:
    """Delete a revision; the manifest goes first, so that a killed deletion leaves nothing that counts as staged.

    :returns: the number of objects that were deleted.
    """
    target = Target.open(models_uri, staged.name, staged.revision, context)
    # First what asks whose the bucket is: a deletion itself cannot.
    target.sweep_uploads()
    target.objects.delete(MANIFEST_NAME)
    paths = [info.path for info in target.objects.list() if info.path != LOCK_NAME]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(target.objects.delete, paths))
    target.objects.delete(LOCK_NAME)
    return len(paths) + 1
