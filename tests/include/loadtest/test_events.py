"""The same bytes give the same records, however they are cut into pieces."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from include.loadtest.engine import replies, wire
from include.loadtest.engine.events import (
    AwsEventStream,
    EventsOrLines,
    JsonLines,
    ServerSentEvents,
    StreamFormatError,
    encode_message,
)
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.prompts import Ask
from include.loadtest.job import Endpoint
from include.loadtest.reference import script as frames
from include.loadtest.spool import Row


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts)})
    return [data[a:b] for a, b in pairwise(edges)]


CUTS = st.lists(st.integers(min_value=0, max_value=1 << 20), max_size=40)
LINES = st.lists(
    st.one_of(
        st.sampled_from([b"data: x", b"data:y", b"data", b"data: ", b": comment", b"event: e", b"id: 1", b"", b""]),
        st.binary(min_size=0, max_size=12).map(lambda b: b"data: " + b.replace(b"\r", b"").replace(b"\n", b"")),
    ),
    max_size=30,
)


def reference_sse(data: bytes) -> list[bytes]:
    """The standard's algorithm on the whole body, written the slow way."""
    text = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    found: list[bytes] = []
    held: list[bytes] = []
    for line in [*text.split(b"\n"), b""]:
        if not line:
            if held and b"\n".join(held):
                found.append(b"\n".join(held))
            held = []
        elif line.startswith(b"data:"):
            value = line[5:]
            held.append(value[1:] if value[:1] == b" " else value)
        elif line == b"data":
            held.append(b"")
    return found


@given(LINES, st.sampled_from([b"\n", b"\r\n", b"\r"]), CUTS)
@example([b"data: ", b""], b"\n", [])
@settings(max_examples=300, deadline=None)
def test_sse_follows_the_standard_for_every_split(lines: list[bytes], ending: bytes, cuts: list[int]) -> None:
    data = ending.join(lines) + ending
    decoder = ServerSentEvents()
    found = [event for piece in pieces(data, cuts) for event in decoder.feed(piece)] + decoder.finish()
    assert found == reference_sse(data)


@given(
    st.lists(st.tuples(st.sampled_from([b"data: x", b"", b"data: y"]), st.sampled_from([b"\n", b"\r\n", b"\r"]))), CUTS
)
@settings(max_examples=200, deadline=None)
def test_sse_with_mixed_line_ends(lines: list[tuple[bytes, bytes]], cuts: list[int]) -> None:
    data = b"".join(line + end for line, end in lines)
    decoder = ServerSentEvents()
    found = [event for piece in pieces(data, cuts) for event in decoder.feed(piece)] + decoder.finish()
    assert found == reference_sse(data)


@given(st.lists(st.sampled_from([b'{"a":1}', b"", b"  ", b"[2]"])), CUTS, st.booleans())
def test_json_lines_for_every_split(lines: list[bytes], cuts: list[int], ended: bool) -> None:
    data = b"\n".join(lines) + (b"\n" if ended else b"")
    for decoder in (JsonLines(), EventsOrLines()):
        found = [event for piece in pieces(data, cuts) for event in decoder.feed(piece)] + decoder.finish()
        assert found == [line for line in lines if line.strip()]


@given(st.lists(st.tuples(st.text("ab:-", min_size=1, max_size=8), st.text(max_size=20), st.binary(max_size=80))), CUTS)
@settings(deadline=None)
def test_event_stream_for_every_split(messages: list[tuple[str, str, bytes]], cuts: list[int]) -> None:
    data = b"".join(encode_message({name: value}, payload) for name, value, payload in messages)
    decoder = AwsEventStream()
    found = [message for piece in pieces(data, cuts) for message in decoder.feed(piece)]
    assert found == [({name: value}, payload) for name, value, payload in messages]
    assert decoder.pending == 0


