"""The HTTP front of one llama.cpp: SageMaker's and OpenAI's routes, passed through without buffering."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from include.local.modelserver.bodies import (
    CHAT,
    COMPLETIONS,
    BadBodyError,
    Call,
    TokenStream,
    generated_text,
    of_invocation,
    parse_json,
)
from include.local.modelserver.counters import Counters
from include.local.modelserver.engine import Engine, EngineError
from include.local.modelserver.files import CONTAINER_FOLDER, manifest_digest, sha256_of_files

log = logging.getLogger("modelserver")
EVENT_STREAM = "text/event-stream"


@dataclass
class Front:
    """Routes, counters and the engine behind them.

    :param failed: called with the exit code when the engine is lost.
    """

    engine: Engine
    folder: Path
    name: str
    context: int
    slots: int
    arguments: list[str]
    failed: Callable[[int], None]
    counters: Counters = field(default_factory=Counters)
    files: dict[str, str] = field(default_factory=dict)
    manifest: str | None = None
    phases: dict[str, float] = field(default_factory=dict)
    ready: bool = False
    _session: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application(client_max_size=64 << 20)
        app.add_routes(
            [
                web.get("/ping", self.ping),
                web.get("/health", self.ping),
                web.get("/info", self.info),
                web.get("/version", self.version),
                web.get("/metrics", self.metrics),
                web.get("/v1/models", self.models),
                web.post("/invocations", self.invocations),
                web.post(CHAT, self.chat),
                web.post(COMPLETIONS, self.completions),
                web.post("/v1/embeddings", self.embeddings),
                web.post("/tokenize", self.tokenize),
            ]
        )
        app.cleanup_ctx.append(self._run_engine)
        app.on_shutdown.append(self._drain)
        return app

    async def _drain(self, _: web.Application) -> None:
        self.ready = False

    async def _run_engine(self, _: web.Application) -> AsyncIterator[None]:
        # llama.cpp closes the connection after a streamed reply while it advertises keep-alive.
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))
        running = asyncio.create_task(self._load_and_watch())
        yield
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await self._session.close()
        await self.engine.stop()

    async def _load_and_watch(self) -> None:
        started = time.monotonic()
        try:
            await asyncio.gather(self._open(started), self.engine.start())
        except (EngineError, OSError, ValueError) as error:
            log.error("%s", error)
            self.failed(1)
            return
        self.phases["load"] = time.monotonic() - started
        self.ready = True
        log.info("ready: model %s, %.2f s from start to ready", self.name, self.phases["load"])
        code = await self.engine.wait()
        log.error("llama.cpp ended with exit %d", code)
        self.failed(1)

    async def _open(self, started: float) -> None:
        self.files = await asyncio.to_thread(sha256_of_files, self.folder)
        self.manifest = await asyncio.to_thread(manifest_digest, self.folder)
        self.phases["open"] = time.monotonic() - started
        log.info("open: %d files read and hashed in %.2f s", len(self.files), self.phases["open"])

    async def ping(self, _: web.Request) -> web.Response:
        """200 when the model can answer, 503 while it loads or drains."""
        state, status = ("ok", 200) if self.ready else ("loading", 503)
        return web.json_response({"status": state}, status=status)

    async def models(self, _: web.Request) -> web.Response:
        """OpenAI's list of models: the served name."""
        card = {"id": self.name, "object": "model", "owned_by": "local", "max_model_len": self.context}
        return web.json_response({"object": "list", "data": [card]})

    async def version(self, _: web.Request) -> web.Response:
        """The version of llama.cpp's binding, where vLLM tells its own."""
        return web.json_response({"version": version("xllamacpp")})

    async def info(self, _: web.Request) -> web.Response:
        """What runs here: engine, arguments, digest of every file and of the staging manifest."""
        return web.json_response(
            {
                "engine": "llama.cpp",
                "engine_version": version("xllamacpp"),
                "served_model_name": self.name,
                "args": self.arguments,
                "files": self.files,
                "manifest_digest": self.manifest,
                "max_model_len": self.context,
                "slots": self.slots,
                "load_seconds": {name: round(value, 4) for name, value in self.phases.items()},
            }
        )

    async def metrics(self, _: web.Request) -> web.Response:
        """Prometheus metrics: the front's, then llama.cpp's."""
        text = self.counters.text()
        if self.ready and self._session:
            async with self._session.get(f"{self.engine.url}/metrics") as answer:
                text += await answer.text()
        return web.Response(text=text, content_type="text/plain")

    async def invocations(self, request: web.Request) -> web.StreamResponse:
        """SageMaker's entry: OpenAI-shaped bodies, or DJL's and TGI's ``{"inputs", "parameters"}``."""
        return await self._generate(request, of_invocation)

    async def chat(self, request: web.Request) -> web.StreamResponse:
        """OpenAI chat completions."""
        return await self._generate(request, lambda body: Call(CHAT, body))

    async def completions(self, request: web.Request) -> web.StreamResponse:
        """OpenAI completions."""
        return await self._generate(request, lambda body: Call(COMPLETIONS, body))

    async def embeddings(self, request: web.Request) -> web.StreamResponse:
        """Refused with llama.cpp's own 501: a generating model has no pooled embeddings."""
        return await self._generate(request, lambda body: Call("/v1/embeddings", body))

    async def tokenize(self, request: web.Request) -> web.StreamResponse:
        """Token ids of a text, as vLLM's ``/tokenize`` gives them."""
        try:
            body = parse_json(await request.read())
        except BadBodyError as error:
            return _error(400, str(error))
        if not self._session or not self.ready:
            return _error(503, "the model is loading")
        asked = {"content": body.get("prompt", ""), "add_special": False}
        async with self._session.post(f"{self.engine.url}/tokenize", json=asked) as answer:
            tokens = (await answer.json())["tokens"]
        return web.json_response({"tokens": tokens, "count": len(tokens), "max_model_len": self.context})

    async def _generate(self, request: web.Request, parse: Callable[[dict[str, Any]], Call]) -> web.StreamResponse:
        """Count a generation request and answer it; a client that leaves ends the work for it."""
        self.counters.invocations += 1
        self.counters.concurrent += 1
        try:
            reply = await self._answer(request, parse, time.monotonic())
        except (asyncio.CancelledError, ConnectionResetError):
            self.counters.cancelled += 1
            raise
        finally:
            self.counters.concurrent -= 1
        self.counters.errors += reply.status >= 400
        return reply

    async def _answer(
        self, request: web.Request, parse: Callable[[dict[str, Any]], Call], started: float
    ) -> web.StreamResponse:
        try:
            call = parse(parse_json(await request.read()))
        except BadBodyError as error:
            return _error(400, str(error))
        asked = call.body.get("model", self.name)
        if asked not in (self.name, CONTAINER_FOLDER):
            return _error(404, f"the model {asked!r} does not exist; served: {self.name!r}")
        if not self.ready or self._session is None:
            return _error(503, "the model is loading")
        body = {**call.body, "model": self.name}
        try:
            async with self._session.post(self.engine.url + call.path, json=body) as answer:
                if answer.content_type == EVENT_STREAM:
                    return await self._stream(request, answer, call, started)
                return await _whole(answer, call)
        except aiohttp.ClientError as error:
            return _error(502, f"llama.cpp: {error!r}")

    async def _stream(
        self, request: web.Request, answer: aiohttp.ClientResponse, call: Call, started: float
    ) -> web.StreamResponse:
        reply = web.StreamResponse(status=answer.status, headers={"Cache-Control": "no-cache"})
        reply.content_type = EVENT_STREAM
        tokens = TokenStream() if call.generated_text else None
        waiting = True
        await reply.prepare(request)
        try:
            async for chunk in answer.content.iter_any():
                if waiting:
                    self.counters.ttft.observe(time.monotonic() - started)
                    waiting = False
                for piece in tokens.feed(chunk) if tokens else (chunk,):
                    await reply.write(piece)
        except aiohttp.ClientError as error:
            # Half a reply is out: only a cut connection tells the client that it is not whole.
            self.counters.errors += 1
            log.error("llama.cpp broke a stream: %r", error)
            if request.transport is not None:
                request.transport.abort()
            return reply
        await reply.write_eof()
        return reply


async def _whole(answer: aiohttp.ClientResponse, call: Call) -> web.Response:
    data = await answer.read()
    if call.generated_text and answer.status < 400:
        return web.json_response(generated_text(json.loads(data)))
    return web.Response(body=data, status=answer.status, content_type=answer.content_type)


def _error(status: int, message: str) -> web.Response:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": status}}
    return web.json_response(body, status=status)
