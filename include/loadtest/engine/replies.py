"""What the bytes of an answer mean: readers of response bodies, one per protocol, filling in an exchange."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from include.loadtest.engine.events import (
    AwsEventStream,
    EventsOrLines,
    JsonLines,
    ServerSentEvents,
    StreamFormatError,
)
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.template import EventTemplate, learn

Interpret = Callable[[Exchange, bytes, int], None]
_KEPT_ERROR_BODY = 2048
_LESSONS = 8
# The server gave up (vLLM, SGLang): the text until then is no answer. Lengths, stops and filters are one.
_GAVE_UP = frozenset({"abort", "error"})


class _PromptDetails(msgspec.Struct, gc=False):
    cached_tokens: int | None = None


class _Usage(msgspec.Struct, gc=False):
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    prompt_tokens_details: _PromptDetails | None = None


class _Part(msgspec.Struct, gc=False):
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    tool_calls: list[Any] | None = None


class _Choice(msgspec.Struct, gc=False):
    delta: _Part | None = None
    message: _Part | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: Any = None


class _Completion(_Chunk, gc=False):
    data: list[msgspec.Raw] | None = None
    object: str | None = None
    message: Any = None


class _Token(msgspec.Struct, gc=False):
    text: str | None = None
    special: bool = False


class _Details(msgspec.Struct, gc=False):
    finish_reason: str | None = None
    generated_tokens: int | None = None
    input_length: int | None = None


class _Generation(msgspec.Struct, gc=False):
    token: _Token | None = None
    generated_text: str | None = None
    details: _Details | None = None
    error: Any = None
    message: Any = None


_chunk = msgspec.json.Decoder(_Chunk).decode
_completion = msgspec.json.Decoder(_Completion).decode
_generation = msgspec.json.Decoder(_Generation).decode
_generations = msgspec.json.Decoder(list[_Generation] | _Generation).decode


def _error_text(error: Any) -> str:
    if isinstance(error, dict):
        return str(error.get("message") or error)
    return str(error)


def _check_finish(exchange: Exchange) -> None:
    if exchange.finish_reason in _GAVE_UP:
        exchange.fail(
            f"finish_{exchange.finish_reason}", f"the server ended it: finish reason {exchange.finish_reason}"
        )


def _take_usage(exchange: Exchange, usage: _Usage) -> None:
    if usage.prompt_tokens is not None:
        exchange.input_tokens = usage.prompt_tokens
    if usage.completion_tokens is not None:
        exchange.output_tokens = usage.completion_tokens
    details = usage.prompt_tokens_details
    if details is not None and details.cached_tokens is not None:
        exchange.cached_tokens = details.cached_tokens


def openai_event(exchange: Exchange, payload: bytes, now: int) -> None:
    """Read one event of a chat or text completion; a chunk counts when it carries content of any kind."""
    if payload == b"[DONE]":
        exchange.done = True
        return
    chunk = _chunk(payload)
    if chunk.choices:
        choice = chunk.choices[0]
        part = choice.delta
        text = choice.text if part is None else part.content or part.reasoning_content or part.reasoning
        if text:
            exchange.marks.append(now)
            if exchange.texts is not None:
                exchange.texts.append(text)
        elif part is not None and part.tool_calls:
            exchange.marks.append(now)
            exchange.tool_calls = (exchange.tool_calls or []) + part.tool_calls
        if choice.finish_reason is not None:
            exchange.finish_reason = choice.finish_reason
    if chunk.usage is not None:
        _take_usage(exchange, chunk.usage)
    elif not chunk.choices:
        _note_error_object(exchange, payload)
    if chunk.error is not None:
        exchange.fail("stream_error", _error_text(chunk.error))


def openai_text(payload: bytes) -> str:
    """Return the text of an event that brings text and nothing else that is recorded; else nothing."""
    try:
        chunk = _chunk(payload)
    except msgspec.MsgspecError:
        return ""
    if not chunk.choices or chunk.usage is not None or chunk.error is not None:
        return ""
    choice = chunk.choices[0]
    part = choice.delta
    if choice.finish_reason is not None or (part is not None and part.tool_calls):
        return ""
    text = choice.text if part is None else part.content or part.reasoning_content or part.reasoning
    return text or ""


def _note_error_object(exchange: Exchange, payload: bytes) -> None:
    """Recognise the error events of older vLLM, which have no field ``error``."""
    answer = _completion(payload)
    if answer.object == "error":
        exchange.fail("stream_error", _error_text(answer.message))


def generation_event(exchange: Exchange, payload: bytes, now: int) -> None:
    """Read one event of TGI's ``generate_stream`` or one line of DJL's ``jsonlines`` output."""
    if payload == b"[DONE]":
        exchange.done = True
        return
    line = _generation(payload)
    token = line.token
    if token is not None and token.text and not token.special:
        exchange.marks.append(now)
        if exchange.texts is not None:
            exchange.texts.append(token.text)
    _take_details(exchange, line)
    if line.error is not None:
        exchange.fail("stream_error", _error_text(line.error))


def _take_details(exchange: Exchange, line: _Generation) -> None:
    details = line.details
    if details is not None:
        exchange.finish_reason = details.finish_reason or exchange.finish_reason or "stop"
        if details.generated_tokens is not None:
            exchange.output_tokens = details.generated_tokens
        if details.input_length is not None:
            exchange.input_tokens = details.input_length
    elif line.generated_text is not None:
        exchange.finish_reason = exchange.finish_reason or "stop"


def openai_body(exchange: Exchange, payload: bytes, _now: int) -> None:
    """Read a whole, unstreamed completion or embedding answer."""
    answer = _completion(payload)
    if answer.usage is not None:
        _take_usage(exchange, answer.usage)
    if answer.error is not None:
        exchange.fail("server_error", _error_text(answer.error))
    elif answer.choices:
        choice = answer.choices[0]
        text = choice.text if choice.message is None else choice.message.content
        if exchange.texts is not None and text:
            exchange.texts.append(text)
        if choice.message is not None:
            exchange.tool_calls = choice.message.tool_calls
        exchange.finish_reason = choice.finish_reason or "stop"
    elif answer.data:
        exchange.done = True


def generation_body(exchange: Exchange, payload: bytes, _now: int) -> None:
    """Read a whole, unstreamed TGI or DJL answer: an object, or a list of one."""
    answer = _generations(payload)
    first = answer[0] if isinstance(answer, list) and answer else answer
    if isinstance(first, list):
        return
    if first.error is not None:
        exchange.fail("server_error", _error_text(first.error))
        return
    _take_details(exchange, first)
    if exchange.texts is not None and first.generated_text:
        exchange.texts.append(first.generated_text)


class Reply(Protocol):
    """Reads one response body."""

    @property
    def template(self) -> EventTemplate | None:
        """What the next event may be told by without parsing; ``None`` while one is half read."""

    def feed(self, body: bytes, now: int, /) -> None:
        """Take the next bytes, received at ``now`` (monotonic ns)."""

    def finish(self, now: int, /) -> None:
        """The body has ended as HTTP says it should."""


class EventReply:
    """A streamed answer: every event is interpreted as its last byte arrives."""

    __slots__ = ("_events", "_exchange", "_interpret", "_lessons", "_template")

    def __init__(
        self,
        exchange: Exchange,
        interpret: Interpret,
        events: ServerSentEvents | JsonLines | EventsOrLines,
    ) -> None:
        self._exchange = exchange
        self._interpret = interpret
        self._events = events
        self._template: EventTemplate | None = None
        plain = interpret is openai_event and isinstance(events, ServerSentEvents) and exchange.texts is None
        self._lessons = _LESSONS if plain else 0

    @property
    def template(self) -> EventTemplate | None:
        """The form of the last event with text, when no event is half read."""
        return None if self._template is None or self._events.pending else self._template

    def feed(self, body: bytes, now: int) -> None:
        """Interpret the events that ``body`` completes."""
        exchange, interpret = self._exchange, self._interpret
        try:
            events = self._events.feed(body)
            for payload in events:
                interpret(exchange, payload, now)
            if self._lessons and len(events) == 1:
                self._learn(events[0])
        except (msgspec.MsgspecError, StreamFormatError, UnicodeDecodeError) as error:
            exchange.fail("bad_event", str(error))

    def _learn(self, payload: bytes) -> None:
        """Take the form of an event with text; events that never have the same one are not tried for ever."""
        if self._template is None or not self._template.is_of(payload):
            found = learn(payload, openai_text)
            if found is not None:
                self._template = found
                self._lessons -= 1

    def finish(self, now: int) -> None:
        """Interpret what is left; an answer that never said it was complete is a failure."""
        try:
            for payload in self._events.finish():
                self._interpret(self._exchange, payload, now)
        except (msgspec.MsgspecError, StreamFormatError, UnicodeDecodeError) as error:
            self._exchange.fail("bad_event", str(error))
        _check_finish(self._exchange)
        if not self._exchange.done and not self._exchange.finish_reason:
            self._exchange.fail("truncated", "the stream ended without [DONE] or a finish reason")


class SageMakerReply:
    """A response stream of InvokeEndpointWithResponseStream: event stream messages around the model's bytes."""

    __slots__ = ("_exchange", "_inner", "_messages")
    template = None

    def __init__(self, exchange: Exchange, inner: EventReply) -> None:
        self._exchange = exchange
        self._messages = AwsEventStream()
        self._inner = inner

    def feed(self, body: bytes, now: int) -> None:
        """Unwrap whole messages; an exception message fails the request with its type."""
        try:
            for headers, payload in self._messages.feed(body):
                if headers.get(":message-type", "event") == "event":
                    if headers.get(":event-type", "PayloadPart") == "PayloadPart":
                        self._inner.feed(payload, now)
                else:
                    kind = headers.get(":exception-type") or headers.get(":error-code") or "error"
                    self._exchange.fail("stream_error", f"{kind}: {payload.decode(errors='replace')}")
        except StreamFormatError as error:
            self._exchange.fail("bad_event", str(error))

    def finish(self, now: int) -> None:
        """The HTTP body ended; a message must not be half-way."""
        if self._messages.pending:
            self._exchange.fail("cut", f"{self._messages.pending} bytes of an event stream message")
        self._inner.finish(now)


