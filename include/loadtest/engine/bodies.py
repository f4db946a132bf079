"""Request bodies, one shape per protocol, and the HTTP head in front of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from include.loadtest.job import Endpoint

Message = dict[str, Any]
_encode = msgspec.json.Encoder().encode


class Shape:
    """Renders requests for one endpoint.

    :param exact_output: ask for exactly the stated number of tokens where the protocol has a field for it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._head = _head(endpoint)

    def body(
        self,
        messages: Sequence[Message],
        output_tokens: int,
        *,
        exact_output: bool,
        tools: Sequence[Message] = (),
    ) -> bytes:
        """Return the JSON body of one request; without ``output_tokens`` (0) the server decides the length."""
        endpoint = self._endpoint
        exact = exact_output and endpoint.ignore_eos and output_tokens > 0
        if endpoint.body in ("tgi", "djl"):
            return _encode(_generation(endpoint, messages, output_tokens, exact=exact))
        body: dict[str, Any] = {"model": endpoint.model} if endpoint.model else {}
        if endpoint.body == "embeddings":
            return _encode(body | {"input": plain_text(messages)})
        if endpoint.body == "openai-completions":
            body["prompt"] = plain_text(messages)
        else:
            body["messages"] = list(messages)
            if tools:
                body["tools"] = list(tools)
        if output_tokens:
            body["max_tokens"] = output_tokens
        body |= {"temperature": 0, "stream": endpoint.stream}
        if exact:
            body["ignore_eos"] = True
        if endpoint.stream:
            body["stream_options"] = {"include_usage": True}
        return _encode(body)

    def request(self, body: bytes, request_id: str, extra: bytes = b"") -> bytes:
        """Return head and body as they go on the wire; ``extra``: further header lines, each ended by CR LF."""
        return b"%s%sx-request-id: %s\r\ncontent-length: %d\r\n\r\n%s" % (
            self._head,
            extra,
            request_id.encode(),
            len(body),
            body,
        )


def _generation(endpoint: Endpoint, messages: Sequence[Message], output_tokens: int, *, exact: bool) -> dict[str, Any]:
    parameters: dict[str, Any] = {"do_sample": False, "details": True}
    if output_tokens:
        parameters["max_new_tokens"] = output_tokens
        if exact and endpoint.body == "djl":
            parameters["min_new_tokens"] = output_tokens
            parameters["ignore_eos_token"] = True
    body = {"inputs": plain_text(messages), "parameters": parameters}
    return body | {"stream": True} if endpoint.stream else body


def plain_text(messages: Sequence[Message]) -> str:
    """Return the text of all messages, for protocols that know no roles."""
    return " ".join(str(message.get("content") or "") for message in messages)


def _head(endpoint: Endpoint) -> bytes:
    fields = {"host": endpoint.host_header, "content-type": "application/json"}
    fields["accept"] = "text/event-stream, application/json" if endpoint.stream else "application/json"
    fields |= {name.lower(): value for name, value in endpoint.headers.items()}
    lines = [f"POST {endpoint.path} HTTP/1.1"] + [f"{name}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n").encode("latin-1")


def tool_definitions(count: int, words: Sequence[str]) -> list[Message]:
    """Return ``count`` function definitions of the size that agents send."""
    return [
        {
            "type": "function",
            "function": {
                "name": f"tool_{words[place % len(words)]}_{place}",
                "description": f"Look up a {words[(place * 7) % len(words)]} by its name and return what is known.",
                "parameters": {
                    "type": "object",
                    "properties": {
                        "query": {"type": "string", "description": "What to look for."},
                        "limit": {"type": "integer", "description": "At most so many results."},
                    },
                    "required": ["query"],
                },
            },
        }
        for place in range(count)
    ]
