"""Incremental decoders of streamed bodies: server-sent events, JSON lines, AWS event streams.

Each takes bytes as they come, split anywhere, and yields whole events; the split never changes what comes out.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

MAX_EVENT = 16 * 1024 * 1024


class StreamFormatError(Exception):
    """The bytes are not what the content type promises."""


class ServerSentEvents:
    """Data of server-sent events (WHATWG HTML, "event stream interpretation"), other fields ignored."""

    __slots__ = ("_data", "_general", "_skip_lf", "_tail")

    def __init__(self) -> None:
        self._tail = b""
        self._general = False
        self._data: list[bytes] = []
        self._skip_lf = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the data of the events that ``chunk`` completes."""
        if chunk[-2:] == b"\n\n" and not self._tail and not self._general:
            lines = chunk.splitlines()
            if len(lines) == 2 and lines[0][:6] == b"data: " and lines[0][6:] and not lines[1]:
                return [lines[0][6:]]  # by far the most common: one whole event of one line; empty data is no event
        if self._general or b"\r" in chunk:
            return self._feed_lines(chunk)
        events = (self._tail + chunk if self._tail else chunk).split(b"\n\n")
        self._tail = events.pop()
        if len(self._tail) > MAX_EVENT:
            raise StreamFormatError(f"an event is longer than {MAX_EVENT} bytes")
        for place, event in enumerate(events):
            if event[:6] == b"data: " and b"\n" not in event:
                events[place] = event[6:]
            else:
                events[place] = _data_of(event)
        return [event for event in events if event] if b"" in events else events

    @property
    def pending(self) -> bool:
        """True while an event is half read, and for good once line ends other than LF were seen."""
        return self._general or bool(self._tail)

    def finish(self) -> list[bytes]:
        """Return what a stream that ends without its blank line still holds."""
        if self._general:
            left = self._feed_lines(b"\n\n") if self._tail or self._data else []
        else:
            left = [_data_of(self._tail)] if self._tail else []
        self._tail = b""
        return [event for event in left if event]

    def _feed_lines(self, chunk: bytes) -> list[bytes]:
        """Read lines ended by CR, LF or CR LF; the state between chunks is the unfinished line and event."""
        events: list[bytes] = []
        if not self._general:
            # Lines so far ended in LF alone: whole ones of the open event move to the list of its data.
            self._general = True
            self._tail, chunk = b"", self._tail + chunk
        if self._skip_lf and chunk:
            self._skip_lf = False
            chunk = chunk.removeprefix(b"\n")
        text = self._tail + chunk
        self._skip_lf = text.endswith(b"\r")
        lines = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        self._tail = lines.pop()
        if len(self._tail) > MAX_EVENT:
            raise StreamFormatError(f"an event is longer than {MAX_EVENT} bytes")
        for line in lines:
            if line:
                _take(line, self._data)
            elif self._data:
                events.append(b"\n".join(self._data))
                self._data = []
        return [event for event in events if event]


def _take(line: bytes, data: list[bytes]) -> None:
    if line.startswith(b"data:"):
        data.append(line[5:].removeprefix(b" "))
    elif line == b"data":
        data.append(b"")


def _data_of(event: bytes) -> bytes:
    data: list[bytes] = []
    for line in event.split(b"\n"):
        _take(line, data)
    return b"\n".join(data)


