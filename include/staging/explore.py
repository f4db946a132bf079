"""What lies where: a staged revision, a folder, or a file system that only pods can mount."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from include.errors import ConfigurationError
from include.staging.inspection import compare
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest
from include.staging.pvcjob import ClaimJob, run_job
from include.staging.target import Target


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


def explore_claim(kube: Any, namespace: str, claim: str, path: str, image: str) -> Iterator[str]:
    """Yield what ``explore_folder`` says of a path inside a PersistentVolumeClaim; its pod is gone afterwards.

    :param kube: ``kubernetes.client.ApiClient``.
    """
    mount = "/fsx"
    job = ClaimJob(
        name=f"explore-{uuid.uuid4().hex[:8]}",
        namespace=namespace,
        image=image,
        claim=claim,
        arguments=("explore", "--folder", f"{mount}/{path.strip('/')}".rstrip("/")),
        mount=mount,
        read_only=True,
        deadline_seconds=600,
    )
    yield from run_job(kube, job).splitlines()


def _same_size(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _line(name: str, size: int) -> str:
    return f"{size:>15,} {name}"
