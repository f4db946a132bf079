"""Request and reply shapes: which OpenAI route a SageMaker body means, and DJL's and TGI's shapes around it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

CHAT = "/v1/chat/completions"
COMPLETIONS = "/v1/completions"
SAME_NAME = ("temperature", "top_p", "top_k", "stop", "seed", "repetition_penalty", "ignore_eos")
RENAMED = {"max_new_tokens": "max_tokens", "stop_sequences": "stop", "repetition_penalty": "repeat_penalty"}
DEFAULT_NEW_TOKENS = 30  # DJL's and TGI's own default


class BadBodyError(ValueError):
    """The body is not one that the server understands; the message says what was expected."""


@dataclass(frozen=True)
class Call:
    """One generation request for llama.cpp.

    :param path: OpenAI route.
    :param generated_text: the reply goes back in DJL's and TGI's shape.
    """

    path: str
    body: dict[str, Any]
    generated_text: bool = False

    @property
    def streamed(self) -> bool:
        """True when the client asked for server-sent events."""
        return bool(self.body.get("stream"))


def parse_json(data: bytes) -> dict[str, Any]:
    """Return the JSON object in ``data``.

    :raises BadBodyError: when it is not a JSON object.
    """
    try:
        body = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadBodyError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict):
        raise BadBodyError(f"the body is not a JSON object but {type(body).__name__}")
    return body


def of_invocation(body: dict[str, Any]) -> Call:
    """Return what an ``/invocations`` body asks for: chat, completion, or ``{"inputs", "parameters"}``.

    :raises BadBodyError: naming the fields that were expected.
    """
    if "messages" in body:
        return Call(CHAT, body)
    if "prompt" in body:
        return Call(COMPLETIONS, body)
    if isinstance(body.get("inputs"), str):
        return Call(COMPLETIONS, _from_inputs(body), generated_text=True)
    raise BadBodyError("expected one of the fields messages, prompt, inputs (a text)")


def _from_inputs(body: dict[str, Any]) -> dict[str, Any]:
    parameters = body.get("parameters") or {}
    if not isinstance(parameters, dict):
        raise BadBodyError("parameters is not a JSON object")
    asked = {"prompt": body["inputs"], "max_tokens": DEFAULT_NEW_TOKENS}
    asked |= {name: parameters[name] for name in SAME_NAME if name in parameters}
    asked |= {RENAMED[name]: parameters[name] for name in RENAMED if name in parameters}
    if parameters.get("do_sample") is False:
        asked["temperature"] = 0
    if body.get("stream"):
        asked["stream"] = True
    if "model" in body:
        asked["model"] = body["model"]
    return asked


def generated_text(answer: dict[str, Any]) -> dict[str, Any]:
    """Return an OpenAI completion as ``{"generated_text"}``."""
    return {"generated_text": answer["choices"][0]["text"]}


@dataclass
class TokenStream:
    """Turns a completion's server-sent events into TGI's, as they arrive."""

    text: str = ""
    tokens: int = 0
    _rest: bytes = field(default=b"", repr=False)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Take bytes of any cut; yield the complete events that they finish."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if line.startswith(b"data: ") and not line.startswith(b"data: [DONE]"):
                yield self._event(json.loads(line[6:]))

    def _event(self, chunk: dict[str, Any]) -> bytes:
        if "error" in chunk:
            return b"data:" + json.dumps({"error": chunk["error"]}).encode() + b"\n\n"
        choice = chunk["choices"][0]
        piece = choice.get("text") or ""
        done = choice.get("finish_reason")
        self.text += piece
        self.tokens += bool(piece)
        details = {"finish_reason": done, "generated_tokens": self.tokens} if done else None
        event = {
            "index": self.tokens,
            "token": {"id": 0, "text": piece, "logprob": 0.0, "special": bool(done) and not piece},
            "generated_text": self.text if done else None,
            "details": details,
        }
        return b"data:" + json.dumps(event).encode() + b"\n\n"
