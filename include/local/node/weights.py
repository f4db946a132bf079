"""The model volume: a staged prefix fetched from S3, every byte checked against its manifest before use."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from include.canonical import digest
from include.objects import Objects

FILES = "files"
MANIFEST = "manifest.json"
NOT_CONTENT = ("digest", "created_at", "created_by")


class WeightsError(Exception):
    """The weights cannot be used; the message names the file.

    :param integrity: the bytes are not the staged ones; otherwise they could not be read.
    """

    def __init__(self, message: str, *, integrity: bool = True) -> None:
        super().__init__(message)
        self.integrity = integrity


@dataclass(frozen=True)
class Fetched:
    """What a fetch brought; ``manifest_digest`` is empty for a prefix that has no manifest."""

    files: int
    size: int
    manifest_digest: str


def fetch(bucket_uri: str, prefix: str, folder: Path, *, expected_digest: str = "") -> Fetched:
    """Copy a prefix into ``folder``.

    A prefix that ends with ``/files`` is a staged model: its manifest lies next to it, and exactly the files
    listed there, with those sizes and sha256 digests, are accepted. Any other prefix is copied as it is.

    :param expected_digest: ``sha256:<hex>`` of the manifest; empty: not asked.
    :raises WeightsError: naming the file that is missing, extra, or differs.
    """
    prefix = prefix.strip("/")
    if PurePosixPath(prefix).name == FILES:
        return _fetch_staged(bucket_uri, str(PurePosixPath(prefix).parent), folder, expected_digest)
    store = Objects.open(f"{bucket_uri}/{prefix}" if prefix else bucket_uri)
    found = list(store.list())
    if not found:
        raise WeightsError(f"no object below {store.uri}", integrity=False)
    size = 0
    for item in found:
        size += _copy(store, item.path, folder)[1]
    return Fetched(len(found), size, "")


def verify_folder(folder: Path) -> str:
    """Check a folder named ``files`` of a shared file system against the manifest next to it.

    :returns: the manifest's digest; empty when the folder is not a staged model.
    :raises WeightsError: naming the file that is missing, extra, or differs.
    """
    path = folder.parent / MANIFEST
    if folder.name != FILES or not path.exists():
        return ""
    manifest = _parse(path.read_bytes(), str(path))
    entries = {str(entry["path"]): entry for entry in manifest["files"]}
    found = {str(item.relative_to(folder)) for item in folder.rglob("*") if item.is_file()}
    if found != set(entries):
        odd = sorted(found ^ set(entries))[0]
        raise WeightsError(f"{folder / odd} is in only one of the folder and its manifest")
    for name, entry in entries.items():
        with (folder / name).open("rb") as file:
            sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        if sha256 != entry["sha256"]:
            raise WeightsError(f"{folder / name} has sha256 {sha256}, the manifest says {entry['sha256']}")
    return manifest_digest(manifest)


def manifest_digest(manifest: dict[str, Any]) -> str:
    """Return a stored manifest's digest; when and by whom it was written is not part of what it says."""
    return digest({key: value for key, value in manifest.items() if key not in NOT_CONTENT})


def _fetch_staged(bucket_uri: str, parent: str, folder: Path, expected_digest: str) -> Fetched:
    store = Objects.open(f"{bucket_uri}/{parent}")
    manifest = _read_manifest(store, expected_digest)
    entries = {str(entry["path"]): entry for entry in manifest["files"]}
    stored = {item.path.removeprefix(f"{FILES}/"): item for item in store.list(FILES)}
    for path in sorted(entries.keys() - stored.keys()):
        raise WeightsError(f"{store.url(f'{FILES}/{path}')} is in the manifest but not in the store")
    for path in sorted(stored.keys() - entries.keys()):
        raise WeightsError(f"{store.url(f'{FILES}/{path}')} is in the store but not in the manifest")
    for path, entry in entries.items():
        _check(store, path, entry, folder)
    return Fetched(len(entries), sum(int(e["size"]) for e in entries.values()), manifest_digest(manifest))


def _read_manifest(store: Objects, expected_digest: str) -> dict[str, Any]:
    data = store.get(MANIFEST)
    if data is None:
        raise WeightsError(f"{store.url(MANIFEST)} does not exist: the model is not staged")
    manifest = _parse(data, store.url(MANIFEST))
    found = manifest_digest(manifest)
    if expected_digest and found != expected_digest:
        raise WeightsError(f"{store.url(MANIFEST)} has digest {found}, expected {expected_digest}")
    return manifest


def _parse(data: bytes, url: str) -> dict[str, Any]:
    try:
        manifest: dict[str, Any] = json.loads(data)
        for entry in manifest["files"]:
            _ = entry["path"], int(entry["size"]), entry["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{url} is not a manifest: {error!r}") from error
    return manifest


def _check(store: Objects, path: str, entry: dict[str, Any], folder: Path) -> None:
    sha256, size = _copy(store, f"{FILES}/{path}", folder, strip=f"{FILES}/")
    url = store.url(f"{FILES}/{path}")
    if size != int(entry["size"]):
        raise WeightsError(f"{url} has {size} bytes, the manifest says {entry['size']}")
    if sha256 != entry["sha256"]:
        raise WeightsError(f"{url} has sha256 {sha256}, the manifest says {entry['sha256']}")


def _copy(store: Objects, path: str, folder: Path, *, strip: str = "") -> tuple[str, int]:
    """Stream an object into a file; return its sha256 (hex) and size in bytes."""
    import obstore

    target = (folder / path.removeprefix(strip)).resolve()
    if not target.is_relative_to(folder.resolve()):
        raise WeightsError(f"{store.url(path)} would be written outside the volume")
    target.parent.mkdir(parents=True, exist_ok=True)
    sha, size = hashlib.sha256(), 0
    try:
        with target.open("wb") as file:
            for chunk in obstore.get(store.native, path).stream(min_chunk_size=4 << 20):
                file.write(chunk)
                sha.update(chunk)
                size += len(chunk)
    except (OSError, obstore.exceptions.BaseError) as error:
        raise WeightsError(f"{store.url(path)} cannot be read: {error}", integrity=False) from error
    return sha.hexdigest(), size
