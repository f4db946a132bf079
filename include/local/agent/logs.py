"""The kubelet's ``containerLogs``: tail, since, timestamps, previous, follow, limit."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from include.local.controller.clock import parse, utcnow
from include.local.node.process import ContainerProcess, attempts

FOLLOW_SECONDS = 0.2
Folder = Callable[[str, str], Path | None]


class Logs:
    """Serves the logs of a node's containers.

    :param folder: returns a pod's folder by namespace and name.
    """

    def __init__(self, folder: Folder) -> None:
        self._folder = folder

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """``GET /containerLogs/{namespace}/{pod}/{container}``."""
        info, query = request.match_info, request.query
        process = self._process(info["namespace"], info["pod"], info["container"], _flag(request, "previous"))
        if process is None:
            text = f'container "{info["container"]}" in pod "{info["pod"]}" is waiting to start: no log yet'
            return web.Response(status=400, text=text)
        wanted = Selection.of(query)
        data = await asyncio.to_thread(_read, process.log, 0)
        lines = wanted.pick(data.decode(errors="replace").splitlines())
        if not _flag(request, "follow"):
            body = "".join(lines).encode()
            return web.Response(body=body[: wanted.limit], content_type="text/plain")
        reply = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await reply.prepare(request)
        await reply.write("".join(lines).encode())
        await self._follow(reply, process, len(data), wanted)
        return reply

    async def _follow(
        self, reply: web.StreamResponse, process: ContainerProcess, offset: int, wanted: Selection
    ) -> None:
        while True:
            ended = process.exit() is not None or not process.alive()
            data = await asyncio.to_thread(_read, process.log, offset)
            whole = data[: data.rfind(b"\n") + 1]
            if whole:
                offset += len(whole)
                await reply.write("".join(map(wanted.show, whole.decode(errors="replace").splitlines())).encode())
            if ended:
                return
            await asyncio.sleep(FOLLOW_SECONDS)

    def _process(self, namespace: str, pod: str, container: str, previous: bool) -> ContainerProcess | None:
        folder = self._folder(namespace, pod)
        if folder is None:
            raise web.HTTPNotFound(text=f'pod "{pod}" not found')
        known = [process for process in attempts(folder / "containers" / container) if process.log.exists()]
        if previous:
            known = known[:-1]
        return known[-1] if known else None


class Selection:
    """Which lines, and how they are shown."""

    def __init__(self, tail: int | None, since: dt.datetime | None, limit: int | None, *, timestamps: bool) -> None:
        self.limit = limit
        self._tail = tail
        self._since = since
        self._timestamps = timestamps

    @classmethod
    def of(cls, query: object) -> Selection:
        """Read the query parameters.

        :raises aiohttp.web.HTTPBadRequest: for a number or time that is none.
        """
        get = query.get  # type: ignore[attr-defined]
        try:
            since = parse(get("sinceTime")) if get("sinceTime") else None
            if get("sinceSeconds"):
                since = utcnow() - dt.timedelta(seconds=int(get("sinceSeconds")))
            tail = int(get("tailLines")) if get("tailLines") else None
            limit = int(get("limitBytes")) if get("limitBytes") else None
        except ValueError as error:
            raise web.HTTPBadRequest(text=str(error)) from error
        return cls(tail, since, limit, timestamps=get("timestamps") in ("1", "true", "True"))

    def pick(self, lines: list[str]) -> list[str]:
        """Return the lines that are asked for."""
        if self._since is not None:
            lines = [line for line in lines if parse(line[:26] + "Z") >= self._since]
        if self._tail is not None:
            lines = lines[-self._tail :] if self._tail else []
        return [self.show(line) for line in lines]

    def show(self, line: str) -> str:
        """Return a line of the file (``<time> stdout F <text>``) as it is served."""
        time, _, _, text = (*line.split(" ", 3), "", "", "")[:4]
        return f"{time} {text}\n" if self._timestamps else f"{text}\n"


def _flag(request: web.Request, name: str) -> bool:
    return request.query.get(name) in ("1", "true", "True")


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read()
