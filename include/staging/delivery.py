"""From the bucket onto the cluster's FSx file system: by an import or by a Job that copies, then read and checked."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from include.catalog.specs import ClusterSpec, FsxDelivery, JumpStartSource, ModelSpec, Spec
from include.errors import ConfigurationError
from include.objects import Objects
from include.staging.context import StagingContext
from include.staging.fsx import Lustre
from include.staging.manifest import FILES_FOLDER, Manifest
from include.staging.pvcjob import ClaimJob, copy_job, run_job
from include.staging.sources import list_source
from include.staging.target import Target, bucket_and_prefix, open_objects

MOUNT = "/fsx"
REPORTS, RECORDS = ".fsx-reports", ".fsx-delivered"


@dataclass(frozen=True)
class Place:
    """Where and how a model's weights get onto FSx.

    :param poll_seconds: between two looks at FSx's lifecycles.
    """

    delivery: FsxDelivery
    system_id: str
    namespace: str
    poll_seconds: float = 2.0


class Delivered(Spec):
    """A revision that is on the file system, every byte read there and compared with the manifest.

    :param location: of its files on the file system; the endpoint's ``modelLocation``.
    """

    way: str
    file_system_id: str
    location: str
    manifest_digest: str
    bytes: int
    seconds: float


def place_of(model: ModelSpec, cluster: ClusterSpec) -> Place | None:
    """Return where a model's weights must go besides the bucket; ``None``: nowhere.

    :raises ConfigurationError: it is served from FSx and the cluster does not say how weights get there.
    """
    deployment = model.deployment
    if deployment.model_source != "fsx" or isinstance(model.source, JumpStartSource):
        return None
    if deployment.model_location is not None:
        # A person put the weights there, and says where.
        return None
    system_id = (deployment.fsx.file_system_id if deployment.fsx else None) or cluster.fsx_file_system_id
    if system_id is None or cluster.fsx_delivery is None:
        missing = "fsx_file_system_id" if system_id is None else "fsx_delivery"
        raise ConfigurationError(
            "FsxUndescribed",
            f"model {model.name!r} is served from FSx, but cluster {cluster.name!r} has no {missing}",
            fix=f"set {missing} in the cluster's file, or deployment.model_location if the weights are there already",
        )
    return Place(cluster.fsx_delivery, system_id, cluster.namespace)


def deliver(target: Target, place: Place, say: Callable[[str], None] = lambda _: None) -> Delivered:
    """Bring a staged revision onto the file system.

    :param target: the staged revision; its context has the Kubernetes client.
    :raises PipelineError: no room, FSx or the Job failed; nothing of the bucket is changed.
    :raises IntegrityError: the bytes on the file system are not the manifest's.
    """
    started = time.monotonic()
    manifest = target.require_manifest()
    root = bucket_and_prefix(target.models_uri)[1]
    lustre = Lustre(target.context, place.system_id, place.poll_seconds)
    lustre.require_room(manifest.total_bytes, arriving=not _is_known(target, place, manifest))
    if place.delivery.way == "import":
        lustre.associate(f"/{root}", target.models_uri, say)
        counts = lustre.bring_in(target.objects.uri, f"{target.models_uri}/{REPORTS}", say)
        say(f"{counts.get('SucceededCount', 0)} files imported, now they are read")
    run_job(target.context.kube, _job(target, place, root, manifest), say)
    done = Delivered(
        way=place.delivery.way,
        file_system_id=place.system_id,
        location="/".join(part for part in (root, manifest.name, manifest.revision, FILES_FOLDER) if part),
        manifest_digest=manifest.digest,
        bytes=manifest.total_bytes,
        seconds=time.monotonic() - started,
    )
    _records(target).put(_record(target, place), done.model_dump_json().encode())
    return done


def delivered_to(models_uri: str, context: StagingContext) -> dict[tuple[str, str], list[str]]:
    """Return the ids of the file systems that revisions were delivered to, by name and revision."""
    found: dict[tuple[str, str], list[str]] = {}
    for info in open_objects(f"{models_uri.rstrip('/')}/{RECORDS}", context).list():
        system_id, name, file = info.path.split("/")
        found.setdefault((name, file.removesuffix(".json")), []).append(system_id)
    return found


def discard(target: Target, place: Place, say: Callable[[str], None] = lambda _: None) -> None:
    """Delete a delivered revision from the file system, through a Job, and forget that it was there.

    :raises PipelineError: the Job failed; what it left is still recorded.
    """
    *_, name, _ = target.prefix.split("/")
    work = hashlib.sha256(f"discard {target.prefix} {place.system_id}".encode()).hexdigest()
    job = _claim_job(target, place, f"discard-{name[:40].rstrip('-.')}-{work[:12]}")
    run_job(target.context.kube, replace(job, arguments=("discard", f"{MOUNT}/{target.prefix}")), say)
    _records(target).delete(_record(target, place))


def require_room(model: ModelSpec, revision: str, models_uri: str, context: StagingContext, place: Place) -> None:
    """Check, before anything is staged, that the file system has room for a revision.

    :raises PipelineError: the file system is absent, not usable, or too small; or the source cannot be read.
    """
    target = Target.open(models_uri, model.name, revision, context)
    manifest = target.manifest()
    total = list_source(model, context).total_bytes if manifest is None else manifest.total_bytes
    known = manifest is not None and _is_known(target, place, manifest)
    Lustre(context, place.system_id, place.poll_seconds).require_room(total, arriving=not known)


def _is_known(target: Target, place: Place, manifest: Manifest) -> bool:
    """True when a delivery of this manifest was recorded."""
    found = json.loads(_records(target).get(_record(target, place)) or b"{}")
    return bool(found.get("manifest_digest") == manifest.digest)


def _records(target: Target) -> Objects:
    return open_objects(f"{target.models_uri}/{RECORDS}", target.context)


def _record(target: Target, place: Place) -> str:
    *_, name, revision = target.prefix.split("/")
    return f"{place.system_id}/{name}/{revision}.json"


def _job(target: Target, place: Place, root: str, manifest: Manifest) -> ClaimJob:
    """Return the Job of a way: it copies and reads, or only reads what was imported.

    Its name is that of its work: a retry finds the Job of a killed try.
    """
    how = place.delivery
    work = hashlib.sha256(f"{manifest.digest} {how.model_dump_json()} {target.models_uri}".encode()).hexdigest()
    made = _claim_job(target, place, f"stage-{manifest.name[:40].rstrip('-.')}-{work[:12]}")
    if how.way == "copy":
        return made
    folder = "/".join(part for part in (MOUNT, root, manifest.name, manifest.revision) if part)
    return made.reading(folder)


def _claim_job(target: Target, place: Place, name: str) -> ClaimJob:
    how = place.delivery
    return copy_job(
        target,
        name,
        place.namespace,
        how.claim,
        how.image,
        root=bucket_and_prefix(target.models_uri)[1],
        mount=MOUNT,
        service_account=how.service_account,
        node_selector=how.node_selector,
        cpu=how.cpu,
        memory=how.memory,
        deadline_seconds=how.max_seconds,
    )
