"""The reference server: one event loop, raw sockets, timers of nanosecond resolution, a log of what it truly did.

It imitates the wire formats of OpenAI-compatible servers, TGI, DJL and SageMaker's runtime; it has no model, checks
no signature, and knows HTTP/1.1 with Content-Length requests only.
"""

from __future__ import annotations

import asyncio
import heapq
import json
import os
import ssl
from array import array
from collections import deque
from time import monotonic_ns
from typing import Any, cast

import msgspec

from include.loadtest.engine.clock import NS, Timers
from include.loadtest.reference import script as frames
from include.loadtest.reference.script import MS, Script

_STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nserver: reference\r\ncontent-type: %s\r\n"
    b"cache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n"
)
_SHAPES = {
    "/v1/chat/completions": "openai-chat",
    "/v1/completions": "openai-completions",
    "/v1/embeddings": "embeddings",
    "/generate_stream": "tgi",
}


class _Request(msgspec.Struct):
    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    messages: Any = None
    prompt: Any = None
    inputs: str | None = None
    input: Any = None
    parameters: dict[str, Any] = {}


_decode = msgspec.json.Decoder(_Request).decode


class Answer:
    """One completion on its way: its events, when each is due, when each truly left."""

    __slots__ = (
        "at", "connection", "cut_after", "due", "events", "fault", "number", "prompt_tokens", "received", "request_id",
        "shape", "tokens", "writes",
    )  # fmt: skip

    def __init__(self, connection: Peer, number: int, request_id: str, received: int) -> None:
        self.connection = connection
        self.number = number
        self.request_id = request_id
        self.received = received
        self.shape = ""
        self.fault = ""
        self.tokens = 0
        self.prompt_tokens = 0
        self.at = 0
        self.cut_after = -1
        self.events: list[bytes] = []
        self.due = array("q")
        self.writes = array("q")

    def log(self) -> dict[str, Any]:
        """Return the truth about this answer; times in monotonic ns."""
        return {
            "number": self.number,
            "request_id": self.request_id,
            "received": self.received,
            "shape": self.shape,
            "tokens": self.tokens,
            "prompt_tokens": self.prompt_tokens,
            "fault": self.fault,
            "due": list(self.due),
            "writes": list(self.writes),
        }


