"""AWS's event stream encoding, as ``InvokeEndpointWithResponseStream`` answers.

Frame: total length, header length, CRC-32 of both; headers; payload; CRC-32 of all before it. Numbers big-endian.
"""

from __future__ import annotations

import json
import struct
import zlib

CONTENT_TYPE = "application/vnd.amazon.eventstream"
STRING = 7


def payload_part(data: bytes) -> bytes:
    """Return one ``PayloadPart`` event."""
    headers = {
        ":event-type": "PayloadPart",
        ":content-type": "application/octet-stream",
        ":message-type": "event",
    }
    return frame(headers, data)


def stream_error(code: str, message: str) -> bytes:
    """Return a ``ModelStreamError`` exception, which ends the stream."""
    headers = {
        ":exception-type": "ModelStreamError",
        ":content-type": "application/json",
        ":message-type": "exception",
    }
    return frame(headers, json.dumps({"Message": message, "ErrorCode": code}).encode())


def frame(headers: dict[str, str], payload: bytes) -> bytes:
    """Return one encoded message."""
    encoded = b"".join(_header(name, value) for name, value in headers.items())
    prelude = struct.pack(">II", 16 + len(encoded) + len(payload), len(encoded))
    head = prelude + struct.pack(">I", zlib.crc32(prelude)) + encoded + payload
    return head + struct.pack(">I", zlib.crc32(head))


def _header(name: str, value: str) -> bytes:
    text = value.encode()
    return bytes([len(name)]) + name.encode() + struct.pack(">BH", STRING, len(text)) + text
