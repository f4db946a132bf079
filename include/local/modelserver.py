"""A model container for the local HyperPod: real llama.cpp behind SageMaker's and OpenAI's HTTP contracts.

``python -m include.local.modelserver`` loads the GGUF found in the model volume and serves ``/ping``,
``/invocations``, ``/v1/*``, ``/metrics`` and ``/info``. It does not imitate vLLM: vLLM's arguments that have no
meaning here are refused, not ignored.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

log = logging.getLogger("modelserver")


@dataclass
class Counters:
    """What the server itself saw; the benchmark compares it with the client's side."""

    invocations: int = 0
    errors: int = 0
    concurrent: int = 0
    ttfb_ms_sum: float = 0.0
    ttfb_count: int = 0

    def text(self) -> str:
        """Prometheus text."""
        return (
            f"model_invocations_total {self.invocations}\nmodel_errors_total {self.errors}\n"
            f"model_concurrent_requests {self.concurrent}\nmodel_ttfb_milliseconds_sum {self.ttfb_ms_sum:.3f}\n"
            f"model_ttfb_milliseconds_count {self.ttfb_count}\n"
        )


@dataclass
class ModelServer:
    """The front of one llama.cpp server."""

    model: Path
    name: str
    slots: int
    context: int
    threads: int
    arguments: list[str]
    upstream: str = ""
    engine: Any = None
    counters: Counters = field(default_factory=Counters)
    files: dict[str, str] = field(default_factory=dict)
    phases: dict[str, float] = field(default_factory=dict)
    session: aiohttp.ClientSession | None = None

    def load(self) -> None:
        """Hash the model's files and start llama.cpp on them; blocks until it can answer."""
        started = time.monotonic()
        self.files = {
            str(path.relative_to(self.model.parent)): _sha256(path)
            for path in sorted(self.model.parent.rglob("*"))
            if path.is_file()
        }
        self.phases["hash"] = time.monotonic() - started
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(self.model)
        params.model_alias = {self.name}
        params.hostnames, params.port = ["127.0.0.1"], _free_port()
        params.n_parallel, params.n_ctx = self.slots, self.context * self.slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = self.threads
        params.endpoint_metrics = True
        self.engine = xllamacpp.Server(params)
        self.upstream = str(self.engine.listening_address)
        self.phases["load"] = time.monotonic() - started - self.phases["hash"]
        log.info(
            "model %s ready: %s", self.name, {name: round(value, 2) for name, value in self.phases.items()}
        )

    def application(self) -> web.Application:
        """Return the HTTP front."""
        app = web.Application(client_max_size=64 << 20)
        app.add_routes(
            [
                web.get("/ping", self.ping),
                web.get("/health", self.ping),
                web.get("/v1/models", self.models),
                web.get("/info", self.info),
                web.get("/metrics", self.metrics),
                web.post("/invocations", self.invocations),
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.completions),
                web.post("/tokenize", self.tokenize),
            ]
        )
        app.cleanup_ctx.append(self._upstream)
        return app

    async def _upstream(self, _: web.Application) -> AsyncIterator[None]:
        # llama.cpp closes the connection after a streamed reply while it advertises keep-alive.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self.session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        loading = asyncio.create_task(asyncio.to_thread(self.load))
        loading.add_done_callback(_exit_on_failure)
        yield
        await self.session.close()

    async def ping(self, _: web.Request) -> web.Response:
        """200 when the model can answer, 503 while it loads."""
        if not self.upstream:
            return web.json_response({"status": "loading"}, status=503)
        return web.json_response({"status": "ok"})

    async def models(self, _: web.Request) -> web.Response:
        """OpenAI's list of models: the served name."""
        card = {"id": self.name, "object": "model", "owned_by": "local", "max_model_len": self.context}
        return web.json_response({"object": "list", "data": [card]})

    async def info(self, _: web.Request) -> web.Response:
        """What runs here: engine, arguments, digest of every model file that was loaded."""
        return web.json_response(
            {
                "engine": "llama.cpp",
                "engine_version": version("xllamacpp"),
                "served_model_name": self.name,
                "args": self.arguments,
                "files": self.files,
                "max_model_len": self.context,
                "slots": self.slots,
                "load_seconds": self.phases,
            }
        )

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus metrics: ours and llama.cpp's."""
        text = self.counters.text()
        if self.upstream and self.session:
            async with self.session.get(f"{self.upstream}/metrics") as answer:
                text += await answer.text()
        return web.Response(text=text, content_type="text/plain")

    async def tokenize(self, request: web.Request) -> web.StreamResponse:
        """Token ids of a text, as vLLM's ``/tokenize`` gives them."""
        body = await request.json()
        if not self.session or not self.upstream:
            return _error(503, "the model is loading")
        text = {"content": body.get("prompt", ""), "add_special": False}
        async with self.session.post(f"{self.upstream}/tokenize", json=text) as answer:
            tokens = (await answer.json())["tokens"]
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": self.context})

    async def invocations(self, request: web.Request) -> web.StreamResponse:
        """SageMaker's entry: OpenAI-shaped bodies, or DJL's and TGI's ``{"inputs", "parameters"}``."""
        body = await _json(request)
        if body is None:
            return _error(400, "the body is not JSON")
        if "messages" in body:
            return await self._forward(request, "/v1/chat/completions", body)
        if "prompt" in body:
            return await self._forward(request, "/v1/completions", body)
        if "inputs" not in body:
            return _error(400, "expected one of the fields messages, prompt, inputs")
        parameters = body.get("parameters") or {}
        asked = {"prompt": body["inputs"], "max_tokens": parameters.get("max_new_tokens", 64)}
        asked |= {key: parameters[key] for key in ("temperature", "top_p", "stop") if key in parameters}
        return await self._forward(request, "/v1/completions", asked, reshape=_generated_text)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """OpenAI chat completions."""
        body = await _json(request)
        if body is None:
            return _error(400, "the body is not JSON")
        return await self._forward(request, "/v1/chat/completions", body)

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """OpenAI completions."""
        body = await _json(request)
        if body is None:
            return _error(400, "the body is not JSON")
        return await self._forward(request, "/v1/completions", body)

    async def _forward(
        self, request: web.Request, path: str, body: dict[str, Any], reshape: Any = None
    ) -> web.StreamResponse:
        asked = body.get("model", self.name)
        if asked not in (self.name, "/opt/ml/model"):
            return _error(404, f"the model {asked!r} does not exist; served: {self.name!r}")
        if not self.upstream or self.session is None:
            return _error(503, "the model is loading")
        self.counters.invocations += 1
        self.counters.concurrent += 1
        started = time.monotonic()
        try:
            async with self.session.post(self.upstream + path, json={**body, "model": self.name}) as answer:
                if answer.status >= 400:
                    self.counters.errors += 1
                if reshape is not None and answer.status < 400:
                    return web.json_response(reshape(await answer.json()))
                return await self._relay(request, answer, started)
        except aiohttp.ClientError as error:
            self.counters.errors += 1
            return _error(502, f"llama.cpp: {error!r}")
        finally:
            self.counters.concurrent -= 1

    async def _relay(
        self, request: web.Request, answer: aiohttp.ClientResponse, started: float
    ) -> web.StreamResponse:
        reply = web.StreamResponse(status=answer.status)
        reply.content_type = answer.content_type or "application/json"
        first = True
        await reply.prepare(request)
        async for chunk in answer.content.iter_any():
            if first:
                self.counters.ttfb_ms_sum += (time.monotonic() - started) * 1000
                self.counters.ttfb_count += 1
                first = False
            await reply.write(chunk)
        await reply.write_eof()
        return reply


