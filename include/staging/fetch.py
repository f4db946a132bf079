"""From S3 into a folder (a file system that pods share, a node's disk): parallel, verified as it passes, no re-read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from include.errors import ConfigurationError, IntegrityError
from include.staging.digests import crc_text
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest, ManifestFile
from include.staging.readers import Readers
from include.staging.target import Target
from include.staging.transfer import Count, Wanted, transfer

READS_AT_ONCE = 12
READ = 16 << 20
FLUSHES_AT_ONCE = 2
# Room for the file system's own records.
MARGIN = 1.05


@dataclass(frozen=True)
class Fetched:
    """What a fetch did: folder of the files, bytes moved (0: all was there already)."""

    folder: Path
    moved_bytes: int


def fetch(
    target: Target,
    root: Path,
    count: Count = lambda _, __: None,
    *,
    durable: bool = False,
    readers: Readers | None = None,
    manifest: Manifest | None = None,
) -> Fetched:
    """Copy a staged revision to ``<root>/<name>/<revision>/files``; its manifest is written beside, last.

    A file appears under its name only when its CRC64NVME is the manifest's. What is there already is read, and
    fetched again where it differs.

    :param count: gets path and bytes as they arrive.
    :param durable: return only when the bytes are on the disk, not only in this machine's memory: what reports the
        revision as there to others wants that.
    :param readers: started before, while this module was loaded.
    :param manifest: the revision's, when the caller has read it.
    :raises ConfigurationError: there is not enough room.
    :raises IntegrityError: naming the files whose bytes differ.
    """
    with readers or Readers() as started:
        manifest = manifest or target.require_manifest()
        place = root / manifest.name / manifest.revision
        folder = place / FILES_FOLDER
        missing = _missing(folder, manifest)
        require_room(root, sum(file.size for file in missing))
        if missing:
            _fetch_all(target, folder, missing, started, count, durable=durable)
    _write_manifest(place, manifest)
    return Fetched(folder, sum(file.size for file in missing))


def require_room(root: Path, needed: int) -> None:
    """Check the free space of a file system.

    :raises ConfigurationError: naming what is needed and what there is.
    """
    root.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(root).free
    if free < needed * MARGIN:
        raise ConfigurationError(
            "NoRoom",
            f"{root}: {needed} bytes are to be written, {free} are free",
            fix="collect old revisions (python -m include.staging collect), or use a larger file system",
        )


def warm(folder: Path, count: Count = lambda _, __: None) -> int:
    """Read every file of a fetched or imported revision, so that its bytes are resident, and check them meanwhile.

    On FSx for Lustre reading a file that was only imported brings its bytes from S3. Needs no privileges.

    :param folder: ``…/<name>/<revision>``, or its ``files``.
    :returns: bytes read.
    :raises IntegrityError: naming the files that are missing or differ from the manifest beside them.
    """
    place = folder.parent if folder.name == FILES_FOLDER else folder
    path = place / MANIFEST_NAME
    if not path.exists():
        raise IntegrityError("NotStaged", f"{path}: there is no manifest", fix="fetch or import the revision")
    manifest = Manifest.from_bytes(path.read_bytes(), str(path))
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        wrong = pool.map(lambda file: _read_check(place / FILES_FOLDER / file.path, file, count), manifest.files)
        _refuse([one for one in wrong if one], place)
    return manifest.total_bytes


def _missing(folder: Path, manifest: Manifest) -> list[ManifestFile]:
    """Return the files that are not there, or are not what the manifest says: those are removed."""

    def wrong(file: ManifestFile) -> bool:
        path = folder / file.path
        if not path.exists():
            return True
        if path.stat().st_size == file.size and not _read_check(path, file):
            return False
        path.unlink()
        return True

    if not folder.exists():
        return list(manifest.files)
    with ThreadPoolExecutor(READS_AT_ONCE) as pool:
        return [
            file for file, is_wrong in zip(manifest.files, pool.map(wrong, manifest.files), strict=True) if is_wrong
        ]


def _partial(folder: Path, file: ManifestFile) -> Path:
    path = folder.parent / ".partial" / file.path
    if not path.resolve().is_relative_to(folder.parent.resolve()):
        raise IntegrityError("PathOutside", f"{file.path}: would be written outside {folder}")
    return path


def _fetch_all(
    target: Target, folder: Path, files: Sequence[ManifestFile], readers: Readers, count: Count, *, durable: bool
) -> None:
    wanted = [Wanted(file, _partial(folder, file)) for file in files]
    for one in wanted:
        one.path.parent.mkdir(parents=True, exist_ok=True)
        one.path.touch()
        os.truncate(one.path, one.file.size)
    wrong: list[str] = []
    with ThreadPoolExecutor(FLUSHES_AT_ONCE) as pool:
        appearing = []
        for one, crc in transfer(target, wanted, readers, count):
            if crc_text(crc) == one.file.crc64nvme:
                appearing.append(pool.submit(_appear, one.path, folder / one.file.path, durable=durable))
            else:
                wrong.append(f"{one.file.path}: CRC64NVME is {crc_text(crc)}, manifest says {one.file.crc64nvme}")
                one.path.unlink()
        for future in appearing:
            future.result()
    _refuse(wrong, folder)
    shutil.rmtree(folder.parent / ".partial", ignore_errors=True)


def _appear(partial: Path, final: Path, *, durable: bool) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    if durable:
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    partial.replace(final)


def _write_manifest(place: Path, manifest: Manifest) -> None:
    partial = place / f".{MANIFEST_NAME}.{os.getpid()}"
    place.mkdir(parents=True, exist_ok=True)
    partial.write_bytes(manifest.to_bytes())
    partial.replace(place / MANIFEST_NAME)


def _read_check(path: Path, file: ManifestFile, count: Count = lambda _, __: None) -> str | None:
    from awscrt.checksums import crc64nvme

    crc = size = 0
    try:
        with path.open("rb", buffering=0) as source:
            while chunk := source.read(READ):
                crc = crc64nvme(chunk, crc)
                size += len(chunk)
                count(file.path, len(chunk))
    except FileNotFoundError:
        return f"{file.path}: not there"
    if size != file.size or crc_text(crc) != file.crc64nvme:
        return (
            f"{file.path}: {size} bytes with CRC64NVME {crc_text(crc)}, manifest says {file.size} and {file.crc64nvme}"
        )
    return None


def _refuse(wrong: list[str], place: Path) -> None:
    if wrong:
        raise IntegrityError(
            "FetchedFileChanged",
            f"{place}: {'; '.join(wrong[:5])}",
            fix="fetch it again; if it repeats, verify the staged revision",
            evidence=tuple(wrong),
        )
