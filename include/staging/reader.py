"""Reads ranges of objects over HTTP into files, in processes of its own: ``python -m include.staging.reader``.

Why not threads: every TLS record is one call into OpenSSL, and threads of one interpreter spend more time handing
the lock to each other than decrypting. Why not the asynchronous client of the store: it hands each record from
thread to thread, which costs as much again (measured: 1.8 to 2.1 CPU-seconds per GB, this 1.4, of which OpenSSL 0.4).

Gets one JSON object on standard input: ``part`` (bytes), ``workers``, ``files`` (``url``, ``path``, ``size``,
``etag``). URLs are presigned, so this holds no credentials. Writes one JSON object a line: ``{"bytes": n, "file": i}``
as bytes arrive, ``{"file": i, "begin": b, "crc": c}`` for a range that is written, with its CRC64NVME, and
``{"file": i, "begin": b, "error": "…"}`` for one that could not be read. What is not in either was not tried.
"""

from __future__ import annotations

import json
import os
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any, NamedTuple
from urllib.parse import urlsplit

# As large as fits into a core's own cache beside the record that is decrypted.
BUFFER = 256 << 10
SECONDS = 60.0
TRIES = 4
FIRST_PAUSE = 0.2
SECONDS_BETWEEN_COUNTS = 0.5
COUNTER = struct.Struct("<q")
WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})


class Range(NamedTuple):
    """One range of one file, by its number in the order's list; ``end`` is the first byte behind it."""

    file: int
    begin: int
    end: int


class _RefusedError(Exception):
    """An answer that another try will not change."""


def split(sizes: list[int], part: int) -> list[Range]:
    """Return the ranges of files, in order; an empty file has none."""
    return [
        Range(number, begin, min(begin + part, size))
        for number, size in enumerate(sizes)
        for begin in range(0, size, part)
    ]


def main() -> int:
    """Read everything that is asked for; the exit code says whether all workers ended by themselves."""
    order = json.load(sys.stdin.buffer)
    ranges = split([file["size"] for file in order["files"]], order["part"])
    queue = os.pipe()
    os.write(queue[1], COUNTER.pack(0))
    tls = trust()
    count = min(order["workers"], len(ranges))
    for _ in range(count):
        _fork(order, ranges, queue, tls)
    failed = 0
    for _ in range(count):
        if os.wait()[1]:
            # It may have died with the queue's counter in its hands: nobody else gets a range any more.
            failed = 1
            os.write(queue[1], COUNTER.pack(len(ranges)))
    return failed


def trust() -> ssl.SSLContext:
    """Return what connections trust: the system's authorities, ``SSL_CERT_FILE`` and ``AWS_CA_BUNDLE``."""
    context = ssl.create_default_context()
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    return context


def _fork(order: dict[str, Any], ranges: list[Range], queue: tuple[int, int], tls: ssl.SSLContext) -> None:
    if os.fork():
        return
    try:
        reader = Reader(order["files"], tls)
        for number in _claims(queue, len(ranges)):
            reader.read(ranges[number])
    except BrokenPipeError:
        # Nobody listens any more.
        os._exit(0)
    except BaseException as error:  # noqa: BLE001 - a forked process must not go on with its parent's work
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        os._exit(1)
    os._exit(0)


def _claims(queue: tuple[int, int], count: int) -> Iterator[int]:
    """Yield numbers that no other worker gets. The counter is in the pipe or in one worker's hands."""
    while True:
        number = COUNTER.unpack(os.read(queue[0], COUNTER.size))[0]
        os.write(queue[1], COUNTER.pack(number + 1))
        if number >= count:
            return
        yield number


