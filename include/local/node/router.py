"""The intelligent router's container: forwards to the model's pods by prefix, session, or in turn.

``prefixaware`` keeps requests with the same beginning on the same pod, ``session`` those with the same session
header or user, ``kvaware`` is treated as ``prefixaware`` (there is no cache index to ask here), ``roundrobin``
takes the pods in turn. Pods come and go: rendezvous hashing moves only the requests of the pod that went.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import os
from collections.abc import AsyncIterator, Sequence

import aiohttp
from aiohttp import web

from include.local.controller.api import Api
from include.local.controller.informer import Informer
from include.local.controller.resources import ENDPOINTS
from include.local.node.forward import forward

PREFIX_CHARACTERS = 256
PORT = "HYPERPOD_LOCAL_PORT_8000"
STRATEGIES = ("prefixaware", "kvaware", "session", "roundrobin")


def routing_key(strategy: str, headers: dict[str, str], body: bytes) -> str:
    """Return what a request is routed by; empty: in turn. Pure.

    :param headers: names in lower case.
    """
    if strategy == "roundrobin":
        return ""
    try:
        given = json.loads(body or b"{}")
    except ValueError:
        given = {}
    if not isinstance(given, dict):
        given = {}
    if strategy == "session":
        return headers.get("x-session-id", "") or str(given.get("user_id") or given.get("user") or "")
    prompt = given.get("prompt") or json.dumps(given.get("messages") or "")
    return str(prompt)[:PREFIX_CHARACTERS]


def choose(targets: Sequence[str], key: str, turn: int) -> str:
    """Return the target for a key by rendezvous hashing, or the next one in turn. Pure.

    :raises ValueError: when there is no target.
    """
    if not targets:
        raise ValueError("no target")
    if not key:
        return sorted(targets)[turn % len(targets)]
    return max(targets, key=lambda target: hashlib.sha256(f"{key}|{target}".encode()).digest())


class Router:
    """The HTTP face."""

    def __init__(self, strategy: str, service: str) -> None:
        self._strategy = strategy
        self._key = tuple(service.split("/", 1))
        self._turn = itertools.count()
        self._endpoints: Informer | None = None
        self._http: aiohttp.ClientSession | None = None

    def application(self) -> web.Application:
        """Return the application."""
        app = web.Application(client_max_size=64 << 20)
        app.router.add_get("/router/ready", self._ready)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        app.cleanup_ctx.append(self._follow)
        return app

    async def _follow(self, _: web.Application) -> AsyncIterator[None]:
        api = await Api.connect()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        self._endpoints = Informer(api, ENDPOINTS, self._key[0])
        task = asyncio.create_task(self._endpoints.run())
        yield
        task.cancel()
        await self._http.close()
        await api.close()

    def _targets(self) -> list[str]:
        found = self._endpoints.get(self._key[0], self._key[1]) if self._endpoints else None
        return [
            f"{address['ip']}:{subset['ports'][0]['port']}"
            for subset in (found or {}).get("subsets") or ()
            for address in subset.get("addresses") or ()
        ]

    async def _ready(self, _: web.Request) -> web.Response:
        return web.Response(status=200 if self._targets() else 503)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        targets = self._targets()
        if not targets or self._http is None:
            return web.Response(status=503, text="no model pod is ready")
        headers = {name.lower(): value for name, value in request.headers.items()}
        target = choose(targets, routing_key(self._strategy, headers, body), next(self._turn))
        return await forward(self._http, request, f"http://{target}", body)


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m include.local.node.router", description=__doc__)
    parser.add_argument("--strategy", choices=STRATEGIES, default="prefixaware")
    parser.add_argument("--service", required=True, help="namespace/name of the model's Service")
    given = parser.parse_args()
    router = Router(given.strategy, given.service)
    web.run_app(router.application(), host="127.0.0.1", port=int(os.environ[PORT]), print=None, access_log=None)


if __name__ == "__main__":
    main()
