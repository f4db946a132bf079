"""What the reference server does and when: timing, faults, and the frames of each protocol."""

from __future__ import annotations

from functools import cache

import msgspec

from include.loadtest.engine.events import encode_message

MS = 1_000_000


class Fault(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of misbehaviour, for every ``every``-th completion request (the first is number 0).

    :param kind: ``stall`` pauses ``ms`` before token ``at``; ``cut`` closes there; ``http`` answers ``status``;
        ``error_event`` sends an in-band error there; ``wrong_usage`` adds ``delta`` to the completion tokens;
        ``slow_reader`` leaves the body unread for ``ms`` once the head is there; ``hang`` never answers; ``no_done``
        ends cleanly without finish reason and ``[DONE]``; ``no_usage`` leaves the usage out; ``garbage`` sends an event
        that is no JSON; ``length`` sends ``delta`` tokens more than asked for; ``finish`` ends with ``reason``;
        ``whole`` answers in one piece although a stream was asked for.
    """

    kind: str
    every: int = 1
    offset: int = 0
    at: int = 1
    ms: float = 0.0
    status: int = 500
    delta: int = 0
    reason: str = "error"


class Script(msgspec.Struct, frozen=True, kw_only=True):
    """Timing of every answer: token *i* is due at receipt + ``ttft_ms`` + i × ``itl_ms``.

    :param tokens: length of an answer whose request states none.
    :param per_chunk: tokens in one event, all due when its last is.
    :param role_ms: an empty role chunk this long after receipt, as some servers send.
    :param pieces: each event is sent in so many separate writes.
    :param chunk_pieces: each event is split over so many HTTP chunks.
    :param part: of a chat message that the tokens are: ``content``, ``reasoning_content`` or ``tool_calls``.
    :param merge: so many events are held back and sent in one write, at the due time of the last.
    :param freeze_at_s: the whole server stands still for ``freeze_s`` from then, counted from its first request.
    :param slots: requests served at once, the others wait their turn; 0: no limit.
    :param tokenizer: answer ``/tokenize``: one token per word.
    """

    ttft_ms: float = 50.0
    itl_ms: float = 10.0
    tokens: int = 16
    per_chunk: int = 1
    role_ms: float | None = None
    pieces: int = 1
    chunk_pieces: int = 1
    part: str = "content"
    merge: int = 1
    freeze_at_s: float | None = None
    freeze_s: float = 0.0
    slots: int = 0
    tokenizer: bool = False
    faults: tuple[Fault, ...] = ()

    def fault_for(self, number: int) -> Fault | None:
        """Return what goes wrong with the ``number``-th completion request."""
        for fault in self.faults:
            if number % fault.every == fault.offset % fault.every:
                return fault
        return None


_FIELDS = {"id": "chatcmpl-6f1f2d0e5b7c4c0e9a3f7e2b1d4c8a90", "created": 1_790_000_000, "model": "reference"}


def _completion_event(shape: str, choice: dict[str, object] | None, **fields: object) -> bytes:
    kind = "text_completion" if shape == "openai-completions" else "chat.completion.chunk"
    choices = [{"index": 0, "logprobs": None, "finish_reason": None} | choice] if choice is not None else []
    return sse(_FIELDS | {"object": kind, "choices": choices} | fields)


@cache
def token_event(shape: str, tokens: int, part: str = "content") -> bytes:
    """Return one event that carries ``tokens`` tokens, as vLLM (or TGI, DJL) shapes it.

    :param part: of a chat message.
    """
    text = " tok" * tokens
    if shape == "tgi":
        return sse({"index": 1, "token": {"id": 7, "text": text, "logprob": -0.1, "special": False}})
    if shape == "djl":
        return line({"token": {"id": 7, "text": text, "log_prob": -0.1}})
    if shape == "openai-completions":
        return _completion_event(shape, {"text": text})
    if part == "tool_calls":
        return _completion_event(shape, {"delta": {part: [{"index": 0, "function": {"arguments": text}}]}})
    return _completion_event(shape, {"delta": {part: text}})


def role_event() -> bytes:
    """Return the empty chunk that announces the role."""
    return _completion_event("openai-chat", {"delta": {"role": "assistant", "content": ""}})


def final_events(
    shape: str, prompt_tokens: int, tokens: int, *, usage: bool = True, done: bool = True, reason: str = "length"
) -> bytes:
    """Return what follows the last token: finish reason, usage, ``[DONE]``."""
    if shape in ("tgi", "djl"):
        details = {"finish_reason": reason, "generated_tokens": tokens, "input_length": prompt_tokens}
        body: dict[str, object] = {"generated_text": "", "details": details} if done else {"index": 2}
        return sse(body) if shape == "tgi" else line(body)
    parts = []
    if done:
        empty: dict[str, object] = {"text": ""} if shape == "openai-completions" else {"delta": {}}
        parts.append(_completion_event(shape, empty | {"finish_reason": reason}))
    if usage:
        counts = {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": tokens,
            "total_tokens": prompt_tokens + tokens,
        }
        parts.append(_completion_event(shape, None, usage=counts))
    if done:
        parts.append(b"data: [DONE]\n\n")
    return b"".join(parts)


def error_event(shape: str) -> bytes:
    """Return an error inside a 200 stream."""
    body = {"error": {"message": "CUDA out of memory", "type": "InternalServerError", "code": 500}}
    return line(body) if shape == "djl" else sse(body)


def whole_answer(shape: str, prompt_tokens: int, tokens: int, reason: str = "length") -> bytes:
    """Return an unstreamed answer."""
    text = " tok" * tokens
    if shape in ("tgi", "djl"):
        details = {"finish_reason": reason, "generated_tokens": tokens, "input_length": prompt_tokens}
        answer: dict[str, object] = {"generated_text": text, "details": details}
        return msgspec.json.encode([answer] if shape == "tgi" else answer)
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": tokens}
    if shape == "embeddings":
        data = [{"object": "embedding", "index": 0, "embedding": [0.0] * 8}]
        return msgspec.json.encode({"object": "list", "data": data, "usage": {"prompt_tokens": prompt_tokens}})
    content = {"text": text} if shape == "openai-completions" else {"message": {"role": "assistant", "content": text}}
    choice = {"index": 0, "finish_reason": reason} | content
    return msgspec.json.encode({"id": "r", "choices": [choice], "usage": usage})


def sse(value: object) -> bytes:
    """Return a server-sent event."""
    return b"data: %s\n\n" % msgspec.json.encode(value)


def line(value: object) -> bytes:
    """Return a JSON line."""
    return msgspec.json.encode(value) + b"\n"


def wrap(event: bytes, *, sagemaker: bool, pieces: int = 1) -> bytes:
    """Return an event as HTTP chunks, for SageMaker inside an event stream message.

    :param pieces: in so many chunks: a proxy may split anywhere.
    """
    if sagemaker:
        event = encode_message({":message-type": "event", ":event-type": "PayloadPart"}, event)
    size = max(1, -(-len(event) // pieces))
    parts = [event[start : start + size] for start in range(0, len(event), size)]
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
