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
from include.loadtest.reference.compose import Draft, Request, compose, decode
from include.loadtest.reference.script import MS, Script

WRITES_AT_ONCE = 16


class Answer(Draft):
    """One completion on its way: its events, when each is due, when each truly left."""

    __slots__ = ("at", "connection", "last", "plain", "received", "request_id", "writes")

    def __init__(self, connection: Peer, number: int, request_id: str, received: int) -> None:
        super().__init__(number)
        self.connection = connection
        self.request_id = request_id
        self.received = received
        self.at = 0
        self.last = 0
        self.plain = False
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
        self.waiting: deque[tuple[Answer, Request, str]] = deque()
        self._heap: list[tuple[int, int, Answer]] = []
        self._firing = False
        self._wake = 0

    # schedule

    def begin(self, answer: Answer, request: Request, path: str) -> None:
        """Serve a request now, or when one of the slots is free."""
        if self.script.slots and self.running >= self.script.slots:
            self.waiting.append((answer, request, path))
            return
        self.running += 1
        self.peak = max(self.peak, self.running)
        start = max(answer.received, monotonic_ns()) if self.script.slots else answer.received
        compose(self.script, answer, request, path, start)
        if answer.events:
            answer.last = len(answer.events) - 1
            answer.plain = self.script.pieces <= 1
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
        self._wake_at(due)

    def _wake_at(self, due: int) -> None:
        """One firing is pending at most: a later one is overtaken by an earlier, and then does nothing."""
        if not self._firing and (not self._wake or due < self._wake):
            self._wake = due
            self.timers.at(due, self._fire, due)

    def _fire(self, wake: int) -> None:
        if wake != self._wake:
            return
        self._wake = 0
        if frozen_until := self._frozen_until():
            self._wake_at(frozen_until)
            return
        self._firing = True
        heap = self._heap
        # Requests are noticed between slices: a server that wrote to all streams first would read them late.
        left = WRITES_AT_ONCE
        while left and heap and heap[0][0] <= monotonic_ns():
            left -= 1
            answer = heap[0][2]
            if answer.plain and answer.at < answer.last:
                answer.writes.append(monotonic_ns())
                answer.connection.write(answer.events[answer.at])
                answer.at += 1
                heapq.heapreplace(heap, (answer.due[answer.at], answer.number, answer))
                continue
            heapq.heappop(heap)
            if self._send_next(answer):
                heapq.heappush(heap, (answer.due[answer.at], answer.number, answer))
        self._firing = False
        if heap:
            self._wake_at(heap[0][0])

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


class Head:
    """A request's head; ``number`` counts completion requests, those about the server itself have none."""

    __slots__ = ("fields", "length", "method", "number", "path")

    def __init__(self, method: str, path: str, fields: dict[bytes, bytes], length: int) -> None:
        self.method, self.path, self.fields, self.length = method, path, fields, length
        self.number = -1

    @property
    def side(self) -> bool:
        """True when no completion is asked for."""
        return self.method == "GET" or self.path in ("/tokenize", "/_script", "/_reset")


class Peer(asyncio.Protocol):
    """One client connection."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._buffer = b""
        self._fd = -1
        self._transport: asyncio.Transport | None = None
        self._head: Head | None = None
        self._busy = False
        self._paused = False
        self._blocked = False
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
        while not self._busy and not self._paused and (self._head or self._read_head(now)):
            head, buffer = self._head, self._buffer
            if head is None or len(buffer) < head.length:
                return
            self._head = None
            self._buffer = buffer[head.length :]
            self._dispatch(head, buffer[: head.length], now)

    def _read_head(self, now: int) -> bool:
        """Take a request's head from the buffer; false when it is not whole, or its body is left unread for now."""
        head, blank, rest = self._buffer.partition(b"\r\n\r\n")
        if not blank:
            return False
        fields = _fields(head)
        method, path, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        self._buffer = rest
        self._head = found = Head(method, path, fields, int(fields.get(b"content-length", b"0")))
        if found.side:
            return True
        server = self._server
        found.number = server.numbered
        server.numbered += 1
        server.first_request = server.first_request or now
        fault = server.script.fault_for(found.number)
        if fault is not None and fault.kind == "slow_reader" and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            server.timers.at(now + round(fault.ms * MS), self._resume)
            return False
        return True

    def _dispatch(self, head: Head, body: bytes, now: int) -> None:
        if head.side:
            self._side(head.path, body)
            return
        answer = Answer(self, head.number, head.fields.get(b"x-request-id", b"").decode(), now)
        try:
            request = decode(body)
        except msgspec.MsgspecError as error:
            self._reply(400, {"error": {"message": str(error)}})
            return
        self._busy = True
        self._server.begin(answer, request, head.path)

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self.gone:
            self._transport.resume_reading()
            self.data_received(b"")

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
            self.write(data)
            return
        size = max(1, -(-len(data) // pieces))
        for start in range(0, len(data), size):
            self.write(data[start : start + size])

    def write(self, data: bytes) -> None:
        """Send now; what the socket does not take waits in the transport."""
        transport = self._transport
        if transport is None or self.gone:
            return
        if self._fd < 0 or (self._blocked and transport.get_write_buffer_size()):
            transport.write(data)
            return
        try:
            done = os.write(self._fd, data)
        except OSError:
            done = 0
        self._blocked = done < len(data)
        if self._blocked:
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
