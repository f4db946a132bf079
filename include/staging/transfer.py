"""Staged files into files of this machine: by reader processes, and what they could not read by the store's client."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit

from include.errors import FailureClass, IntegrityError, PipelineError
from include.staging.manifest import FILES_FOLDER, ManifestFile
from include.staging.ranges import Range, split
from include.staging.readers import PART, Readers
from include.staging.target import Target

SIGNED_FOR = dt.timedelta(hours=12)
BY_THE_STORES_CLIENT_AT_ONCE = 8
Count = Callable[[str, int], None]


@dataclass(frozen=True)
class Wanted:
    """A staged file, the file of this machine, of its size already, that gets its bytes, and what has arrived.

    :param crcs: CRC64NVME of each range that is written.
    """

    file: ManifestFile
    path: Path
    crcs: dict[Range, int] = field(default_factory=dict)

    def whole(self) -> int:
        """CRC64NVME of all ranges together."""
        from awscrt.checksums import combine_crc64nvme

        crc = 0
        for span in sorted(self.crcs):
            crc = combine_crc64nvme(crc, self.crcs[span], span.end - span.begin)
        return crc


def transfer(target: Target, wanted: Sequence[Wanted], readers: Readers, count: Count) -> Iterator[tuple[Wanted, int]]:
    """Read files; yields each once all its bytes are written, with their CRC64NVME. In no particular order.

    :raises IntegrityError: a file is not there, or not the one that the manifest describes.
    :raises PipelineError: the store cannot be read.
    """
    left, told = split([one.file.size for one in wanted], PART), set[int]()
    for one in wanted:
        if not one.file.size:
            yield one, 0
    for said in readers.read(_orders(target, wanted)):
        one = wanted[said["file"]]
        if "bytes" in said:
            count(one.file.path, said["bytes"])
        elif "begin" not in said:
            told.add(said["file"])
            yield one, said["crc"]
        elif "crc" in said:
            one.crcs[Range(said["file"], said["begin"], said["begin"] + said["size"])] = said["crc"]
    left = sorted(span for span in left if span not in wanted[span.file].crcs)
    told.update(span.file for span in left)
    for number, one in enumerate(wanted):
        # A reader that was killed may have said every range of a file, and no longer that it is complete.
        if one.file.size and number not in told:
            yield one, one.whole()
    yield from _by_the_stores_client(target, wanted, left, count)


def _by_the_stores_client(
    target: Target, wanted: Sequence[Wanted], left: Sequence[Range], count: Count
) -> Iterator[tuple[Wanted, int]]:
    with ThreadPoolExecutor(BY_THE_STORES_CLIENT_AT_ONCE) as pool:
        try:
            crcs = pool.map(lambda span: _read_range(target, wanted[span.file], span, count), left)
            for number, (span, crc) in enumerate(zip(left, crcs, strict=True), 1):
                wanted[span.file].crcs[span] = crc
                if number == len(left) or left[number].file != span.file:
                    yield wanted[span.file], wanted[span.file].whole()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _orders(target: Target, wanted: Sequence[Wanted]) -> list[dict[str, object]]:
    """Return what readers are told; nothing where a proxy stands between: only the store's client can use one."""
    import obstore

    paths = [f"{FILES_FOLDER}/{one.file.path}" for one in wanted]
    try:
        urls = obstore.sign(cast("obstore.store.S3Store", target.objects.native), "GET", paths, SIGNED_FOR)
    except obstore.exceptions.BaseError:
        return []
    if _behind_a_proxy(urls[0]):
        return []
    return [
        {"url": url, "path": str(one.path), "size": one.file.size, "etag": f'"{one.file.etag}"'}
        for url, one in zip(urls, wanted, strict=True)
    ]


def _behind_a_proxy(url: str) -> bool:
    if not any(name.casefold().endswith("_proxy") for name in os.environ):
        return False
    from urllib.request import getproxies, proxy_bypass

    host, proxies = urlsplit(url), getproxies()
    return (host.scheme in proxies or "all" in proxies) and not proxy_bypass(host.netloc)


def _read_range(target: Target, wanted: Wanted, span: Range, count: Count) -> int:
    """Write one range of a file by the store's client; return its CRC64NVME."""
    import obstore
    from awscrt.checksums import crc64nvme

    file = wanted.file
    options: obstore.GetOptions = {"range": (span.begin, span.end), "if_match": file.etag}
    try:
        data = memoryview(obstore.get(target.objects.native, f"{FILES_FOLDER}/{file.path}", options=options).bytes())
    except (FileNotFoundError, obstore.exceptions.PreconditionError) as error:
        raise IntegrityError(
            "StagedFileChanged", f"{file.path}: not what the manifest says: {error}", fix="verify the revision"
        ) from error
    except obstore.exceptions.BaseError as error:
        raise PipelineError("FetchFailed", f"{file.path}: {error}", failure_class=FailureClass.TRANSIENT) from error
    if len(data) != span.end - span.begin:
        cut = f"{file.path}: {len(data)} of {span.end - span.begin} bytes came"
        raise PipelineError("FetchFailed", cut, failure_class=FailureClass.TRANSIENT)
    descriptor, written = os.open(wanted.path, os.O_WRONLY), 0
    try:
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], span.begin + written)
    finally:
        os.close(descriptor)
    count(file.path, len(data))
    return int(crc64nvme(data, 0))
