"""Reads ranges of objects over HTTP into files, in processes of its own: ``python -m include.staging.reader``.

Why not threads: every TLS record is one call into OpenSSL, and threads of one interpreter spend more time handing
the lock to each other than decrypting. Why not the store's client: it hands each record from thread to thread, which
costs as much again.

Gets one JSON object on standard input: ``part`` (bytes), ``workers``, ``files`` (``url``, ``path``, ``size``,
``etag``). URLs are presigned, so this holds no credentials. Writes one JSON object a line: ``{"file": i, "bytes": n}``
as bytes arrive, ``{"file": i, "begin": b, "crc": c}`` for a range that is written, with its CRC64NVME,
``{"file": i, "crc": c}`` when all ranges of a file are, and ``{"file": i, "begin": b, "error": "…"}`` for a range
that could not be read. A range that is in none of them was not tried.
"""

from __future__ import annotations

import io
import json
import os
import select
import ssl
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from typing import Any, cast
from urllib.parse import urlsplit

from include.staging.ranges import Range, split
from include.staging.wire import connection, receiver, trust

# Larger writes want larger pages of the page cache, which a fragmented memory has not: they took half as long again.
BUFFER = 32 << 10
SECONDS = 60.0
TRIES = 4
FIRST_PAUSE = 0.2
SECONDS_BETWEEN_COUNTS = 0.5
SECONDS_BETWEEN_LOOKS = 0.3
# More connections are opened while processors are idle for more than this share.
IDLE = 0.2
UNANSWERED = 3
COUNTER = struct.Struct("<q")
WORTH_ANOTHER_TRY = frozenset({408, 429, 500, 502, 503, 504})


class _RefusedError(Exception):
    """An answer that another try will not change."""


def main() -> int:
    """Read everything that is asked for; the exit code says how many workers died."""
    # Loaded before there is anything to do.
    tls, order = trust(), json.load(sys.stdin.buffer)
    crew = Crew(order["files"], split([file["size"] for file in order["files"]], order["part"]), order["workers"], tls)
    try:
        return crew.work()
    except BrokenPipeError:
        # Nobody listens any more; the workers learn it the same way.
        return 0


class Crew:
    """The workers, and what they share: the ranges, a pipe with the number of the next one, a pipe for what they say.

    The number is in its pipe or in one worker's hands, so no two get the same range.
    """

    def __init__(self, files: list[dict[str, Any]], ranges: list[Range], most: int, tls: ssl.SSLContext) -> None:
        self.files = files
        self.ranges = ranges
        self.most = min(most, len(ranges))
        self.tls = tls
        self.queue, self.told = os.pipe(), os.pipe()
        self.running = self.died = 0
        self._untold = len(ranges)
        self._arrived: dict[int, dict[int, tuple[int, int]]] = {}
        os.write(self.queue[1], COUNTER.pack(0))

    def work(self) -> int:
        """Hand on what the workers say until all is read or all have ended; returns how many died."""
        for _ in range(min(len(os.sched_getaffinity(0)), self.most)):
            self._fork()
        times, looked, rest = _processor_times(), time.monotonic(), b""
        while self._untold:
            readable = select.select([self.told[0]], [], [], SECONDS_BETWEEN_LOOKS if self.running else 0)[0]
            if readable:
                *lines, rest = (rest + os.read(self.told[0], 1 << 16)).split(b"\n")
                self._hand_on(lines)
            elif not self.running:
                return self.died
            self._bury()
            if time.monotonic() - looked > SECONDS_BETWEEN_LOOKS:
                before, times, looked = times, _processor_times(), time.monotonic()
                self._widen(*(late - early for late, early in zip(times, before, strict=True)))
        self._dismiss()
        for _ in range(self.running):
            os.wait()
        return self.died

    def claims(self) -> Iterator[Range]:
        """Yield ranges that no other worker gets."""
        while True:
            number = COUNTER.unpack(os.read(self.queue[0], COUNTER.size))[0]
            os.write(self.queue[1], COUNTER.pack(number + 1))
            if number >= len(self.ranges):
                return
            yield self.ranges[number]

    def _fork(self) -> None:
        if os.fork():
            self.running += 1
            return
        try:
            # The end of its parent must not go unnoticed because it holds the other end of a pipe itself.
            os.close(1)
            os.close(self.told[0])
            reader = Reader(self.files, self.tls, self.told[1])
            unanswered = 1
            for span in self.claims():
                unanswered = 0 if reader.read(span) else unanswered + 1
                if unanswered > 1:
                    # Nobody answered at all, or not twice in a row: the rest is for the store's client.
                    os._exit(UNANSWERED)
        except BrokenPipeError:
            os._exit(0)
        except BaseException as error:  # noqa: BLE001 - a forked process must not go on with its parent's work
            sys.stderr.write(f"{type(error).__name__}: {error}\n")
            os._exit(1)
        os._exit(0)

    def _bury(self) -> None:
        while self.running:
            worker, status = os.waitpid(-1, os.WNOHANG)
            if not worker:
                return
            self.running -= 1
            if status:
                # Another would fare no better.
                self.most = 0
            if status and os.waitstatus_to_exitcode(status) != UNANSWERED:
                self.died += 1
                self._dismiss()

    def _dismiss(self) -> None:
        """Hand out no more ranges: who died with the number in its hands would leave the others waiting for it."""
        os.write(self.queue[1], COUNTER.pack(len(self.ranges)))

    def _widen(self, idle: float, busy: float) -> None:
        """Fork more while processors idle: a connection to S3 is slower than a core."""
        if idle > IDLE * (idle + busy):
            # A machine that allows no more processes has enough of them.
            with suppress(OSError):
                for _ in range(min(self.running, self.most - self.running, self._untold - self.running)):
                    self._fork()

    def _hand_on(self, lines: list[bytes]) -> None:
        """Write what was said, and when a file is complete."""
        from awscrt.checksums import combine_crc64nvme

        for line in lines:
            os.write(1, line + b"\n")
            said = json.loads(line)
            self._untold -= "begin" in said
            if "crc" not in said:
                continue
            parts = self._arrived.setdefault(said["file"], {})
            parts[said["begin"]] = said["crc"], said["size"]
            if sum(size for _, size in parts.values()) == self.files[said["file"]]["size"]:
                whole = 0
                for begin in sorted(parts):
                    whole = combine_crc64nvme(whole, *parts[begin])
                os.write(1, _line({"file": said["file"], "crc": whole}))


