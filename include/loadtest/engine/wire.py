"""HTTP/1.1 over one kept-alive connection: an asyncio protocol around llhttp, timestamps taken as bytes arrive."""

from __future__ import annotations

import asyncio
import os
from time import monotonic_ns
from typing import Protocol, cast

import httptools

from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.replies import ErrorReply, Reply, reply_for
from include.loadtest.engine.template import EventTemplate
from include.loadtest.job import Endpoint


class Owner(Protocol):
    """Who is told what becomes of a connection."""

    def on_finished(self, connection: Connection, exchange: Exchange, /) -> None:
        """The exchange has ended, well or not; ``connection.usable`` says whether it may be used again."""

    def on_idle_lost(self, connection: Connection, /) -> None:
        """The server closed a connection that had nothing to do."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time.

    :param endpoint: decides how answers are read.
    :param owner: called back on the event loop.
    """

    def __init__(self, endpoint: Endpoint, owner: Owner) -> None:
        self._endpoint = endpoint
        self.owner = owner
        self._exchange: Exchange | None = None
        self._reply: Reply | None = None
        self._fixed_reply: Reply | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._feed = self._parser.feed_data
        self._now = 0
        self._content_type = ""
        self._delimited = False
        self._complete = False
        self._between_chunks = False
        self._template: EventTemplate | None = None
        self._fd = -1
        self.idle_since = 0
        self.connect_ns = 0
        self.requests = 0
        self.usable = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remember the transport; plain TCP is written to directly."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=1 << 24)
        if not self._endpoint.tls:
            self._fd = self._transport.get_extra_info("socket").fileno()
        self.usable = True
        self.idle_since = monotonic_ns()

    def data_received(self, data: bytes) -> None:
        """Parse what arrived, at the time it arrived."""
        now = self._now = monotonic_ns()
        exchange = self._exchange
        if exchange is None:
            self.close()
            return
        exchange.bytes_in += len(data)
        template = self._template
        if template is not None:
            taken = template.take(data, exchange.marks, now)
            if taken == len(data):
                return
            self._template = None
            data = data[taken:]
        if not exchange.first_byte:
            exchange.first_byte = now
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            exchange.fail("bad_http", str(error) or type(error).__name__)
            self.close()
            self._end()
            return
        if self._complete:
            self._end()
        elif self._between_chunks and data.endswith(b"\r\n") and self._reply is not None:
            # After a chunk's end the parser has seen nothing of the next one: a whole chunk may pass it by.
            self._template = self._reply.template

    def eof_received(self) -> bool | None:
        """The server will send no more: let the transport close."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone: a body without stated length is complete, anything else was cut."""
        self.usable = False
        exchange = self._exchange
        if exchange is None:
            self.owner.on_idle_lost(self)
            return
        self._now = monotonic_ns()
        if self._reply is not None and not self._delimited and exc is None:
            self._reply.finish(self._now)
        else:
            happened = "before" if not exchange.first_byte else "in the middle of"
            exchange.fail("cut", f"connection closed {happened} the answer: {exc or 'end of stream'}")
        self._end()

    # llhttp callbacks

    def on_message_begin(self) -> None:
        """A response begins."""
        self._content_type = ""
        self._delimited = False
        self._reply = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note what tells how the body is read."""
        lower = name.lower()
        if lower == b"content-type":
            self._content_type = value.decode("latin-1").lower().partition(";")[0].strip()
        elif lower == b"content-length" or (lower == b"transfer-encoding" and b"chunked" in value.lower()):
            self._delimited = True

    def on_headers_complete(self) -> None:
        """Choose the reader of the body."""
        exchange = self._exchange
        if exchange is None:
            return
        exchange.status = self._parser.get_status_code()
        if exchange.status != 200:
            self._reply = ErrorReply(exchange)
        elif self._fixed_reply is not None:
            self._reply = self._fixed_reply
        else:
            endpoint = self._endpoint
            self._reply = reply_for(
                exchange,
                endpoint.body,
                stream=endpoint.stream,
                sagemaker=endpoint.sagemaker,
                content_type=self._content_type,
            )

    def on_body(self, body: bytes) -> None:
        """Hand the bytes on."""
        if self._reply is not None:
            self._reply.feed(body, self._now)

    def on_chunk_header(self) -> None:
        """A chunk begins: its size has been read."""
        self._between_chunks = False

    def on_chunk_complete(self) -> None:
        """A chunk has ended, with its line end."""
        self._between_chunks = True

    def on_message_complete(self) -> None:
        """The response is whole; 1xx answers precede the real one."""
        exchange = self._exchange
        if exchange is None or 100 <= exchange.status < 200:
            return
        if self._reply is not None:
            self._reply.finish(self._now)
        self._complete = True
        # An early answer (413, 429): what is still buffered of this request would end up amid the next one.
        written = self._transport is not None and self._transport.get_write_buffer_size() == 0
        self.usable = self.usable and written and bool(self._parser.should_keep_alive())

    # requests

    def send(self, exchange: Exchange, payload: bytes, reply: Reply | None = None) -> None:
        """Send a whole request; ``reply`` overrides how its answer is read."""
        self._exchange = exchange
        self._fixed_reply = reply
        self._complete = self._between_chunks = False
        self._reply = self._template = None
        exchange.reused = self.requests > 0
        self.requests += 1
        exchange.sent = now = monotonic_ns()
        exchange.idle_ns = now - self.idle_since
        transport = self._transport
        assert transport is not None  # noqa: S101
        if self._fd < 0:
            transport.write(payload)
            return
        try:
            done = os.write(self._fd, payload)
        except OSError:
            done = 0  # full: the transport waits; broken: it meets the same error and reports connection_lost
        if done < len(payload):
            transport.write(memoryview(payload)[done:])

    def abort(self, error_class: str, error: str) -> None:
        """Give up on the request in flight and on the connection."""
        self._now = monotonic_ns()
        if self._exchange is not None:
            self._exchange.fail(error_class, error)
        self.usable = False
        if self._transport is not None:
            self._transport.abort()
        if self._exchange is not None:
            self._end()

    def close(self) -> None:
        """Close; nothing more is expected."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.end = self._now or monotonic_ns()
        if exchange.marks:
            exchange.first_token = exchange.marks[0]
        self._now = 0
        self._reply = self._fixed_reply = self._template = None
        self.idle_since = monotonic_ns()
        if not self.usable:
            self.close()
        self.owner.on_finished(self, exchange)
