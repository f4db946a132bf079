"""What lies where: a staged revision, a folder, or a file system that only pods can mount."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from include.catalog.specs import ClusterSpec
from include.errors import ConfigurationError
from include.staging.inspection import compare
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest
from include.staging.pvcjob import ClaimJob, run_job
from include.staging.target import Target

# The local cluster runs this repository's own modules.
LOCAL_IMAGE = "hyperpod.local/stager:1"


def explore_target(target: Target) -> Iterator[str]:
    """Yield a line for each file of a revision, and how it differs from the manifest."""
    stored = target.stored()
    for path, info in sorted(stored.items()):
        yield _line(path, info.size)
    manifest = target.manifest()
    yield f"{len(stored)} files, {sum(info.size for info in stored.values())} bytes at {target.objects.uri}"
    if manifest is None:
        yield "no manifest: not staged"
        return
    differences = [text for _, text in compare(manifest, stored)]
    yield from differences or [f"as its manifest {manifest.digest} says"]


def explore_folder(folder: Path) -> Iterator[str]:
    """Yield a line for each file below a folder, and how staged revisions in it differ from their manifests.

    :raises ConfigurationError: there is no such folder.
    """
    if not folder.is_dir():
        raise ConfigurationError("NoSuchFolder", f"{folder} is not a folder", fix="correct --path")
    files = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    for name, size in sorted(files.items()):
        yield _line(name, size)
    yield f"{len(files)} files, {sum(files.values())} bytes"
    for name in sorted(name for name in files if Path(name).name == MANIFEST_NAME):
        place = (folder / name).parent
        manifest = Manifest.from_bytes((place / MANIFEST_NAME).read_bytes(), name)
        wrong = [file.path for file in manifest.files if not _same_size(place / FILES_FOLDER / file.path, file.size)]
        said = f"missing or of another size: {', '.join(wrong)}" if wrong else "all files there, with their sizes"
        yield f"{manifest.name}/{manifest.revision} {manifest.digest}: {said}"


def explore_claim(kube: Any, cluster: ClusterSpec, claim: str, path: str, image: str | None) -> Iterator[str]:
    """Yield what ``explore_folder`` says of a path inside a PersistentVolumeClaim; its pod is gone afterwards.

    The pod runs as the cluster's deliveries do.

    :param kube: ``kubernetes.client.ApiClient``.
    :param image: what the pod runs; ``None``: the image of the cluster's deliveries.
    :raises ConfigurationError: neither is known.
    """
    mount, how = "/fsx", cluster.fsx_delivery
    image = image or (how.image if how else LOCAL_IMAGE if cluster.name == "local" else None)
    if image is None:
        raise ConfigurationError(
            "NoImage",
            f"cluster {cluster.name!r} has no fsx_delivery, so there is no image to look with",
            fix="set fsx_delivery in the cluster's file, or name one: --image",
        )
    job = ClaimJob(
        name=f"explore-{uuid.uuid4().hex[:8]}",
        namespace=cluster.namespace,
        image=image,
        claim=claim,
        arguments=("explore", "--folder", f"{mount}/{path.strip('/')}".rstrip("/")),
        mount=mount,
        read_only=True,
        service_account=how.service_account if how else None,
        node_selector=how.node_selector if how else {},
        deadline_seconds=600,
    )
    yield from run_job(kube, job).splitlines()


def discard_folder(folder: Path) -> int:
    """Delete a fetched revision, its manifest first: what is left by a killed deletion counts as nothing.

    :returns: the bytes that it had; 0 when it is not there.
    :raises ConfigurationError: the folder holds no revision.
    """
    if not folder.exists():
        return 0
    manifest = folder / MANIFEST_NAME
    if folder.is_symlink() or not (manifest.is_file() or (folder / FILES_FOLDER).is_dir()):
        raise ConfigurationError(
            "NotARevision",
            f"{folder} has neither {MANIFEST_NAME} nor {FILES_FOLDER}",
            fix="name the folder <model>/<revision>",
        )
    size = sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())
    manifest.unlink(missing_ok=True)
    shutil.rmtree(folder)
    return size


def _same_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _line(name: str, size: int) -> str:
    return f"{size:>15,} {name}"