def find_model(folder: Path) -> Path:
    """Return the one GGUF file below ``folder``.

    :raises FileNotFoundError: when there is none, or more than one.
    """
    found = sorted(folder.rglob("*.gguf"))
    if len(found) != 1:
        raise FileNotFoundError(f"{folder}: expected one .gguf file, found {[path.name for path in found]}")
    return found[0]


def main() -> int:
    """Serve until SIGTERM; 1 when the model cannot be loaded."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(prog="python -m include.local.modelserver", description=__doc__)
    parser.add_argument("model_dir", nargs="?", help="folder with the weights; default: $SM_MODEL_DIR")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--served-model-name", default="model")
    parser.add_argument("--max-model-len", type=int, default=2048)
    parser.add_argument("--max-num-seqs", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    folder = _model_folder(given.model_dir)
    try:
        model = find_model(folder)
    except FileNotFoundError as error:
        log.error("%s", error)  # noqa: TRY400
        return 1
    server = ModelServer(
        model, given.served_model_name, given.max_num_seqs, given.max_model_len, given.threads, sys.argv[1:]
    )
    port = int(os.environ.get(f"HYPERPOD_LOCAL_PORT_{given.port}", given.port))
    log.info("listening on 127.0.0.1:%d, loading %s (%d bytes)", port, model.name, model.stat().st_size)
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    web.run_app(server.application(), host="127.0.0.1", port=port, print=lambda *_: None, access_log=None)
    return 0


def _model_folder(given: str | None) -> Path:
    # A container sees its volume at /opt/ml/model; a local process finds it where the node agent put it.
    mounted = os.environ.get("SM_MODEL_DIR", "/opt/ml/model")
    return Path(mounted if given in (None, "/opt/ml/model") else str(given))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _exit_on_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.error("the model could not be loaded: %s", task.exception())
        os._exit(1)


async def _json(request: web.Request) -> dict[str, Any] | None:
    try:
        body = await request.json()
    except (json.JSONDecodeError, UnicodeDecodeError):
        return None
    return body if isinstance(body, dict) else None


def _generated_text(answer: dict[str, Any]) -> dict[str, Any]:
    return {"generated_text": answer["choices"][0]["text"]}


def _error(status: int, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": status}}
    return web.json_response(body, status=status)


if __name__ == "__main__":
    sys.exit(main())
