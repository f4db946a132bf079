"""Event stream frames, read by botocore's own decoder; the client names of signatures; paging."""

from __future__ import annotations

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer
from hypothesis import given
from hypothesis import strategies as st

from include.local.aws.errors import AwsError
from include.local.aws.eventstream import payload_part, stream_error
from include.local.aws.pages import page
from include.local.aws.wire import credential_of, parse


@given(st.lists(st.binary(max_size=300), max_size=6), st.integers(1, 50))
def test_frames_are_read_back_whatever_the_cut(parts: list[bytes], step: int) -> None:
    whole = b"".join(map(payload_part, parts))
    buffer = EventStreamBuffer()
    found = []
    for start in range(0, len(whole), step):
        buffer.add_data(whole[start : start + step])
        found += list(buffer)
    assert [message.payload for message in found] == parts
    assert {message.headers[":event-type"] for message in found} <= {"PayloadPart"}


@given(st.binary(min_size=1, max_size=100), st.data())
def test_a_flipped_bit_is_noticed(data: bytes, draw: st.DataObject) -> None:
    whole = bytearray(payload_part(data))
    whole[draw.draw(st.integers(12, len(whole) - 1))] ^= 1
    buffer = EventStreamBuffer()
    buffer.add_data(bytes(whole))
    with pytest.raises(ChecksumMismatch):
        list(buffer)


def test_a_stream_error_is_an_exception_message() -> None:
    buffer = EventStreamBuffer()
    buffer.add_data(stream_error("ModelStreamFailed", "broken"))
    (message,) = buffer
    assert message.headers[":message-type"] == "exception"
    assert message.headers[":exception-type"] == "ModelStreamError"


@given(st.integers(0, 60), st.integers(1, 20))
def test_pages_cover_everything_once(count: int, size: int) -> None:
    items = [{"n": number} for number in range(count)]
    found: list[dict[str, int]] = []
    token = None
    while True:
        part, token = page(items, {"MaxResults": size, "NextToken": token}, default=10)
        found += part
        assert len(part) <= size
        if token is None:
            break
    assert found == items


def test_a_foreign_token_is_refused() -> None:
    with pytest.raises(AwsError, match="NextToken"):
        page([], {"NextToken": "!"}, default=10)


@pytest.mark.parametrize(
    ("method", "path", "headers", "body", "expected"),
    [
        ("POST", "/", {"x-amz-target": "SageMaker.ListModels"}, b"{}", ("sagemaker", "ListModels", "json")),
        ("POST", "/endpoints/a%20b/invocations", {}, b"x", ("sagemaker-runtime", "InvokeEndpoint", "rest-json")),
        ("POST", "/service/G/operation/ListMetrics", {}, b"", ("sagemaker", "ListMetrics", "cbor")),
    ],
)
def test_requests_are_recognised(
    method: str, path: str, headers: dict[str, str], body: bytes, expected: tuple[str, str, str]
) -> None:
    scope = credential_of("AWS4-HMAC-SHA256 Credential=AKIA/20261123/us-west-2/sagemaker/aws4_request, x", {})
    call = parse(method, path, {}, headers, body, scope)
    assert (call.service, call.operation, call.protocol) == expected


@given(st.binary(max_size=30))
def test_any_json_body_is_parsed_or_refused(body: bytes) -> None:
    refused = ""
    try:
        parse("POST", "/", {}, {"x-amz-target": "A.B"}, body, None)
    except AwsError as error:
        refused = error.code
    assert refused in ("", "SerializationException")
