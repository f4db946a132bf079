"""Ranges of staged files into local files: by reader processes, and what they could not read by the store's client."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from include.errors import FailureClass, IntegrityError, PipelineError
from include.objects import PROJECT_ROOT
from include.staging.manifest import FILES_FOLDER, ManifestFile
from include.staging.reader import Range, split
from include.staging.target import Target

PART = 16 << 20
# Two a core: one decrypts while the other waits for the network or the disk. One connection each.
READERS_A_CORE, FEWEST_READERS, MOST_READERS = 2, 4, 16
SIGNED_FOR = dt.timedelta(hours=12)
BY_THE_STORES_CLIENT_AT_ONCE = 8
Count = Callable[[str, int], None]


@dataclass(frozen=True)
class Wanted:
    """A staged file, and the file of this machine, of its size already, that gets its bytes."""

    file: ManifestFile
    path: Path


class Readers:
    """The reader processes. Started before it is known what to read: they take a moment to load."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "include.staging.reader"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=PROJECT_ROOT,
        )  # fmt: skip

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        """End them, whatever they do: those that write to nobody stop."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def read(self, target: Target, wanted: Sequence[Wanted], count: Count) -> Iterator[tuple[Range, int]]:
        """Yield each range that was read and written, with its CRC64NVME. None that failed is among them."""
        urls = _signed(target, wanted)
        if not urls:
            return
        files = [
            {"url": url, "path": str(one.path), "size": one.file.size, "etag": f'"{one.file.etag}"'}
            for url, one in zip(urls, wanted, strict=True)
        ]
        cores = len(os.sched_getaffinity(0))
        workers = min(max(READERS_A_CORE * cores, FEWEST_READERS), MOST_READERS)
        given, told_by = self._process.stdin, self._process.stdout
        if given is None or told_by is None:
            return
        with contextlib.suppress(BrokenPipeError), given:
            given.write(json.dumps({"part": PART, "workers": workers, "files": files}).encode())
        for line in told_by:
            told = json.loads(line)
            one = wanted[told["file"]].file
            if "bytes" in told:
                count(one.path, told["bytes"])
            elif "crc" in told:
                begin = told["begin"]
                yield Range(told["file"], begin, min(begin + PART, one.size)), told["crc"]
        self._process.wait()


def transfer(
    target: Target, wanted: Sequence[Wanted], count: Count, readers: Readers | None = None
) -> Iterator[tuple[Range, int]]:
    """Read every range of the files; yields each once it is written, with its CRC64NVME. In no particular order.

    :raises IntegrityError: a file is not there, or not the one that the manifest describes.
    :raises PipelineError: the store cannot be read.
    """
    left = set(split([one.file.size for one in wanted], PART))
    with contextlib.nullcontext(readers) if readers else Readers() as started:
        for span, crc in started.read(target, wanted, count):
            left.discard(span)
            yield span, crc
    with ThreadPoolExecutor(BY_THE_STORES_CLIENT_AT_ONCE) as pool:
        try:
            yield from pool.map(lambda span: (span, _read_range(target, wanted[span.file], span, count)), sorted(left))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _signed(target: Target, wanted: Sequence[Wanted]) -> list[str]:
    """Return a URL for each file; none where a proxy stands between, which only the store's client knows to use."""
    import obstore

    paths = [f"{FILES_FOLDER}/{one.file.path}" for one in wanted]
    try:
        urls = obstore.sign(cast("obstore.store.S3Store", target.objects.native), "GET", paths, SIGNED_FOR)
    except obstore.exceptions.BaseError:
        return []
    host = urlsplit(urls[0])
    return [] if host.scheme in getproxies() and not proxy_bypass(host.netloc) else list(urls)


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
