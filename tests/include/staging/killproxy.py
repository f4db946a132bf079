"""A proxy before the S3 server that counts requests by kind and kills whoever sends the k-th of one."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web
from yarl import URL

HOP = {"connection", "keep-alive", "transfer-encoding", "content-encoding", "expect"}


@dataclass(frozen=True)
class Point:
    """Where somebody dies: at the ``number``-th request of a kind.

    :param when: before the server gets it, or after the server did it and before the answer comes.
    """

    kind: str
    number: int = 1
    when: Literal["before", "after"] = "before"


def kind_of(method: str, path: str, query: str, headers: Any, body: bytes) -> str:
    """Say what a request is for."""
    asked = {part.partition("=")[0] for part in query.split("&")}
    if "delete" in asked:
        method, path = "DELETE", body.partition(b"</Key>")[0].decode()
    name = path.rsplit("/", 1)[-1]
    if "uploads" in asked:
        return "begin" if method == "POST" else "list-uploads"
    if "uploadId" in asked:
        kinds = {"PUT": "part", "POST": "complete", "DELETE": "abort"}
        return "copy-part" if "x-amz-copy-source" in headers else kinds.get(method, "list-parts")
    if "x-amz-copy-source" in headers:
        return "copy"
    if "list-type" in asked:
        return "list"
    if name == "manifest.json":
        return {"PUT": "publish", "DELETE": "unpublish"}.get(method, "read-manifest")
    if name == "staging.lock":
        return {"PUT": "lock", "DELETE": "release"}.get(method, "read-lock")
    return {"PUT": "put", "HEAD": "head", "GET": "get", "DELETE": "delete"}.get(method, method)


class KillProxy:
    """Passes everything on to ``target``; runs in a thread of its own.

    :param seen: requests since :meth:`arm`, by kind.
    :param struck: the point was reached.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self.url = ""
        self.seen: Counter[str] = Counter()
        self.struck = threading.Event()
        self._point: Point | None = None
        self._victim: Future[int] = Future()
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> KillProxy:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def arm(self, point: Point | None) -> None:
        """Count from nothing; strike at this point whoever :meth:`aim` names."""
        self.seen.clear()
        self.struck.clear()
        self._victim, self._point = Future(), point

    def aim(self, victim: int) -> None:
        """Name the process that dies; requests wait for that."""
        self._victim.set_result(victim)

    async def _start(self) -> None:
        self._session = aiohttp.ClientSession(auto_decompress=False, timeout=aiohttp.ClientTimeout(total=120))
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(app, access_log=None, handler_cancellation=False, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        parts = urlsplit(request.raw_path)
        kind = kind_of(request.method, parts.path, parts.query, request.headers, body)
        self.seen[kind] += 1
        point = self._point
        strikes = point is not None and (kind, self.seen[kind]) == (point.kind, point.number)
        if strikes and point is not None and point.when == "before":
            await self._strike(request)
        # Host stays as it was: it is part of the signature.
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP}
        assert self._session is not None
        url = URL(f"{self.target}{request.raw_path}", encoded=True)
        async with self._session.request(
            request.method, url, headers=headers, data=body, allow_redirects=False, skip_auto_headers=["Content-Type"]
        ) as answer:
            data = await answer.read()
            if strikes:
                await self._strike(request)
            kept = [(name, value) for name, value in answer.headers.items() if name.lower() not in HOP]
            response = web.Response(status=answer.status, body=data)
            response.headers.clear()
            response.headers.extend(kept)
            return response

    async def _strike(self, request: web.Request) -> None:
        """Kill the victim in the middle of its request."""
        os.kill(await asyncio.wrap_future(self._victim), signal.SIGKILL)
        self.struck.set()
        if request.transport is not None:
            request.transport.close()
        raise ConnectionResetError
