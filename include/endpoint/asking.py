"""Ask a live endpoint: one request, plain or streamed, over HTTP or through SageMaker."""

from __future__ import annotations

import functools
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from include.endpoint.clients import Clients
from include.endpoint.invocation import Invocation

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back.

    :param status: HTTP status, 0 when the request got no answer.
    :param chunks: server-sent events with a payload (streamed requests).
    :param seconds: to the last byte.
    """

    status: int
    text: str = ""
    chunks: tuple[dict[str, Any], ...] = ()
    seconds: float = 0.0
    error: str = ""
    finished: bool = False

    @property
    def ok(self) -> bool:
        """True for a 2xx answer."""
        return 200 <= self.status < 300

    @property
    def json(self) -> Any:
        """The body as JSON, ``None`` when it is not."""
        try:
            return json.loads(self.text)
        except ValueError:
            return None

    @property
    def said(self) -> str:
        """Status and the beginning of the body, for a report."""
        return self.error or f"HTTP {self.status}: {self.text[:200]}"


@dataclass(frozen=True)
class Asker:
    """Requests to one endpoint."""

    invocation: Invocation
    clients: Clients = field(repr=False)
    timeout_s: float = TIMEOUT_S

    def get(self, path: str) -> Answer:
        """GET a path of the model server."""
        return self._http("GET", self.invocation.url(path), None)

    def infer(self, body: dict[str, Any]) -> Answer:
        """Send one inference request."""
        if self.invocation.protocol == "sagemaker":
            return self._sagemaker(body)
        return self._http("POST", self.invocation.url(), body)

    def stream(self, body: dict[str, Any]) -> Answer:
        """Send one inference request and read its answer as server-sent events."""
        if self.invocation.protocol == "sagemaker":
            return self._sagemaker_stream(body)
        return self._http("POST", self.invocation.url(), body, streamed=True)

    def body(self, prompt: str, max_tokens: int, **more: Any) -> dict[str, Any]:
        """Return a request body in the dialect of the endpoint's path."""
        path = self.invocation.path
        if path.endswith("/completions") and not path.endswith("/chat/completions"):
            return {"model": self.invocation.model, "prompt": prompt, "max_tokens": max_tokens, **more}
        chat = [{"role": "user", "content": prompt}]
        return {"model": self.invocation.model, "messages": chat, "max_tokens": max_tokens, **more}

    def _http(self, method: str, url: str, body: Any, *, streamed: bool = False) -> Answer:
        import httpx

        invocation, started = self.invocation, time.monotonic()
        # Some servers drop a kept connection after a streamed answer: use a new one each time.
        headers = {**invocation.headers, "Connection": "close"}
        verify = _tls(invocation.ca_file)
        try:
            with (
                httpx.Client(timeout=self.timeout_s, verify=verify, trust_env=False) as client,
                client.stream(method, url, json=body, headers=headers) as reply,
            ):
                lines = list(reply.iter_lines())
        except (httpx.HTTPError, OSError) as error:
            return Answer(0, seconds=time.monotonic() - started, error=f"{type(error).__name__}: {error}")
        text = "\n".join(lines)
        chunks, finished = _events(lines) if streamed else ((), True)
        return Answer(reply.status_code, text, chunks, time.monotonic() - started, finished=finished)

    def _sagemaker(self, body: dict[str, Any]) -> Answer:
        started = time.monotonic()
        return self._runtime(
            started,
            lambda runtime, arguments: Answer(
                200,
                runtime.invoke_endpoint(**arguments)["Body"].read().decode("utf-8", "replace"),
                seconds=time.monotonic() - started,
                finished=True,
            ),
            body,
        )

    def _sagemaker_stream(self, body: dict[str, Any]) -> Answer:
        started = time.monotonic()

        def read(runtime: Any, arguments: dict[str, Any]) -> Answer:
            parts = runtime.invoke_endpoint_with_response_stream(**arguments)["Body"]
            data = b"".join(part["PayloadPart"]["Bytes"] for part in parts if "PayloadPart" in part)
            text = data.decode("utf-8", "replace")
            chunks, finished = _events(text.splitlines())
            return Answer(200, text, chunks, time.monotonic() - started, finished=finished)

        return self._runtime(started, read, body)

    def _runtime(self, started: float, call: Any, body: dict[str, Any]) -> Answer:
        from botocore.exceptions import BotoCoreError, ClientError

        arguments = {
            "EndpointName": self.invocation.path.split("/")[2],
            "ContentType": "application/json",
            "Body": json.dumps(body).encode(),
        }
        try:
            answer: Answer = call(self.clients.runtime, arguments)
        except ClientError as error:
            # A ModelError carries what the model's container answered.
            answered = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
            status = int(error.response.get("OriginalStatusCode") or answered)
            return Answer(status, str(error), seconds=time.monotonic() - started, error=str(error))
        except BotoCoreError as error:
            return Answer(0, seconds=time.monotonic() - started, error=str(error))
        return answer


def _tls(ca_file: str | None) -> Any:
    """Return what a server is trusted by: a file that may change with each endpoint, or the system's roots."""
    import ssl

    return ssl.create_default_context(cafile=ca_file) if ca_file else _system_roots()


@functools.cache
def _system_roots() -> Any:
    """Read once: it takes longer than a completion, and a triggerer asks for many endpoints."""
    import ssl

    return ssl.create_default_context()


def _events(lines: list[str]) -> tuple[tuple[dict[str, Any], ...], bool]:
    chunks, finished = [], False
    for data in _data_lines(lines):
        if data == "[DONE]":
            finished = True
            continue
        try:
            chunk = json.loads(data)
        except ValueError:
            continue
        if isinstance(chunk, dict):
            chunks.append(chunk)
    return tuple(chunks), finished


def _data_lines(lines: list[str]) -> Iterator[str]:
    for line in lines:
        if line.startswith("data:"):
            yield line.removeprefix("data:").strip()


def text_of(payload: Any) -> str:
    """Return the generated text of an answer or a chunk, in any of the dialects."""
    if isinstance(payload, list):
        return "".join(text_of(item) for item in payload)
    if not isinstance(payload, dict):
        return ""
    for key in ("generated_text", "generation"):
        if key in payload:
            return str(payload[key])
    texts = []
    for choice in payload.get("choices") or []:
        message = choice.get("message") or choice.get("delta") or {}
        texts.append(str(message.get("content") or choice.get("text") or ""))
    return "".join(texts)