class Server:
    """State shared by all connections."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.timers = Timers(asyncio.get_running_loop())
        self.answers: list[Answer] = []
        self.numbered = 0
        self.running = 0
        self.peak = 0
        self.first_request = 0
        self.waiting: deque[tuple[Answer, _Request, str]] = deque()
        self._heap: list[tuple[int, int, Answer]] = []
        self._armed = False

    # schedule

    def begin(self, answer: Answer, request: _Request, path: str) -> None:
        """Serve a request now, or when one of the slots is free."""
        if self.script.slots and self.running >= self.script.slots:
            self.waiting.append((answer, request, path))
            return
        self.running += 1
        self.peak = max(self.peak, self.running)
        start = max(answer.received, monotonic_ns()) if self.script.slots else answer.received
        compose(self.script, answer, request, path, start)
        if answer.events:
            self._push(answer)

    def end(self, answer: Answer) -> None:
        """An answer is over; the next waiting request gets its slot."""
        self.running -= 1
        self.answers.append(answer)
        if self.waiting:
            self.begin(*self.waiting.popleft())

    def _push(self, answer: Answer) -> None:
        due = answer.due[answer.at]
        heapq.heappush(self._heap, (due, answer.number, answer))
        if self._heap[0][2] is answer and not self._armed:
            self.timers.at(due, self._fire)

    def _fire(self) -> None:
        frozen_until = self._frozen_until()
        if frozen_until:
            self.timers.at(frozen_until, self._fire)
            return
        self._armed = True
        heap = self._heap
        while heap and heap[0][0] <= monotonic_ns():
            answer = heapq.heappop(heap)[2]
            if self._send_next(answer):
                heapq.heappush(heap, (answer.due[answer.at], answer.number, answer))
        self._armed = False
        if heap:
            self.timers.at(heap[0][0], self._fire)

    def _frozen_until(self) -> int:
        script = self.script
        if script.freeze_at_s is None or not self.first_request:
            return 0
        start = self.first_request + round(script.freeze_at_s * NS)
        end = start + round(script.freeze_s * NS)
        return end if start <= monotonic_ns() < end else 0

    def _send_next(self, answer: Answer) -> bool:
        """Write the next event; false when the answer is over."""
        peer = answer.connection
        if peer.gone:
            answer.fault = answer.fault or "client_gone"
            self.end(answer)
            return False
        answer.writes.append(monotonic_ns())
        peer.write_event(answer.events[answer.at], self.script.pieces)
        answer.at += 1
        if answer.at < len(answer.events):
            return True
        if answer.cut_after >= 0:
            peer.cut()
        peer.answered()
        self.end(answer)
        return False


def compose(script: Script, answer: Answer, request: _Request, path: str, start: int) -> None:
    """Fill in the events of an answer and their due times."""
    fault = script.fault_for(answer.number)
    answer.fault = fault.kind if fault else ""
    sagemaker = path.endswith("-response-stream")
    answer.shape = shape_of(path, request)
    answer.tokens = (
        request.max_tokens or request.max_completion_tokens or request.parameters.get("max_new_tokens") or script.tokens
    )
    answer.prompt_tokens = count_words(request)
    if fault is not None and fault.kind == "hang":
        return
    if fault is not None and fault.kind == "http":
        body = json.dumps({"error": {"message": f"planted {fault.status}", "code": fault.status}}).encode()
        _single(answer, b"HTTP/1.1 %d Planted\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s"
                % (fault.status, len(body), body), start)  # fmt: skip
        return
    if not (request.stream or sagemaker) or answer.shape == "embeddings":
        body = frames.whole_answer(answer.shape, answer.prompt_tokens, answer.tokens)
        last = start + round((script.ttft_ms + (answer.tokens - 1) * script.itl_ms) * MS)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        _single(answer, head + body, last if answer.shape != "embeddings" else start + round(script.ttft_ms * MS))
        return
    _compose_stream(script, answer, sagemaker, start)


def _single(answer: Answer, data: bytes, due: int) -> None:
    answer.events.append(data)
    answer.due.append(due)


def _compose_stream(script: Script, answer: Answer, sagemaker: bool, start: int) -> None:
    fault = script.fault_for(answer.number)
    kind, at = (fault.kind, fault.at) if fault else ("", -1)
    content_type = b"text/event-stream; charset=utf-8"
    if sagemaker:
        content_type = b"application/vnd.amazon.eventstream"
    elif answer.shape == "djl":
        content_type = b"application/jsonlines"
    lead = _STREAM_HEAD % content_type
    if script.role_ms is not None:
        _single(answer, lead + frames.wrap(frames.role_event(), sagemaker=sagemaker),
                start + round(script.role_ms * MS))  # fmt: skip
        lead = b""
    stall = 0
    held = b""
    for first in range(0, answer.tokens, script.per_chunk):
        tokens = min(script.per_chunk, answer.tokens - first)
        if kind in ("cut", "error_event", "garbage") and first >= at:
            break
        if kind == "stall" and first <= at < first + tokens and fault:
            stall = round(fault.ms * MS)
        event = _token_frame(answer.shape, tokens, sagemaker)
        due = start + stall + round((script.ttft_ms + (first + tokens - 1) * script.itl_ms) * MS)
        held += lead + event
        lead = b""
        last = first + tokens >= answer.tokens
        if last or (first // script.per_chunk + 1) % script.merge == 0:
            _single(answer, held, due)
            held = b""
    end = answer.due[-1] if answer.due else start + round(script.ttft_ms * MS)
    tail = _tail(script, answer, sagemaker)
    if held or lead or kind in ("cut", "error_event", "garbage") or not answer.events:
        _single(answer, held + lead + tail, end + round(script.itl_ms * MS))
    else:
        answer.events[-1] += tail


_frame_cache: dict[tuple[str, int, bool], bytes] = {}


def _token_frame(shape: str, tokens: int, sagemaker: bool) -> bytes:
    key = (shape, tokens, sagemaker)
    if key not in _frame_cache:
        _frame_cache[key] = frames.wrap(frames.token_event(shape, tokens), sagemaker=sagemaker)
    return _frame_cache[key]


def _tail(script: Script, answer: Answer, sagemaker: bool) -> bytes:
    fault = script.fault_for(answer.number)
    kind = fault.kind if fault else ""
    if kind == "cut":
        answer.cut_after = len(answer.events)
        return b""
    if kind == "error_event":
        return frames.wrap(frames.error_event(answer.shape), sagemaker=sagemaker) + b"0\r\n\r\n"
    if kind == "garbage":
        return frames.wrap(b"data: {not json\n\n", sagemaker=sagemaker) + b"0\r\n\r\n"
    delta = fault.delta if fault is not None and kind == "wrong_usage" else 0
    final = frames.final_events(
        answer.shape, answer.prompt_tokens, answer.tokens + delta, usage=kind != "no_usage", done=kind != "no_done"
    )  # fmt: skip
    return (frames.wrap(final, sagemaker=sagemaker) if final else b"") + b"0\r\n\r\n"


def shape_of(path: str, request: _Request) -> str:
    """Return the body shape that a path and a request ask for."""
    if path in _SHAPES:
        return _SHAPES[path]
    if request.inputs is not None:
        return "tgi" if request.stream else "djl"
    return "openai-chat" if request.messages is not None else "openai-completions"


def count_words(request: _Request) -> int:
    """Return the words of everything that was asked: the reference tokenizer's token count."""
    if request.messages is not None:
        return sum(len(str(message.get("content") or "").split()) for message in request.messages)
    text = request.prompt or request.inputs or request.input or ""
    return len(text) if isinstance(text, list) else len(str(text).split())