def _processor_times() -> tuple[float, float]:
    """Return the machine's idle and busy processor time; nothing where it does not say."""
    try:
        with open("/proc/stat", "rb") as file:  # noqa: PTH123 - pathlib takes longer to load than this to run
            times = [int(text) for text in file.readline().split()[1:9]]
    except OSError:
        return 0.0, 0.0
    idle = times[3] + times[4]
    return idle, sum(times) - idle


def _line(content: dict[str, Any]) -> bytes:
    # Short enough for a pipe to take whole, beside what other processes write.
    return json.dumps(content).encode() + b"\n"


class Reader:
    """One connection, one range after the other.

    :param told: the pipe that gets what is to be said.
    """

    def __init__(self, files: list[dict[str, Any]], tls: ssl.SSLContext, told: int) -> None:
        self.files = files
        self.tls = tls
        self.told = told
        self._connection: HTTPConnection | None = None
        # The first read must empty the buffer that the answer's head was read into.
        self._buffer = memoryview(bytearray(max(BUFFER, io.DEFAULT_BUFFER_SIZE)))
        self._counted = self._sent = 0
        self._said = time.monotonic()

    def read(self, span: Range) -> bool:
        """Read a range, and say so; failures that may pass are tried again. False: nobody answered."""
        place = {"file": span.file, "begin": span.begin}
        for attempt in range(TRIES):
            try:
                crc = self._try(span)
            except _RefusedError as error:
                # Its body was not read.
                self._close()
                self._say(place | {"error": str(error)})
                return True
            except (OSError, HTTPException) as error:
                self._close()
                self._uncount(span.file)
                if attempt + 1 == TRIES:
                    self._say(place | {"error": f"{type(error).__name__}: {error}"[:300]})
                    return False
                time.sleep(FIRST_PAUSE * 2**attempt)
            else:
                self._count(span.file, now=True)
                self._sent = 0
                self._say(place | {"size": span.end - span.begin, "crc": crc})
                return True
        return False

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
            self._connection = connection(url.scheme, url.netloc, self.tls, SECONDS)
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

        receive = receiver(cast("HTTPConnection", self._connection), answer.fp)
        buffer, crc, at = self._buffer, 0, span.begin
        filled = answer.fp.readinto1(buffer[: span.end - at])
        while at < span.end:
            wanted = min(BUFFER, span.end - at)
            while filled < wanted:
                got = receive(buffer[filled:wanted], span.end - at - filled)
                if not got:
                    raise ConnectionResetError("the connection ended in the middle of the body")
                filled += got
            if os.pwrite(target, buffer[:filled], at) != filled:
                # The next attempt says why: a full file system writes a part first.
                raise OSError(f"{filled} bytes were not all written")
            crc = crc64nvme(buffer[:filled], crc)
            at += filled
            self._counted += filled
            filled = 0
            self._count(span.file)
        return crc

    def _count(self, file: int, *, now: bool = False) -> None:
        if self._counted and (now or time.monotonic() - self._said > SECONDS_BETWEEN_COUNTS):
            self._say({"file": file, "bytes": self._counted})
            self._sent += self._counted
            self._counted, self._said = 0, time.monotonic()

    def _uncount(self, file: int) -> None:
        """Take back what was counted of a range that must be read again."""
        self._say({"file": file, "bytes": -self._sent})
        self._sent = self._counted = 0

    def _say(self, content: dict[str, Any]) -> None:
        os.write(self.told, _line(content))

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


if __name__ == "__main__":
    # Before any process is forked: loading it takes longer than reading some megabytes.
    import gc

    # Nothing here makes cycles.
    gc.disable()
    import awscrt.checksums  # noqa: F401

    sys.exit(main())
