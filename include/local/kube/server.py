"""The HTTP server: authentication, authorization, injected faults, and everything that is not a resource."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from include.local.kube import admin, discovery, openapi, rbac
from include.local.kube.cluster import Cluster
from include.local.kube.collector import Collector
from include.local.kube.errors import ApiError, forbidden, no_such_path, unauthorized
from include.local.kube.faults import Faults, Rule
from include.local.kube.negotiation import answer, check_accept, failure, read_object
from include.local.kube.paths import Target, flag, parse
from include.local.kube.store import HISTORY
from include.local.kube.users import MASTERS, User, Users
from include.local.kube.verbs import Verbs
from include.local.kube.watching import error_line

log = logging.getLogger(__name__)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_OPEN = frozenset({"/healthz", "/livez", "/readyz", "/version"})
_REVIEWS = {
    "selfsubjectaccessreviews": "authorization.k8s.io",
    "selfsubjectrulesreviews": "authorization.k8s.io",
    "selfsubjectreviews": "authentication.k8s.io",
}
_SHUTDOWN_SECONDS = 0.5


class Server:
    """One API server over one state folder.

    :param folder: state; keeps objects, tokens and certificates.
    :param tokens: token file, ``<folder>/tokens.csv`` when not given.
    :param anonymous_admin: requests without a token are the administrator's. Only for plain HTTP on loopback, over
        which kubectl never sends a token.
    :param history: events kept per resource.
    """

    def __init__(
        self, folder: Path, *, tokens: Path | None = None, anonymous_admin: bool = False, history: int = HISTORY
    ) -> None:
        self.cluster = Cluster(folder, history)
        self.users = Users(tokens or folder / "tokens.csv")
        self.faults = Faults()
        self.rules = rbac.Rules(self.cluster.store)
        self._anonymous_admin = anonymous_admin
        self._verbs: Verbs | None = None

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[self._answer_errors], client_max_size=0)
        app.cleanup_ctx.append(self._lifetime)
        app.router.add_route("*", "/{path:.*}", self._dispatch)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        self.cluster.populate()
        collector = Collector(self.cluster)
        collector.start()
        task = asyncio.create_task(collector.run())
        timeout = aiohttp.ClientTimeout(total=None, connect=10)
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector, auto_decompress=False) as session:
            self._verbs = Verbs(self.cluster, session)
            yield
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        self.cluster.close()

    @web.middleware
    async def _answer_errors(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except ApiError as error:
            return failure(error)
        except (asyncio.CancelledError, ConnectionError, web.HTTPException):
            raise
        except Exception as error:
            log.exception("%s %s", request.method, request.path)
            return failure(ApiError(500, "InternalError", f"Internal error occurred: {error}"))

    async def _dispatch(self, request: web.Request) -> web.StreamResponse:
        if request.path in _OPEN or request.path.startswith(("/livez/", "/readyz/")):
            return answer(discovery.VERSION) if request.path == "/version" else web.Response(text="ok")
        user = self._authenticate(request)
        if request.path.startswith("/_local/"):
            if not user.is_master:
                raise forbidden("", "_local", "", f'User "{user.name}" is not an administrator')
            return await admin.handle(self, request)
        target = parse(request.rel_url.raw_path)
        watch = flag(request.query, "watch")
        wanted = (
            target.attributes(request.method, watch=watch)
            if target
            else rbac.Attributes(verb=request.method.lower(), path=request.path)
        )
        rule = self.faults.take(_facts(request, user, wanted))
        if rule is not None:
            return await self._misbehave(rule, request, target, user, wanted)
        return await self._serve(request, target, user, wanted)

    def _authenticate(self, request: web.Request) -> User:
        header = request.headers.get("Authorization", "")
        if not header and self._anonymous_admin:
            if "Origin" in request.headers or request.url.host not in ("127.0.0.1", "localhost", "::1"):
                raise unauthorized()  # a web page of some other site, not a tool of the machine's owner
            return User("admin", (MASTERS,))
        return self.users.authenticate(header)

    async def _serve(
        self, request: web.Request, target: Target | None, user: User, wanted: rbac.Attributes
    ) -> web.StreamResponse:
        self.rules.require(user, wanted)
        check_accept(request)
        if target is None:
            return await self._document(request)
        if target.plural in _REVIEWS and target.group == _REVIEWS[target.plural]:
            return await self._review(request, target.plural, user)
        if self._verbs is None:
            raise ApiError(503, "ServiceUnavailable", "the server is starting")
        return await self._verbs.handle(request, target)

    async def _review(self, request: web.Request, plural: str, user: User) -> web.Response:
        if request.method != "POST":
            raise no_such_path()
        body: Any = await read_object(request)
        if not isinstance(body, dict):
            raise ApiError(400, "BadRequest", "the body of a review must be an object")
        if plural == "selfsubjectaccessreviews":
            return answer(rbac.review_access(self.rules, user, body), 201)
        if plural == "selfsubjectrulesreviews":
            return answer(rbac.review_rules(self.rules, user, body), 201)
        return answer(rbac.review_self(user, body), 201)

    async def _document(self, request: web.Request) -> web.Response:
        registry, parts = self.cluster.registry, request.path.strip("/").split("/")
        found: Any = None
        if parts[0] in ("api", "apis") and len(parts) == 1:
            if "apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList" in request.headers.get("Accept", ""):
                document = discovery.aggregated(registry, core=parts[0] == "api")
                response = answer(document)
                response.headers["Content-Type"] = discovery.AGGREGATED
                return response
            found = discovery.api_versions(request.host) if parts[0] == "api" else discovery.group_list(registry)
        elif parts[0] == "api" and len(parts) == 2:
            found = discovery.resource_list(registry, "", parts[1])
        elif parts[0] == "apis" and len(parts) == 2:
            found = discovery.group(registry, parts[1])
        elif parts[0] == "apis" and len(parts) == 3:
            found = discovery.resource_list(registry, parts[1], parts[2])
        elif parts[0] == "openapi":
            found = openapi.document(registry, parts[1:])
        if found is None:
            raise no_such_path()
        return answer(found)

    async def _misbehave(
        self, rule: Rule, request: web.Request, target: Target | None, user: User, wanted: rbac.Attributes
    ) -> web.StreamResponse:
        if rule.after:
            if wanted.verb == "watch":
                raise ApiError(400, "BadRequest", "a fault after the request is not possible for a watch")
            await self._serve_quietly(request, target, user, wanted)
        if rule.action in ("hang", "delay"):
            await asyncio.sleep(rule.seconds)
        if rule.action in ("hang", "reset"):
            if request.transport is not None:
                request.transport.abort()
            raise ConnectionResetError("injected")
        if rule.action == "delay" and not rule.after:
            return await self._serve(request, target, user, wanted)
        if rule.action == "expire" and wanted.verb == "watch":
            return web.Response(body=error_line(rule.error()), content_type="application/json")
        raise rule.error()

    async def _serve_quietly(
        self, request: web.Request, target: Target | None, user: User, wanted: rbac.Attributes
    ) -> None:
        """Carry out a request whose answer will be lost, whatever it is."""
        with contextlib.suppress(ApiError):
            await self._serve(request, target, user, wanted)


def _facts(request: web.Request, user: User, wanted: rbac.Attributes) -> dict[str, str]:
    return {
        "verb": wanted.verb,
        "group": wanted.group,
        "resource": wanted.resource,
        "subresource": wanted.subresource,
        "namespace": wanted.namespace,
        "name": wanted.name,
        "user": user.name,
        "path": request.path,
    }


async def serve(server: Server, host: str, port: int, context: ssl.SSLContext | None) -> None:
    """Serve until cancelled."""
    runner = web.AppRunner(
        server.application(), access_log=None, shutdown_timeout=_SHUTDOWN_SECONDS, handler_cancellation=True
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, host, port, ssl_context=context, backlog=1024).start()
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
