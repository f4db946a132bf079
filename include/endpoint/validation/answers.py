"""The endpoint answers as its contract says: text, stream, usage, stop, JSON schema, context limit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from include.endpoint.asking import Answer, text_of
from include.endpoint.model import Check
from include.endpoint.validation.subject import Subject, skip, verdict

PROMPT = "List three colours."
TOKENS = 16
SCHEMA = {
    "type": "object",
    "properties": {"ok": {"type": "boolean"}},
    "required": ["ok"],
    "additionalProperties": False,
}
REFUSALS = (400, 413, 422)
UNSUPPORTED = (400, 404, 422, 501)


def _body(subject: Subject, prompt: str, tokens: int, **more: Any) -> dict[str, Any]:
    """A body for the endpoint's path; SageMaker forwards to the planned invocation path."""
    if subject.speaks_openai or subject.asker.invocation.direct:
        return subject.asker.body(prompt, tokens, **more)
    return {"inputs": prompt, "parameters": {"max_new_tokens": tokens, **more}}


def completion(subject: Subject) -> Iterator[Check]:
    """One completion comes back, from the requested model, with usage that adds up."""
    answer = subject.asker.infer(_body(subject, PROMPT, TOKENS, temperature=0))
    text = text_of(answer.json)
    fix = "read the model server's log and the answer's body"
    yield verdict("completion", answer.ok and bool(text.strip()), "some text", _quoted(answer, text), fix)
    if not answer.ok or not isinstance(answer.json, dict) or "choices" not in answer.json:
        return
    wanted = subject.asker.invocation.model
    named = str(answer.json.get("model", ""))
    fix = "another model answers: check the address and served_model_name"
    yield verdict("model of the answer", named == wanted, wanted, named or "none", fix)
    yield _usage(answer.json.get("usage"))


def _quoted(answer: Answer, text: str) -> str:
    return repr(text[:80]) if answer.ok else answer.said


def _usage(usage: Any) -> Check:
    counts = usage if isinstance(usage, dict) else {}
    sent, made, total = (counts.get(f"{name}_tokens", 0) for name in ("prompt", "completion", "total"))
    ok = sent > 0 and 0 < made <= TOKENS and total == sent + made
    expected = f"prompt > 0, 1 to {TOKENS} completion tokens, and their sum"
    return verdict(
        "usage", ok, expected, f"{sent} + {made} = {total}", "token counts cannot be trusted: fix the server"
    )


def streamed_completion(subject: Subject) -> Iterator[Check]:
    """A streamed completion arrives in several pieces and ends properly."""
    name = "streamed completion"
    if not subject.speaks_openai:
        yield skip(name, "the invocation path is not OpenAI's")
        return
    answer = subject.asker.stream(_body(subject, PROMPT, TOKENS, stream=True, temperature=0))
    pieces = [chunk for chunk in answer.chunks if text_of(chunk)]
    ended = answer.finished or any(
        choice.get("finish_reason") for chunk in answer.chunks for choice in chunk.get("choices") or []
    )
    observed = f"{len(pieces)} pieces, {'ended' if ended else 'not ended'}" if answer.ok else answer.said
    fix = "something between client and server buffers or cuts the stream"
    yield verdict(name, answer.ok and len(pieces) > 1 and ended, "more than one piece and an end", observed, fix)


def stops(subject: Subject) -> Iterator[Check]:
    """A stop string is obeyed: it does not appear in the text."""
    name = "stop string"
    if not subject.speaks_openai:
        yield skip(name, "the invocation path is not OpenAI's")
        return
    answer = subject.asker.infer(_body(subject, "Count: 1 2 3 4 5", TOKENS, stop=[" ", "\n"], temperature=0))
    text = text_of(answer.json)
    spoken = answer.ok and isinstance(answer.json, dict) and bool(answer.json.get("choices"))
    obeyed = spoken and " " not in text and "\n" not in text
    yield verdict(name, obeyed, "no stop string in the text", _quoted(answer, text), "the server ignores stop")


def json_schema(subject: Subject) -> Iterator[Check]:
    """Output constrained by a JSON schema obeys it; a server without the feature is skipped."""
    name = "JSON schema"
    if "chat" not in subject.deployment.invocation_path:
        yield skip(name, "not a chat endpoint")
        return
    wanted = {"type": "json_schema", "json_schema": {"name": "flag", "schema": SCHEMA, "strict": True}}
    answer = subject.asker.infer(_body(subject, "Answer with ok = true.", 32, response_format=wanted, temperature=0))
    if answer.status in UNSUPPORTED:
        yield skip(name, f"the server has no response_format: {answer.said}")
        return
    text = text_of(answer.json)
    yield verdict(name, answer.ok and _is_flag(text), '{"ok": true or false}', _quoted(answer, text), "fix the server")


def _is_flag(text: str) -> bool:
    try:
        value = json.loads(text)
    except ValueError:
        return False
    return isinstance(value, dict) and set(value) == {"ok"} and isinstance(value["ok"], bool)


def context_length(subject: Subject) -> Iterator[Check]:
    """A prompt beyond the context is refused as the client's error, not cut or crashed on."""
    name, limit = "context limit", subject.deployment.max_model_len
    if not limit or not subject.speaks_openai:
        yield skip(name, "max_model_len is not given" if not limit else "the invocation path is not OpenAI's")
        return
    answer = subject.asker.infer(_body(subject, "word " * (limit * 2), 1))
    refused = answer.status in REFUSALS
    yield verdict(name, refused, f"one of {REFUSALS}", answer.said, "the server takes what it cannot read")
    if not refused:
        return
    again = subject.asker.infer(_body(subject, PROMPT, 1))
    yield verdict("alive after a refusal", again.ok, "an answer", again.said, "a long prompt brings the server down")