class Peer(asyncio.Protocol):
    """One client connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._fd = -1
        self._transport: asyncio.Transport | None = None
        self._busy = False
        self._read_from = 0
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Plain TCP is written to directly: the time of a write is then the time it left."""
        self._transport = cast("asyncio.Transport", transport)
        if transport.get_extra_info("sslcontext") is None:
            self._fd = transport.get_extra_info("socket").fileno()

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client has gone away."""
        self.gone = True

    def data_received(self, data: bytes) -> None:
        """Answer each whole request."""
        now = monotonic_ns()
        self._buffer += data
        while not self._busy and b"\r\n\r\n" in self._buffer:
            head, _, rest = self._buffer.partition(b"\r\n\r\n")
            fields = _fields(head)
            length = int(fields.get(b"content-length", b"0"))
            if len(rest) < length:
                return
            self._buffer = rest[length:]
            method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
            self._dispatch(method, path, fields, rest[:length], now)

    def _dispatch(self, method: str, path: str, fields: dict[bytes, bytes], body: bytes, now: int) -> None:
        server = self._server
        if method == "GET" or path in ("/tokenize", "/_script", "/_reset"):
            self._side(path, body)
            return
        number = server.numbered
        server.numbered += 1
        server.first_request = server.first_request or now
        answer = Answer(self, number, fields.get(b"x-request-id", b"").decode(), now)
        try:
            request = _decode(body)
        except msgspec.MsgspecError as error:
            self._reply(400, {"error": {"message": str(error)}})
            return
        self._busy = True
        fault = server.script.fault_for(number)
        if fault is not None and fault.kind == "slow_reader" and self._transport is not None:
            answer.received = now + round(fault.ms * MS)
            self._transport.pause_reading()
            server.timers.at(answer.received, self._resume)
        server.begin(answer, request, path)

    def _resume(self) -> None:
        if self._transport is not None and not self.gone:
            self._transport.resume_reading()

    def _side(self, path: str, body: bytes) -> None:
        server = self._server
        if path == "/_script":
            server.script = msgspec.json.decode(body, type=Script)
            self._reply(200, {})
        elif path == "/_reset":
            server.answers, server.numbered, server.first_request, server.peak = [], 0, 0, server.running
            self._reply(200, {})
        elif path == "/_log":
            self._reply(200, {"peak": server.peak, "answers": [answer.log() for answer in server.answers]})
        elif path == "/tokenize" and server.script.tokenizer:
            text = json.loads(body)
            self._reply(200, {"count": len(str(text.get("prompt") or text.get("content") or "").split())})
        elif path == "/metrics":
            lines = f'vllm:request_success_total{{model_name="reference"}} {len(server.answers)}\n'
            lines += f"vllm:num_requests_running {server.running}\nvllm:num_requests_waiting {len(server.waiting)}\n"
            self._raw(200, lines.encode(), b"text/plain; version=0.0.4")
        elif path in ("/health", "/ping"):
            self._reply(200, {})
        elif path == "/v1/models":
            self._reply(200, {"object": "list", "data": [{"id": "reference", "object": "model"}]})
        else:
            self._reply(404, {"error": {"message": f"no {path} here"}})

    def _reply(self, status: int, body: dict[str, Any]) -> None:
        self._raw(status, msgspec.json.encode(body), b"application/json")

    def _raw(self, status: int, body: bytes, content_type: bytes) -> None:
        head = b"HTTP/1.1 %d OK\r\ncontent-type: %s\r\ncontent-length: %d\r\n\r\n" % (status, content_type, len(body))
        if self._transport is not None:
            self._transport.write(head + body)

    def write_event(self, data: bytes, pieces: int) -> None:
        """Send an event, in so many separate writes."""
        if pieces <= 1:
            self._write(data)
            return
        size = max(1, -(-len(data) // pieces))
        for start in range(0, len(data), size):
            self._write(data[start : start + size])

    def _write(self, data: bytes) -> None:
        transport = self._transport
        if transport is None or self.gone:
            return
        if self._fd < 0 or transport.get_write_buffer_size():
            transport.write(data)
            return
        try:
            done = os.write(self._fd, data)
        except OSError:
            done = 0
        if done < len(data):
            transport.write(data[done:])

    def cut(self) -> None:
        """Close in the middle of an answer."""
        if self._transport is not None:
            self._transport.close()

    def answered(self) -> None:
        """Ready for the next request; one may have come already."""
        self._busy = False
        if self._buffer:
            self.data_received(b"")


def _fields(head: bytes) -> dict[bytes, bytes]:
    fields = {}
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        fields[name.strip().lower()] = value.strip()
    return fields


async def serve(
    script: Script, *, host: str = "127.0.0.1", port: int = 0, context: ssl.SSLContext | None = None
) -> tuple[asyncio.Server, Server]:
    """Start serving; returns the listening server and its state."""
    loop = asyncio.get_running_loop()
    server = Server(script)
    listening = await loop.create_server(lambda: Peer(server), host, port, ssl=context, backlog=4096)
    return listening, server
