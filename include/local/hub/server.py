"""The hub's HTTP interface: model information, trees, and files with redirects to signed addresses."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from typing import Any

from aiohttp import web

from include.local.hub.faults import HubFault, HubFaultKind, HubFaults
from include.local.hub.repository import HubFile, Repository

PIECE = 1 << 18


class HubServer:
    """Serves repositories; runs in a thread of its own.

    Not imitated: Xet, data sets and spaces, writing, search, quotas per account.

    :param log: ``(method, path, had a token)`` of every request.
    :param sent: bytes of files that were sent, by name.
    """

    def __init__(self, repositories: Iterable[Repository], faults: HubFaults | None = None) -> None:
        self.repositories = {repository.name: repository for repository in repositories}
        self.faults = faults or HubFaults()
        self.log: list[tuple[str, str, bool]] = []
        self.sent: Counter[str] = Counter()
        self.url = ""
        self._signed: dict[str, HubFile] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    def __enter__(self) -> HubServer:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        if self._runner is not None:
            asyncio.run_coroutine_threadsafe(self._runner.cleanup(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _start(self, port: int = 0) -> None:
        app = web.Application(middlewares=[self._fail])
        model = "/api/models/{owner}/{name}"
        app.add_routes(
            [
                web.get(model, self._model),
                web.get(f"{model}/auth-check", self._auth_check),
                web.get(f"{model}/revision/{{revision}}", self._model),
                web.get(f"{model}/tree/{{revision}}", self._tree),
                web.get(f"{model}/tree/{{revision}}/{{path:.+}}", self._tree),
                web.post(f"{model}/paths-info/{{revision}}", self._paths),
                web.get("/{owner}/{name}/resolve/{revision}/{path:.+}", self._resolve),
                web.get("/signed/{ticket}", self._large),
            ]
        )
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    @web.middleware
    async def _fail(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.log.append((request.method, request.path, "Authorization" in request.headers))
        fault = self.faults.take(request.path, HubFaultKind.STATUS)
        if fault is not None:
            again = {"Retry-After": "0"} if fault.status == 429 else {}
            return web.Response(status=fault.status, headers=again, text="scripted")
        answer: web.StreamResponse = await handler(request)
        return answer

    def _repository(self, request: web.Request, *, content: bool = False) -> Repository:
        name = f"{request.match_info['owner']}/{request.match_info['name']}"
        repository = self.repositories.get(name)
        if repository is None:
            raise _refusal(web.HTTPNotFound, "RepoNotFound", "Repository not found")
        if content and repository.tokens:
            token = request.headers.get("Authorization", "").removeprefix("Bearer ")
            if token not in repository.tokens:
                kind = web.HTTPForbidden if token else web.HTTPUnauthorized
                raise _refusal(kind, "GatedRepo", f"Access to model {name} is restricted.")
        found = repository.at(request.match_info.get("revision", "main"))
        if found is None:
            raise _refusal(web.HTTPNotFound, "RevisionNotFound", "Invalid rev id")
        return found

    async def _model(self, request: web.Request) -> web.Response:
        return web.json_response(self._repository(request).information())

    async def _auth_check(self, request: web.Request) -> web.Response:
        self._repository(request, content=True)
        return web.json_response({})

    async def _tree(self, request: web.Request) -> web.Response:
        files = self._repository(request).files.values()
        below = request.match_info.get("path", "")
        found = [file.tree_entry() for file in files if file.name.startswith(f"{below}/" if below else "")]
        return web.json_response(found)

    async def _paths(self, request: web.Request) -> web.Response:
        files = self._repository(request).files
        wanted = (await request.post()).getall("paths")
        return web.json_response([files[str(path)].tree_entry() for path in wanted if path in files])

    async def _resolve(self, request: web.Request) -> web.StreamResponse:
        repository = self._repository(request, content=True)
        file = repository.files.get(request.match_info["path"])
        if file is None:
            raise _refusal(web.HTTPNotFound, "EntryNotFound", "Entry not found")
        known = {"X-Repo-Commit": repository.commit}
        if not file.lfs:
            return await self._send(request, file, {**known, "ETag": f'"{file.etag}"'})
        ticket = secrets.token_hex(16)
        self._signed[ticket] = file
        return web.Response(
            status=302,
            headers={
                **known,
                "Location": f"{self.url.replace('127.0.0.1', 'localhost')}/signed/{ticket}",
                "X-Linked-Etag": f'"{file.sha256}"',
                "X-Linked-Size": str(file.size),
            },
        )

    async def _large(self, request: web.Request) -> web.StreamResponse:
        file = self._signed.get(request.match_info["ticket"])
        # Like S3, which refuses two ways to authenticate at once.
        if "Authorization" in request.headers:
            raise web.HTTPBadRequest(text="Only one auth mechanism allowed")
        if file is None or self.faults.take(file.name, HubFaultKind.EXPIRED):
            raise web.HTTPForbidden(text="Request has expired")
        return await self._send(request, file, {"ETag": f'"{file.sha256}"'})

    async def _send(self, request: web.Request, file: HubFile, headers: dict[str, str]) -> web.StreamResponse:
        wanted = request.http_range
        begin, end = wanted.start or 0, min(wanted.stop or file.size, file.size)
        partial = wanted.start is not None
        if partial:
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{file.size}"
        headers |= {"Accept-Ranges": "bytes", "Content-Length": str(end - begin)}
        answer = web.StreamResponse(status=206 if partial else 200, headers=headers)
        kinds = (HubFaultKind.CUT, HubFaultKind.CORRUPT, HubFaultKind.EMPTY)
        fault = self.faults.take(file.name, *kinds) if request.method == "GET" else None
        if fault is not None and fault.kind is HubFaultKind.EMPTY:
            return web.Response(status=answer.status, headers={**headers, "Content-Length": "0"})
        await answer.prepare(request)
        if request.method == "GET":
            await self._write(request, answer, file, begin, end, fault)
        return answer

    async def _write(
        self, request: web.Request, answer: web.StreamResponse, file: HubFile, begin: int, end: int,
        fault: HubFault | None,
    ) -> None:  # fmt: skip
        cut = begin + fault.after if fault is not None and fault.kind is HubFaultKind.CUT else None
        with file.path.open("rb") as source:
            source.seek(begin)
            while begin < end:
                data = source.read(min(PIECE, end - begin, PIECE if cut is None else max(cut - begin, 0)))
                if not data:
                    if request.transport is not None:
                        request.transport.close()
                    return
                if fault is not None and fault.kind is HubFaultKind.CORRUPT:
                    data, fault = bytes([data[0] ^ 1]) + data[1:], None
                await answer.write(data)
                self.sent[file.name] += len(data)
                begin += len(data)


def _refusal(kind: type[web.HTTPException], code: str, text: str) -> web.HTTPException:
    return kind(text=text, headers={"X-Error-Code": code, "X-Error-Message": text})
