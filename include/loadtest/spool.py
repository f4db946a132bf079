"""The crash-safe form of the records: an append-only file of checked frames.

A frame is ``length:u32 crc32:u32 kind:u8`` (little endian) and a msgpack body; the checksum covers
kind and body. Whatever a killed process had handed
to the kernel is readable: a torn last frame ends the reading, it never spoils what precedes it. Times are
CLOCK_MONOTONIC nanoseconds; the ``meta`` frame carries what turns them into Unix time.
"""

from __future__ import annotations

import errno
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

MAGIC = b"HPLT\x01\n"
HEAD = struct.Struct("<IIB")
META, ROW, HEALTH, SUMMARY = 1, 2, 3, 4
FLUSH_BYTES = 64 * 1024
DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class Row(msgspec.Struct, array_like=True):
    """One request. Times in monotonic ns, 0 = never happened; counts -1 = unknown.

    :param marks: arrival time of each content chunk, int64 little endian, back to back.
    :param ready: when a connection was there for the request: earlier is queueing, later is client lag.
    """

    request_id: str
    index: int
    phase: str
    session: int
    turn: int
    group: int
    prompt: int
    scheduled: int
    ready: int
    sent: int
    first_byte: int
    first_token: int
    last_token: int
    end: int
    marks: bytes
    input_tokens: int
    output_tokens: int
    cached_tokens: int
    asked_input: int
    asked_output: int
    status: int
    error_class: str
    error: str
    finish_reason: str
    bytes_in: int
    connect_ns: int
    reused: bool
    resent: int


class SpoolError(Exception):
    """The records cannot be written any more.

    No OSError: an event loop takes one that a protocol raises for a failure of that connection, and goes on.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(error.strerror or str(error))
        self.reason = "DiskFull" if error.errno in DISK_FULL else "RecordsNotWritten"


class SpoolWriter:
    """Appends frames; at most ``FLUSH_BYTES`` or one :meth:`flush` interval is lost to a SIGKILL.

    :raises SpoolError: the file cannot be made.
    """

    def __init__(self, path: str | Path) -> None:
        target = Path(path)
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._fd = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise SpoolError(error) from error
        self._buffer = bytearray(MAGIC)
        self._encode = msgspec.msgpack.Encoder().encode

    def add(self, kind: int, value: object) -> None:
        """Append one frame."""
        body = self._encode(value)
        self._buffer += HEAD.pack(len(body), zlib.crc32(body, kind), kind)
        self._buffer += body
        if len(self._buffer) >= FLUSH_BYTES:
            self.flush()

    def flush(self) -> None:
        """Hand everything to the kernel.

        :raises SpoolError: it takes no more; what it took is not written twice by a later flush.
        """
        done = 0
        try:
            with memoryview(self._buffer) as view:
                while done < len(view):
                    with view[done:] as rest:
                        done += os.write(self._fd, rest)
        except OSError as error:
            self._buffer = self._buffer[done:]
            raise SpoolError(error) from error
        self._buffer = bytearray()

    def close(self) -> None:
        """Flush and close; a second call does nothing."""
        if self._fd >= 0:
            self.flush()
            os.close(self._fd)
            self._fd = -1


def read_spool(path: Path) -> Iterator[tuple[int, Any]]:
    """Yield ``(kind, value)`` of every whole frame; rows come as :class:`Row`, the rest as plain values."""
    rows = msgspec.msgpack.Decoder(Row)
    plain = msgspec.msgpack.Decoder()
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            return
        while len(head := file.read(HEAD.size)) == HEAD.size:
            length, crc, kind = HEAD.unpack(head)
            body = file.read(length)
            if len(body) != length or zlib.crc32(body, kind) != crc:
                return
            yield kind, (rows if kind == ROW else plain).decode(body)