@given(st.binary(min_size=1, max_size=60), st.integers(min_value=0), st.integers(min_value=1, max_value=255))
@settings(deadline=None)
def test_a_flipped_bit_never_passes_as_a_message(payload: bytes, place: int, flip: int) -> None:
    data = bytearray(encode_message({":event-type": "PayloadPart"}, payload))
    data[place % len(data)] ^= flip
    decoder = AwsEventStream()
    try:
        found = list(decoder.feed(bytes(data)))
    except StreamFormatError:
        return
    assert found == []  # a longer length: the message is still open


def test_our_event_stream_is_botocores() -> None:
    from botocore.eventstream import EventStreamBuffer

    buffer = EventStreamBuffer()
    buffer.add_data(encode_message({":message-type": "event", ":event-type": "PayloadPart"}, b"payload"))
    message = next(buffer)
    assert message.headers == {":message-type": "event", ":event-type": "PayloadPart"}
    assert message.payload == b"payload"


class _Transport:
    """The little of a transport that a connection touches when bytes are put in by hand."""

    def __init__(self) -> None:
        self.aborted = False

    def set_write_buffer_limits(self, high: int) -> None: ...

    def write(self, data: bytes) -> None: ...

    def get_write_buffer_size(self) -> int:
        return 0

    def abort(self) -> None:
        self.aborted = True


class _Owner:
    def __init__(self) -> None:
        self.finished: list[Exchange] = []

    def on_finished(self, _connection: wire.Connection, exchange: Exchange) -> None:
        self.finished.append(exchange)

    def on_idle_lost(self, _connection: wire.Connection) -> None: ...


def receive(
    body: str,
    data: bytes,
    cuts: list[int],
    monkeypatch: pytest.MonkeyPatch,
    *,
    keep_text: bool = True,
    **endpoint: Any,
) -> Row:
    """Return the record of an answer whose bytes come in these pieces; the clock stands still."""
    monkeypatch.setattr(wire, "monotonic_ns", lambda: 1000)
    owner = _Owner()
    spec = Endpoint(host="h", port=1, path="/", body=body, tls=True, **endpoint)
    connection = wire.Connection(spec, owner)
    connection.connection_made(_Transport())  # type: ignore[arg-type]
    ask = Ask(b"", keep_text=keep_text)
    connection.send(Exchange(ask, 1, "measure"), b"request")
    for piece in pieces(data, cuts):
        connection.data_received(piece)
    if not owner.finished:
        connection.connection_lost(None)
    assert len(owner.finished) == 1
    return owner.finished[0].row("s")


def answer(shape: str, *, sagemaker: bool, tokens: int, ends: str) -> bytes:
    kinds = {"djl": b"application/jsonlines"}
    content = b"application/vnd.amazon.eventstream" if sagemaker else kinds.get(shape, b"text/event-stream")
    data = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\ntransfer-encoding: chunked\r\n\r\n" % content
    for _ in range(tokens):
        data += frames.wrap(frames.token_event(shape, 1), sagemaker=sagemaker)
    if ends == "error":
        data += frames.wrap(frames.error_event(shape), sagemaker=sagemaker)
    elif ends != "cut":
        data += frames.wrap(frames.final_events(shape, 5, tokens, done=ends == "done"), sagemaker=sagemaker)
    return data if ends == "cut" else data + b"0\r\n\r\n"


