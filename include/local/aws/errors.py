"""AWS's error answers in each wire protocol."""

from __future__ import annotations

import json
import uuid
from typing import Any
from xml.sax.saxutils import escape

from aiohttp import web

QUERY_CODES = {
    "ThrottlingException": "Throttling", "ExpiredTokenException": "ExpiredToken",
    "AccessDeniedException": "AccessDenied", "UnrecognizedClientException": "InvalidClientTokenId",
    "InvalidSignatureException": "SignatureDoesNotMatch",
    "MissingAuthenticationTokenException": "MissingAuthenticationToken",
}  # fmt: skip
JSON_TYPES = {"json": "application/x-amz-json-1.1", "rest-json": "application/json"}


class AwsError(Exception):
    """An error that the client gets as ``ClientError`` with this code.

    :param extra: further members of the error shape.
    """

    def __init__(self, code: str, message: str, status: int = 400, extra: dict[str, Any] | None = None) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.status = status
        self.extra = extra or {}


def answer(protocol: str, body: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """Return a JSON answer of a JSON protocol."""
    return web.Response(
        body=json.dumps(body).encode(),
        status=status,
        headers={"x-amzn-RequestId": str(uuid.uuid4()), **(headers or {})},
        content_type=JSON_TYPES.get(protocol, "application/json"),
    )


def error_answer(protocol: str, error: AwsError) -> web.Response:
    """Return ``error`` as the client's protocol expects it."""
    if protocol == "query":
        return _xml(error)
    if protocol == "cbor":
        return _cbor(error)
    # Both spellings: services differ in which one their error shapes name.
    body = {"__type": error.code, "message": error.message, "Message": error.message, **error.extra}
    return answer(protocol, body, error.status, {"x-amzn-ErrorType": error.code})


def _xml(error: AwsError) -> web.Response:
    kind = "Sender" if error.status < 500 else "Receiver"
    text = (
        f"<ErrorResponse><Error><Type>{kind}</Type><Code>{QUERY_CODES.get(error.code, error.code)}</Code>"
        f"<Message>{escape(error.message)}</Message></Error>"
        f"<RequestId>{uuid.uuid4()}</RequestId></ErrorResponse>"
    )
    return web.Response(text=text, status=error.status, content_type="text/xml")


def _cbor(error: AwsError) -> web.Response:
    pairs = b"".join(map(_cbor_text, ("__type", error.code, "message", error.message)))
    headers = {"smithy-protocol": "rpc-v2-cbor"}
    return web.Response(body=b"\xa2" + pairs, status=error.status, headers=headers, content_type="application/cbor")


def _cbor_text(text: str) -> bytes:
    data = text.encode()
    if len(data) < 24:
        return bytes([0x60 | len(data)]) + data
    return b"\x79" + len(data).to_bytes(2, "big") + data
