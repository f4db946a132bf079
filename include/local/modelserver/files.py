"""The model's files: which one is served, and proof of which bytes they are."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

from include.canonical import digest

CONTAINER_FOLDER = "/opt/ml/model"
MOUNT_VARIABLE = "HYPERPOD_LOCAL_MOUNT_"
DIGEST_VARIABLE = "HYPERPOD_LOCAL_MANIFEST_DIGEST"
MANIFEST = "manifest.json"


def model_folder(given: str | None, environment: Mapping[str, str] = os.environ) -> Path:
    """Return the folder with the weights.

    A container sees its volume at /opt/ml/model; a process of the host finds it where the node agent put it:
    ``given``, else ``SM_MODEL_DIR``, else the first mount that holds a GGUF file.

    :raises FileNotFoundError: naming every place that was looked at.
    """
    named = [place for place in (given, environment.get("SM_MODEL_DIR")) if place]
    mounts = [environment[name] for name in sorted(environment) if name.startswith(MOUNT_VARIABLE)]
    for place in [*named, *mounts, CONTAINER_FOLDER]:
        if Path(place).is_dir() and any(Path(place).rglob("*.gguf")):
            return Path(place)
    looked = ", ".join([*named, *mounts, CONTAINER_FOLDER])
    raise FileNotFoundError(f"no .gguf file below any of: {looked}")


def find_model(folder: Path) -> Path:
    """Return the one GGUF file below ``folder``.

    :raises FileNotFoundError: when there is none, or more than one.
    """
    found = sorted(folder.rglob("*.gguf"))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder}: expected one .gguf file, found {[path.name for path in found]}")
    return found[0]


def sha256_of_files(folder: Path) -> dict[str, str]:
    """Return hex sha256 by path relative to ``folder``, of every file below it."""
    return {str(path.relative_to(folder)): _sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def manifest_digest(folder: Path, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return ``sha256:<hex>`` of the staging manifest, ``None`` without one.

    The node agent tells it, having checked every file against it; else it is read in or next to ``folder``.
    """
    told = environment.get(DIGEST_VARIABLE)
    if told:
        return told
    for path in (folder / MANIFEST, folder.parent / MANIFEST):
        if path.is_file():
            return digest(json.loads(path.read_text()))
    return None


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
