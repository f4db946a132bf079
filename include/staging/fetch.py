"""From S3 into a folder (a file system that pods share, a node's disk): parallel, verified as it passes, no re-read."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from include.errors import ConfigurationError, FailureClass, IntegrityError, PipelineError
from include.staging.digests import crc_text
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest, ManifestFile
from include.staging.target import Target

PART = 8 << 20
PARTS_AT_ONCE = 12
READ = 16 << 20
# Room for the file system's own records.
MARGIN = 1.05


@dataclass(frozen=True)
class Fetched:
    """What a fetch did: folder of the files, bytes moved (0: all was there already)."""

    folder: Path
    moved_bytes: int


def fetch(target: Target, root: Path, count: Callable[[str, int], None] = lambda _, __: None) -> Fetched:
    """Copy a staged revision to ``<root>/<name>/<revision>/files``; its manifest is written beside, last.

    A file appears under its name only when its CRC64NVME is the manifest's. What an earlier attempt finished is
    kept.

    :param count: gets path and bytes as they arrive.
    :raises ConfigurationError: there is not enough room.
    :raises IntegrityError: naming the files whose bytes differ.
    """
    manifest = target.require_manifest()
    place = root / manifest.name / manifest.revision
    folder = place / FILES_FOLDER
    missing = [file for file in manifest.files if not _is_there(folder, file)]
    require_room(root, sum(file.size for file in missing))
    if missing:
        _fetch_all(target, folder, missing, count)
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


def warm(folder: Path, count: Callable[[str, int], None] = lambda _, __: None) -> int:
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
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        wrong = pool.map(lambda file: _read_check(place / FILES_FOLDER / file.path, file, count), manifest.files)
        _refuse([one for one in wrong if one], place)
    return manifest.total_bytes


def _is_there(folder: Path, file: ManifestFile) -> bool:
    try:
        return (folder / file.path).stat().st_size == file.size
    except FileNotFoundError:
        return False


def _partial(folder: Path, file: ManifestFile) -> Path:
    path = folder.parent / ".partial" / file.path
    if not path.resolve().is_relative_to(folder.parent.resolve()):
        raise IntegrityError("PathOutside", f"{file.path}: would be written outside {folder}")
    return path


def _fetch_all(target: Target, folder: Path, files: Iterable[ManifestFile], count: Callable[[str, int], None]) -> None:
    from awscrt.checksums import combine_crc64nvme

    wrong = []
    with ThreadPoolExecutor(PARTS_AT_ONCE) as pool:
        running = []
        for file in files:
            partial = _partial(folder, file)
            partial.parent.mkdir(parents=True, exist_ok=True)
            partial.touch()
            os.truncate(partial, file.size)
            ranges = [(begin, min(begin + PART, file.size)) for begin in range(0, file.size, PART)]
            parts = [pool.submit(_fetch_range, target, file, partial, *span, count) for span in ranges]
            running.append((file, partial, ranges, parts))
        try:
            for file, partial, ranges, parts in running:
                crc = 0
                for (begin, end), part in zip(ranges, parts, strict=True):
                    crc = combine_crc64nvme(crc, part.result(), end - begin)
                if crc_text(crc) != file.crc64nvme:
                    wrong.append(f"{file.path}: CRC64NVME is {crc_text(crc)}, manifest says {file.crc64nvme}")
                    partial.unlink()
                    continue
                _appear(partial, folder / file.path)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    _refuse(wrong, folder)
    shutil.rmtree(folder.parent / ".partial", ignore_errors=True)


def _fetch_range(
    target: Target, file: ManifestFile, partial: Path, begin: int, end: int, count: Callable[[str, int], None]
) -> int:
    """Write one range of a file; return its CRC64NVME."""
    import obstore
    from awscrt.checksums import crc64nvme

    path = f"{FILES_FOLDER}/{file.path}"
    try:
        # As one buffer: each hand-over from the network's threads to Python costs as much as some ten KiB of TLS.
        answer = obstore.get(target.objects.native, path, options={"range": (begin, end), "if_match": file.etag})
        data = memoryview(answer.bytes())
    except (FileNotFoundError, obstore.exceptions.PreconditionError) as error:
        raise IntegrityError(
            "StagedFileChanged", f"{file.path}: not what the manifest says: {error}", fix="verify the revision"
        ) from error
    except obstore.exceptions.BaseError as error:
        raise PipelineError("FetchFailed", f"{file.path}: {error}", failure_class=FailureClass.TRANSIENT) from error
    if len(data) != end - begin:
        cut = f"{file.path}: {len(data)} of {end - begin} bytes came"
        raise PipelineError("FetchFailed", cut, failure_class=FailureClass.TRANSIENT)
    descriptor, written = os.open(partial, os.O_WRONLY), 0
    try:
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], begin + written)
    finally:
        os.close(descriptor)
    count(file.path, len(data))
    return int(crc64nvme(data, 0))


def _appear(partial: Path, final: Path) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
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


def _read_check(path: Path, file: ManifestFile, count: Callable[[str, int], None]) -> str | None:
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