@dataclass
class Reader:
    """One connection, one range after the other."""

    files: list[dict[str, Any]]
    tls: ssl.SSLContext
    _connection: HTTPConnection | None = None
    _buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(BUFFER)))
    _counted: int = 0
    _told: int = 0
    _said: float = field(default_factory=time.monotonic)

    def read(self, span: Range) -> None:
        """Read a range, and say so; failures that may pass are tried again."""
        place = {"file": span.file, "begin": span.begin}
        for attempt in range(TRIES):
            try:
                crc = self._try(span)
            except _RefusedError as error:
                return self._say(place | {"error": str(error)})
            except (OSError, HTTPException) as error:
                self._close()
                self._uncount(span.file)
                if attempt + 1 == TRIES:
                    return self._say(place | {"error": f"{type(error).__name__}: {error}"[:300]})
                time.sleep(FIRST_PAUSE * 2**attempt)
            else:
                self._count(span.file, now=True)
                self._told = 0
                return self._say(place | {"crc": crc})
        return None

    def _try(self, span: Range) -> int:
        file = self.files[span.file]
        answer = self._ask(file, span)
        if answer.status in WORTH_ANOTHER_TRY:
            raise HTTPException(f"status {answer.status}")
        whole = span.end - span.begin == file["size"]
        if answer.status != 206 and not (answer.status == 200 and whole):
            raise _RefusedError(f"status {answer.status}")
        if answer.length != span.end - span.begin:
            raise _RefusedError(f"{answer.length} bytes, not {span.end - span.begin}")
        target = os.open(file["path"], os.O_WRONLY)
        try:
            return self._receive(answer, target, span)
        finally:
            os.close(target)
            answer.close()
            if answer.will_close:
                self._close()

    def _ask(self, file: dict[str, Any], span: Range) -> HTTPResponse:
        url = urlsplit(file["url"])
        if self._connection is None:
            self._connection = (
                HTTPSConnection(url.netloc, timeout=SECONDS, context=self.tls)
                if url.scheme == "https"
                else HTTPConnection(url.netloc, timeout=SECONDS)
            )
        headers = {
            "Range": f"bytes={span.begin}-{span.end - 1}",
            "If-Match": file["etag"],
            "Accept-Encoding": "identity",
        }
        self._connection.request("GET", f"{url.path}?{url.query}", headers=headers)
        return self._connection.getresponse()

    def _receive(self, answer: HTTPResponse, target: int, span: Range) -> int:
        """Write a body; what the answer's head left in its buffer first, the rest straight from the connection."""
        from awscrt.checksums import crc64nvme

        if self._connection is None:
            raise ConnectionResetError("the connection ended with the answer's head")
        receive, buffer, crc, at = self._connection.sock.recv_into, self._buffer, 0, span.begin
        filled = answer.fp.readinto1(buffer[: span.end - at])
        while at < span.end:
            wanted = min(BUFFER, span.end - at)
            while filled < wanted:
                got = receive(buffer[filled:wanted])
                if not got:
                    raise ConnectionResetError("the connection ended in the middle of the body")
                filled += got
            os.pwrite(target, buffer[:filled], at)
            crc = crc64nvme(buffer[:filled], crc)
            at += filled
            self._counted += filled
            filled = 0
            self._count(span.file)
        return crc

    def _count(self, file: int, *, now: bool = False) -> None:
        if self._counted and (now or time.monotonic() - self._said > SECONDS_BETWEEN_COUNTS):
            self._say({"file": file, "bytes": self._counted})
            self._told += self._counted
            self._counted, self._said = 0, time.monotonic()

    def _uncount(self, file: int) -> None:
        """Take back what was counted of a range that must be read again."""
        self._say({"file": file, "bytes": -self._told})
        self._told = self._counted = 0

    def _say(self, content: dict[str, Any]) -> None:
        # Short enough for a pipe to take whole, beside what other workers write.
        os.write(1, json.dumps(content).encode() + b"\n")

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


if __name__ == "__main__":
    # Before any process is forked: loading it takes longer than reading some megabytes.
    import awscrt.checksums  # noqa: F401

    sys.exit(main())
