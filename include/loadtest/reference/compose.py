"""Which bytes an answer consists of and when each is due."""

from __future__ import annotations

import json
from array import array
from functools import lru_cache
from typing import Any

import msgspec

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


class Request(msgspec.Struct):
    """The fields of a request body that decide about its answer."""

    stream: bool = False
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    messages: Any = None
    prompt: Any = None
    inputs: str | None = None
    input: Any = None
    parameters: dict[str, Any] = {}


decode = msgspec.json.Decoder(Request).decode


class Draft:
    """What an answer will be.

    :param number: of the request, counted from 0; decides about faults.
    """

    __slots__ = ("cut_after", "due", "events", "fault", "number", "prompt_tokens", "shape", "tokens")

    def __init__(self, number: int) -> None:
        self.number = number
        self.shape = ""
        self.fault = ""
        self.tokens = 0
        self.prompt_tokens = 0
        self.cut_after = -1
        self.events: list[bytes] = []
        self.due = array("q")


def compose(script: Script, answer: Draft, request: Request, path: str, start: int) -> None:
    """Fill in the events of an answer and their due times."""
    fault = script.fault_for(answer.number)
    answer.fault = fault.kind if fault else ""
    sagemaker = path.endswith("-response-stream")
    answer.shape = shape_of(path, request)
    answer.tokens = (
        request.max_tokens or request.max_completion_tokens or request.parameters.get("max_new_tokens") or script.tokens
    )
    answer.prompt_tokens = count_words(request)
    if fault is not None and fault.kind == "length":
        answer.tokens = max(0, answer.tokens + fault.delta)
    if fault is not None and fault.kind == "hang":
        return
    if fault is not None and fault.kind == "http":
        body = json.dumps({"error": {"message": f"planted {fault.status}", "code": fault.status}}).encode()
        _single(answer, b"HTTP/1.1 %d Planted\r\ncontent-length: %d\r\ncontent-type: application/json\r\n\r\n%s"
                % (fault.status, len(body), body), start)  # fmt: skip
        return
    if not (request.stream or sagemaker) or answer.shape == "embeddings" or answer.fault == "whole":
        reason = fault.reason if fault is not None and fault.kind == "finish" else "length"
        body = frames.whole_answer(answer.shape, answer.prompt_tokens, answer.tokens, reason)
        last = start + round((script.ttft_ms + (answer.tokens - 1) * script.itl_ms) * MS)
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        _single(answer, head + body, last if answer.shape != "embeddings" else start + round(script.ttft_ms * MS))
        return
    _compose_stream(script, answer, sagemaker, start)


def _single(answer: Draft, data: bytes, due: int) -> None:
    answer.events.append(data)
    answer.due.append(due)


def _compose_stream(script: Script, answer: Draft, sagemaker: bool, start: int) -> None:
    fault = script.fault_for(answer.number)
    if fault is None:
        events, offsets = _template(script, answer.shape, answer.tokens, sagemaker)
        answer.events = [*events[:-1], events[-1] + _tail(script, answer, sagemaker)]
        answer.due = array("q", [start + offset for offset in offsets])
        return
    _compose_events(script, answer, sagemaker, start)


@lru_cache(maxsize=64)
def _template(script: Script, shape: str, tokens: int, sagemaker: bool) -> tuple[tuple[bytes, ...], tuple[int, ...]]:
    """Return the events of an answer without faults, up to its tail, and their offsets from its start."""
    model = Draft(0)
    model.shape, model.tokens = shape, tokens
    _compose_events(script, model, sagemaker, 0, tail=False)
    return tuple(model.events), tuple(model.due)


def _compose_events(script: Script, answer: Draft, sagemaker: bool, start: int, *, tail: bool = True) -> None:
    fault = script.fault_for(answer.number) if tail else None
    kind, at = (fault.kind, fault.at) if fault else ("", -1)
    content_type = b"text/event-stream; charset=utf-8"
    if sagemaker:
        content_type = b"application/vnd.amazon.eventstream"
    elif answer.shape == "djl":
        content_type = b"application/jsonlines"
    lead = _STREAM_HEAD % content_type
    if script.role_ms is not None:
        _single(answer, lead + _wrap(script, frames.role_event(), sagemaker),
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
        event = _token_frame(script, answer.shape, tokens, sagemaker)
        due = start + stall + round((script.ttft_ms + (first + tokens - 1) * script.itl_ms) * MS)
        held += lead + event
        lead = b""
        last = first + tokens >= answer.tokens
        if last or (first // script.per_chunk + 1) % script.merge == 0:
            _single(answer, held, due)
            held = b""
    end = answer.due[-1] if answer.due else start + round(script.ttft_ms * MS)
    end_of_stream = _tail(script, answer, sagemaker) if tail else b""
    if held or lead or kind in ("cut", "error_event", "garbage") or not answer.events:
        _single(answer, held + lead + end_of_stream, end + round(script.itl_ms * MS))
    else:
        answer.events[-1] += end_of_stream


def _wrap(script: Script, event: bytes, sagemaker: bool) -> bytes:
    return frames.wrap(event, sagemaker=sagemaker, pieces=script.chunk_pieces)


@lru_cache(maxsize=256)
def _token_frame(script: Script, shape: str, tokens: int, sagemaker: bool) -> bytes:
    return _wrap(script, frames.token_event(shape, tokens, script.part), sagemaker)


def _tail(script: Script, answer: Draft, sagemaker: bool) -> bytes:
    fault = script.fault_for(answer.number)
    kind = fault.kind if fault else ""
    if kind == "cut":
        answer.cut_after = len(answer.events)
        return b""
    if kind == "error_event":
        return _wrap(script, frames.error_event(answer.shape), sagemaker) + b"0\r\n\r\n"
    if kind == "garbage":
        return _wrap(script, b"data: {not json\n\n", sagemaker) + b"0\r\n\r\n"
    delta = fault.delta if fault is not None and kind == "wrong_usage" else 0
    reason = fault.reason if fault is not None and kind == "finish" else "length"
    final = frames.final_events(
        answer.shape, answer.prompt_tokens, answer.tokens + delta, usage=kind != "no_usage", done=kind != "no_done",
        reason=reason,
    )  # fmt: skip
    return (_wrap(script, final, sagemaker) if final else b"") + b"0\r\n\r\n"


def shape_of(path: str, request: Request) -> str:
    """Return the body shape that a path and a request ask for."""
    if path in _SHAPES:
        return _SHAPES[path]
    if request.inputs is not None:
        return "tgi" if request.stream else "djl"
    return "openai-chat" if request.messages is not None else "openai-completions"


def count_words(request: Request) -> int:
    """Return the words of everything that was asked: the reference tokenizer's token count."""
    if request.messages is not None:
        return sum(len(str(message.get("content") or "").split()) for message in request.messages)
    text = request.prompt or request.inputs or request.input or ""
    return len(text) if isinstance(text, list) else len(str(text).split())