class JsonLines:
    """One JSON document per line; blank lines are skipped."""

    __slots__ = ("_tail",)

    def __init__(self) -> None:
        self._tail = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the lines that ``chunk`` completes."""
        lines = (self._tail + chunk).split(b"\n")
        self._tail = lines.pop()
        if len(self._tail) > MAX_EVENT:
            raise StreamFormatError(f"a line is longer than {MAX_EVENT} bytes")
        return [line for line in (raw.strip() for raw in lines) if line]

    @property
    def pending(self) -> bool:
        """True while a line is half read."""
        return bool(self._tail)

    def finish(self) -> list[bytes]:
        """Return the last line when it has no end."""
        last, self._tail = self._tail.strip(), b""
        return [last] if last else []


class EventsOrLines:
    """Server-sent events or JSON lines, told apart by the first byte that is not white space."""

    __slots__ = ("_decoder", "_lead")

    def __init__(self) -> None:
        self._decoder: ServerSentEvents | JsonLines | None = None
        self._lead = b""

    def feed(self, chunk: bytes) -> list[bytes]:
        """Return the events that ``chunk`` completes."""
        if self._decoder is None:
            self._lead += chunk
            start = self._lead.lstrip()[:1]
            if not start:
                return []
            self._decoder = JsonLines() if start in b"{[" else ServerSentEvents()
            chunk, self._lead = self._lead, b""
        return self._decoder.feed(chunk)

    @property
    def pending(self) -> bool:
        """True while an event or line is half read."""
        return self._decoder is None or self._decoder.pending

    def finish(self) -> list[bytes]:
        """Return what the stream still holds."""
        return self._decoder.finish() if self._decoder is not None else []


_PRELUDE = struct.Struct(">III")
_CRC = struct.Struct(">I")
_MAX_MESSAGE = 24 * 1024 * 1024
# Header value types of fixed size: true, false, byte, short, int, long, timestamp, uuid.
_FIXED = {0: 0, 1: 0, 2: 1, 3: 2, 4: 4, 5: 8, 8: 8, 9: 16}
_VARIABLE = (6, 7)


class AwsEventStream:
    """Messages of ``application/vnd.amazon.eventstream``; both checksums of each are verified."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, chunk: bytes) -> Iterator[tuple[dict[str, str], bytes]]:
        """Yield ``(headers, payload)`` of the messages that ``chunk`` completes.

        :raises StreamFormatError: a checksum or length is wrong.
        """
        buffer = self._buffer
        buffer += chunk
        while len(buffer) >= _PRELUDE.size:
            total, headers, crc = _PRELUDE.unpack_from(buffer)
            if zlib.crc32(memoryview(buffer)[:8]) != crc:
                raise StreamFormatError("prelude checksum of an event stream message is wrong")
            if not 16 + headers <= total <= _MAX_MESSAGE:
                raise StreamFormatError(f"event stream message of {total} bytes with {headers} of headers")
            if len(buffer) < total:
                return
            message = bytes(buffer[:total])
            del buffer[:total]
            if zlib.crc32(message[:-4]) != _CRC.unpack_from(message, total - 4)[0]:
                raise StreamFormatError("checksum of an event stream message is wrong")
            yield _headers(message[12 : 12 + headers]), message[12 + headers : -4]

    @property
    def pending(self) -> int:
        """Bytes of a message that has not ended."""
        return len(self._buffer)


def _headers(raw: bytes) -> dict[str, str]:
    """Return the string headers of a message; the others are stepped over."""
    found: dict[str, str] = {}
    at = 0
    try:
        while at < len(raw):
            length = raw[at]
            name = raw[at + 1 : at + 1 + length].decode()
            kind = raw[at + 1 + length]
            at += 2 + length
            if kind in _VARIABLE:
                size = int.from_bytes(raw[at : at + 2], "big")
                found[name] = raw[at + 2 : at + 2 + size].decode(errors="replace")
                at += 2 + size
            else:
                at += _FIXED[kind]
    except (IndexError, KeyError, UnicodeDecodeError) as error:
        raise StreamFormatError(f"headers of an event stream message: {error!r}") from error
    return found


def encode_message(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one event stream message (for servers that stand in for SageMaker)."""
    raw = b"".join(
        bytes((len(name),)) + name.encode() + b"\x07" + len(value.encode()).to_bytes(2, "big") + value.encode()
        for name, value in headers.items()
    )
    prelude = struct.pack(">II", 16 + len(raw) + len(payload), len(raw))
    message = prelude + _CRC.pack(zlib.crc32(prelude)) + raw + payload
    return message + _CRC.pack(zlib.crc32(message))