@pytest.mark.parametrize("sagemaker", [False, True])
@pytest.mark.parametrize("shape", ["openai-chat", "openai-completions", "tgi", "djl"])
@pytest.mark.parametrize(
    ("ends", "error_class"),
    [("done", ""), ("error", "stream_error"), ("cut", "cut"), ("silent", "truncated")],
)
def test_the_same_record_for_every_split(
    shape: str, sagemaker: bool, ends: str, error_class: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = answer(shape, sagemaker=sagemaker, tokens=5, ends=ends)
    whole = receive(shape, data, [], monkeypatch, sagemaker=sagemaker)
    assert whole.error_class == error_class, whole.error
    assert len(whole.marks) == 5 * 8
    if ends == "done":
        assert whole.output_tokens == 5

    @given(CUTS)
    @settings(max_examples=25, deadline=None)
    def check(cuts: list[int]) -> None:
        assert receive(shape, data, cuts, monkeypatch, sagemaker=sagemaker) == whole

    check()
    assert receive(shape, data, list(range(len(data))), monkeypatch, sagemaker=sagemaker) == whole


def rechunked(data: bytes, sizes: list[int], ends: str) -> bytes:
    """Return an answer whose body is cut into HTTP chunks of these sizes (the last one again and again)."""
    head, _, rest = data.partition(b"\r\n\r\n")
    body = b""
    while rest and not rest.startswith(b"0\r\n"):
        size, _, rest = rest.partition(b"\r\n")
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
    chunks, place = [], 0
    while body:
        size = sizes[min(place, len(sizes) - 1)]
        chunks.append(b"%x\r\n%s\r\n" % (len(body[:size]), body[:size]))
        body, place = body[size:], place + 1
    return head + b"\r\n\r\n" + b"".join(chunks) + (b"" if ends == "cut" else b"0\r\n\r\n")


@pytest.mark.parametrize("sagemaker", [False, True])
@pytest.mark.parametrize("shape", ["openai-chat", "openai-completions", "tgi", "djl"])
@pytest.mark.parametrize("ends", ["done", "error", "cut", "silent"])
def test_chunks_that_end_within_an_event_change_nothing(
    shape: str, sagemaker: bool, ends: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = answer(shape, sagemaker=sagemaker, tokens=5, ends=ends)
    whole = msgspec.structs.replace(receive(shape, data, [], monkeypatch, sagemaker=sagemaker), bytes_in=0)

    @given(st.lists(st.integers(1, 400), min_size=1, max_size=12), CUTS, st.booleans())
    @settings(max_examples=25, deadline=None)
    def check(sizes: list[int], cuts: list[int], keep_text: bool) -> None:
        other = rechunked(data, sizes, ends)
        row = receive(shape, other, cuts, monkeypatch, sagemaker=sagemaker, keep_text=keep_text)
        assert msgspec.structs.replace(row, bytes_in=0) == whole

    check()


PLAIN_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=12)
EVENTS = st.one_of(
    PLAIN_TEXT.map(lambda text: {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}),
    st.text(max_size=6).map(lambda text: {"choices": [{"index": 0, "delta": {"content": text}, "logprobs": None}]}),
    PLAIN_TEXT.map(lambda text: {"id": text, "choices": [{"delta": {"content": "x"}}]}),
    PLAIN_TEXT.map(lambda text: {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}),
    PLAIN_TEXT.map(lambda text: {"choices": [{"delta": {"content": text}}], "usage": {"completion_tokens": 3}}),
    st.just({"choices": [{"delta": {"tool_calls": [{"index": 0}]}}]}),
    st.just({"choices": [{"text": "content"}]}),
    st.just({"error": {"message": "no"}}),
)
RAW = st.one_of(
    EVENTS.map(lambda event: frames.sse(event)),
    st.sampled_from([b'data: {"choices":[{"delta":{"content":"\x01"}}]}\n\n', b": ping\n\n", b"data: [DONE]\n\n"]),
    st.binary(max_size=6).map(lambda text: b'data: {"choices":[{"delta":{"content":"%s"}}]}\n\n' % text),
)


@given(
    events=st.lists(st.tuples(RAW, st.integers(1, 4)), min_size=1, max_size=8),
    size=st.sampled_from([b"%x\r\n", b"%X\r\n", b"0%x\r\n", b"%x;a=b\r\n"]),
    per_chunk=st.integers(1, 3),
    cuts=CUTS,
)
@settings(max_examples=300, deadline=None)
def test_events_recognised_by_their_form_mean_what_parsing_says(
    events: list[tuple[bytes, int]], size: bytes, per_chunk: int, cuts: list[int]
) -> None:
    bodies = [event for event, times in events for _ in range(times)]
    chunks = [b"".join(bodies[at : at + per_chunk]) for at in range(0, len(bodies), per_chunk)]
    data = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
    starts = [len(data)]
    for chunk in chunks:
        data += size % len(chunk) + chunk + b"\r\n"
        starts.append(len(data))
    data += b"0\r\n\r\n"
    for where in (cuts, starts, [], starts[::2]):
        with pytest.MonkeyPatch.context() as patch:
            found = receive("openai-chat", data, where, patch, keep_text=False)
            patch.setattr(replies, "learn", lambda *_: None)
            assert receive("openai-chat", data, where, patch, keep_text=False) == found


def test_a_streamed_answer_is_recognised_not_parsed_token_by_token(monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[bytes] = []
    interpret = replies.openai_event

    def counted(exchange: Exchange, payload: bytes, now: int) -> None:
        parsed.append(payload)
        interpret(exchange, payload, now)

    monkeypatch.setattr(replies, "openai_event", counted)
    data = answer("openai-chat", sagemaker=False, tokens=50, ends="done")
    ends = [place + 4 for place in range(len(data)) if data.startswith(b"\n\n\r\n", place)]
    row = receive("openai-chat", data, ends, monkeypatch, keep_text=False)
    assert (len(row.marks), row.error_class) == (50 * 8, "")
    assert len(parsed) < 10


# The end of a stream is no noise: alone it is an empty answer, which is judged with its level.
@given(data=st.binary(max_size=400).filter(lambda data: b"[DONE]" not in data), cuts=CUTS)
@settings(max_examples=150, deadline=None)
def test_noise_is_a_failed_record_never_an_exception(data: bytes, cuts: list[int]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for lead in (b"", b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"):
            row = receive("openai-chat", lead + data, cuts, patch)
            assert row.error_class


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (b"200 OK", b'{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}', ""),
        (b"200 OK", b'{"error":{"message":"no"}}', "server_error"),
        (b"200 OK", b"{}", "bad_body"),
        (b"200 OK", b"<html>", "bad_body"),
        (b"404 Not Found", b"no such model", "http_404"),
        (b"302 Found", b"", "http_302"),
    ],
)
def test_whole_answers(status: bytes, body: bytes, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (status, len(body), body)
    rows = [receive("openai-chat", data, cuts, monkeypatch) for cuts in ([], list(range(len(data))))]
    assert rows[0] == rows[1]
    assert rows[0].error_class == expected


def test_a_sagemaker_exception_message_fails_the_request_by_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/vnd.amazon.eventstream\r\n\r\n"
    fault = encode_message({":message-type": "exception", ":exception-type": "ModelStreamError"}, b'{"Message":"x"}')
    row = receive("djl", head + fault, [], monkeypatch, sagemaker=True)
    assert row.error_class == "stream_error"
    assert row.error.startswith("ModelStreamError")


def test_a_hundred_continue_precedes_the_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"HTTP/1.1 100 Continue\r\n\r\n" + answer("openai-chat", sagemaker=False, tokens=2, ends="done")
    assert receive("openai-chat", data, [], monkeypatch).error_class == ""


def test_timers_fire_in_order_and_not_early() -> None:
    from time import monotonic_ns

    from include.loadtest.engine.clock import Timers

    async def go() -> list[tuple[int, int]]:
        timers = Timers(asyncio.get_running_loop())
        fired: list[tuple[int, int]] = []
        done = asyncio.Event()
        start = monotonic_ns()

        def note(due: int) -> None:
            fired.append((due, monotonic_ns()))
            if len(fired) == 20:
                done.set()

        for place in reversed(range(20)):
            due = start + place * 700_000
            timers.at(due, note, due)
        await done.wait()
        timers.close()
        return fired

    fired = asyncio.run(go())
    assert [due for due, _ in fired] == sorted(due for due, _ in fired)
    assert all(at >= due for due, at in fired)


def test_the_error_objects_of_older_vllm_fail_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n"
    event = b'data: {"object":"error","message":"out of memory","code":500}\n\ndata: [DONE]\n\n'
    row = receive("openai-chat", head + event, [], monkeypatch)
    assert (row.error_class, row.error) == ("stream_error", "out of memory")
