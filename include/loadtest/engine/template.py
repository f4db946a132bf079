"""Recognise reads of whole HTTP chunks that each hold one streamed event like the one before but for its text.

Nearly every read of a streamed completion is just that, and comparing bytes costs a third of parsing them. What is
recognised here means the same to the parsers, so the record never depends on which of the two ways was taken.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable

# Bytes of a JSON string that stand for themselves: ASCII without controls, quote and backslash.
PLAIN = bytes(byte for byte in range(0x20, 0x7F) if byte not in b'"\\')
_FIELDS = (b'"content":"', b'"text":"')
_PROBE = "a probe"


def _size_line(length: int) -> bytes:
    """Return the first line of a chunk that takes ``length`` bytes in all (RFC 9112, 7.1).

    No chunk takes some lengths: the line for those begins no chunk (its size has no digit).
    """
    for digits in range(1, 8):
        size = length - digits - 4
        if size > 0 and len(line := b"%x\r\n" % size) == digits + 2:
            return line
    return b"\r\n"


class EventTemplate:
    """The bytes of an event around its text.

    :param prefix: JSON up to and with the quote that opens the text.
    :param suffix: JSON from the quote that closes it.
    """

    __slots__ = ("_heads", "_prefix", "_suffix", "prefix", "suffix")

    def __init__(self, prefix: bytes, suffix: bytes) -> None:
        self.prefix, self.suffix = prefix, suffix
        self._prefix = b"data: " + prefix
        self._suffix = suffix + b"\n\n\r\n"
        self._heads: dict[int, bytes] = {}

    def take(self, data: bytes, marks: array[int], now: int) -> int:
        """Mark the events at the beginning of ``data`` that are of this form, each a whole chunk; return their bytes.

        :param data: begins where a chunk begins.
        :param marks: gets ``now`` for each.
        """
        suffix, heads, taken = self._suffix, self._heads, 0
        events = data.split(suffix)  # a plain text has no quote, so it cannot hold the suffix
        events.pop()
        for event in events:
            length = len(event)
            head = heads.get(length)
            if head is None:
                head = heads[length] = _size_line(length + len(suffix)) + self._prefix
            if not event.startswith(head):
                break
            text = event[len(head) :]
            if not text or text.translate(None, PLAIN):
                break
            marks.append(now)
            taken += length + len(suffix)
        return taken

    def is_of(self, payload: bytes) -> bool:
        """True when an event has this form, whatever its text."""
        return payload.startswith(self.prefix) and payload.endswith(self.suffix)


def learn(payload: bytes, text_of: Callable[[bytes], str]) -> EventTemplate | None:
    """Return the template of an event, ``None`` when it has none that is safe.

    :param text_of: parses an event; returns its text when it brings nothing else, else nothing.
    """
    for field in _FIELDS:
        start = payload.find(field) + len(field)
        if start >= len(field):
            end = payload.find(b'"', start)
            found = EventTemplate(payload[:start], payload[end:])
            # The parser decides: with another text in the same place the event must bring that text and nothing else.
            if end > start and text_of(found.prefix + _PROBE.encode() + found.suffix) == _PROBE:
                return found
    return None
