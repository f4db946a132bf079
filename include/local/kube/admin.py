"""Knobs for tests below ``/_local/``; a real API server has nothing like them.

===========================  ==========================================================
``GET|PUT|POST|DELETE /_local/faults``  list, replace, add, clear faults (see ``faults.py``)
``POST /_local/compact``     forget all history: older watches and lists get 410
``POST /_local/cut-watches`` end every open watch
``POST /_local/users``       ``{"name", "groups"}`` → a new user's token
``GET /_local/state``        revision, number of objects
===========================  ==========================================================
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from include.local.kube.errors import bad_request, no_such_path
from include.local.kube.negotiation import answer, read_object

if TYPE_CHECKING:
    from include.local.kube.server import Server


async def handle(server: Server, request: web.Request) -> web.Response:
    """Answer an administrator's request.

    :raises ApiError: 404 for any other path.
    """
    knob, store = request.path.removeprefix("/_local/"), server.cluster.store
    if knob == "faults":
        return await _faults(server, request)
    if knob == "state" and request.method == "GET":
        count = sum(1 for _ in store.all_records())
        return answer({"revision": store.revision, "objects": count})
    if request.method != "POST":
        raise no_such_path()
    if knob == "compact":
        return answer({"compacted": store.compact()})
    if knob == "cut-watches":
        return answer({"cut": store.cut_watches()})
    if knob == "users":
        body = await read_object(request)
        if not isinstance(body, dict) or not isinstance(body.get("name"), str):
            raise bad_request("a user has a name and, optionally, groups")
        token = server.users.add(body["name"], tuple(body.get("groups", ())))
        return answer({"token": token}, 201)
    raise no_such_path()


async def _faults(server: Server, request: web.Request) -> web.Response:
    if request.method == "PUT":
        server.faults.replace(await read_object(request))
    elif request.method == "POST":
        server.faults.add(await read_object(request))
    elif request.method == "DELETE":
        server.faults.replace([])
    elif request.method != "GET":
        raise no_such_path()
    return answer({"faults": server.faults.listed()})