class BodyReply:
    """An unstreamed answer: collected, read once."""

    __slots__ = ("_exchange", "_interpret", "_parts")
    template = None

    def __init__(self, exchange: Exchange, interpret: Interpret) -> None:
        self._exchange = exchange
        self._interpret = interpret
        self._parts: list[bytes] = []

    def feed(self, body: bytes, _now: int) -> None:
        """Keep the bytes."""
        self._parts.append(body)

    def finish(self, now: int) -> None:
        """Read the whole body."""
        try:
            self._interpret(self._exchange, b"".join(self._parts), now)
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            self._exchange.fail("bad_body", str(error))
            return
        _check_finish(self._exchange)
        if not self._exchange.done and not self._exchange.finish_reason:
            self._exchange.fail("bad_body", "neither choices, a generated text nor data in the answer")


class RawReply:
    """A body kept as it is, for our own side requests (tokenize)."""

    __slots__ = ("parts",)
    template = None

    def __init__(self) -> None:
        self.parts: list[bytes] = []

    def feed(self, body: bytes, _now: int) -> None:
        """Keep the bytes."""
        self.parts.append(body)

    def finish(self, _now: int) -> None:
        """Nothing to check."""


class ErrorReply:
    """The body of an HTTP error: its first bytes become the record's error text."""

    __slots__ = ("_exchange", "_text")
    template = None

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._text = b""

    def feed(self, body: bytes, _now: int) -> None:
        """Keep the first bytes."""
        if len(self._text) < _KEPT_ERROR_BODY:
            self._text += body[:_KEPT_ERROR_BODY]

    def finish(self, _now: int) -> None:
        """Classify by status code."""
        self._exchange.fail(f"http_{self._exchange.status}", self._text.decode(errors="replace"))


_GENERATION_BODIES = frozenset({"tgi", "djl"})


def reply_for(exchange: Exchange, body: str, *, stream: bool, sagemaker: bool, content_type: str) -> Reply:
    """Choose the reader of a 200 answer by what was asked and what the server says it sends."""
    generation = body in _GENERATION_BODIES
    if not stream or content_type == "application/json":
        return BodyReply(exchange, generation_body if generation else openai_body)
    interpret = generation_event if generation else openai_event
    if sagemaker:
        return SageMakerReply(exchange, EventReply(exchange, interpret, EventsOrLines()))
    if content_type == "text/event-stream":
        return EventReply(exchange, interpret, ServerSentEvents())
    return EventReply(exchange, interpret, EventsOrLines())
