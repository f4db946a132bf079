"""The gateway's front: signature, scripted faults, then our own service or moto."""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from pydantic import TypeAdapter, ValidationError

from include.local.aws.cluster import Cluster
from include.local.aws.endpoints import Endpoints
from include.local.aws.errors import AwsError, answer, error_answer
from include.local.aws.faults import ApiFault, ApiFaultKind, FaultRules
from include.local.aws.fsx import FileSystems
from include.local.aws.fsxtasks import Tasks
from include.local.aws.hub import Hub
from include.local.aws.kube import Kube
from include.local.aws.runtime import Runtime
from include.local.aws.signature import verify
from include.local.aws.store import Store
from include.local.aws.wire import Call, credential_of, parse
from include.local.s3 import REGION

log = logging.getLogger("aws")
MOTO_SECONDS = 30.0
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "content-length", "content-encoding", "date", "server"}


class CutError(Exception):
    """The connection is to be cut without an answer."""


@dataclass
class Gateway:
    """All services at one address.

    :param state: folder for what must survive a kill.
    :param seconds: how long a lifecycle stays in each passing state (Creating, PENDING …).
    """

    state: Path
    moto: str
    kubeconfig: Path
    fsx_root: Path
    seconds: float
    _own: dict[tuple[str, str], Any] = field(default_factory=dict)
    _session: aiohttp.ClientSession | None = None

    def __post_init__(self) -> None:
        kube = Kube(self.kubeconfig)
        self.faults = FaultRules(Store(self.state / "faults.json"))
        self.endpoints = Endpoints(Store(self.state / "sagemaker.json"), self.faults, REGION, self.seconds)
        systems = FileSystems(Store(self.state / "fsx.json"), self.faults, self.fsx_root, REGION, self.seconds)
        self._tasks = Tasks(systems, self.faults)
        self._runtime = Runtime(self.endpoints, kube, REGION)
        cluster = Cluster(kube, REGION)
        sagemaker = self.endpoints.handlers() | cluster.sagemaker() | Hub(REGION).handlers()
        fsx = {
            "CreateFileSystem": systems.create_file_system,
            "DescribeFileSystems": systems.describe_file_systems,
            "DeleteFileSystem": systems.delete_file_system,
            "CreateDataRepositoryAssociation": self._tasks.create_association,
            "DescribeDataRepositoryAssociations": systems.describe_associations,
            "DeleteDataRepositoryAssociation": systems.delete_association,
            "CreateDataRepositoryTask": self._tasks.create,
            "DescribeDataRepositoryTasks": self._tasks.describe,
            "CancelDataRepositoryTask": self._tasks.cancel,
        }
        for service, handlers in (("sagemaker", sagemaker), ("fsx", fsx), ("eks", cluster.eks())):
            self._own |= {(service, name): handler for name, handler in handlers.items()}

    def application(self) -> web.Application:
        """Return the HTTP application."""
        app = web.Application(client_max_size=256 << 20)
        app.add_routes(
            [
                web.get("/_local/health", self._health),
                web.get("/_local/faults", self._list_faults),
                web.put("/_local/faults", self._put_faults),
                web.post("/_local/faults", self._add_fault),
                web.delete("/_local/faults", self._clear_faults),
                web.route("*", "/{path:.*}", self._serve),
            ]
        )
        app.cleanup_ctx.append(self._lifetime)
        return app

    async def _lifetime(self, _: web.Application) -> AsyncIterator[None]:
        # moto closes idle connections at will; auto_decompress: bodies pass through as they are.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        self._session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
        self._tasks.resume()
        yield
        await self._tasks.close()
        await self._session.close()

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _list_faults(self, _: web.Request) -> web.Response:
        return web.json_response(self.faults.all())

    async def _put_faults(self, request: web.Request) -> web.Response:
        try:
            rules = TypeAdapter(list[ApiFault]).validate_json(await request.read())
        except ValidationError as error:
            return web.Response(text=str(error), status=400)
        self.faults.replace(rules)
        return web.json_response(self.faults.all())

    async def _add_fault(self, request: web.Request) -> web.Response:
        try:
            rule = ApiFault.model_validate_json(await request.read())
        except ValidationError as error:
            return web.Response(text=str(error), status=400)
        self.faults.add(rule)
        return web.json_response(rule.model_dump(mode="json"))

    async def _clear_faults(self, _: web.Request) -> web.Response:
        self.faults.replace([])
        return web.json_response([])

    async def _serve(self, request: web.Request) -> web.StreamResponse:
        protocol = "json"
        try:
            body = await request.read()
            headers = {name.lower(): value for name, value in request.headers.items()}
            scope = credential_of(headers.get("authorization", ""), dict(request.query))
            call = parse(request.method, request.path, dict(request.query), headers, body, scope)
            protocol = call.protocol
            path, _, query = request.raw_path.partition("?")
            verify(request.method, path, query, headers, body, scope)
            return await self._answer(call, request, body)
        except AwsError as error:
            return error_answer(protocol, error)
        except CutError:
            if request.transport is not None:
                request.transport.abort()
            return web.Response(status=500)

    async def _answer(self, call: Call, request: web.Request, body: bytes) -> web.StreamResponse:
        rule = self.faults.take(call.service, call.operation)
        if rule is not None:
            await self._before(rule)
        reply = await self._dispatch(call, request, body)
        if rule is not None and rule.kind == ApiFaultKind.LOST_ANSWER:
            raise CutError
        return reply

    async def _before(self, rule: ApiFault) -> None:
        log.info("fault %s %s", rule.kind, rule.id)
        refusal = rule.refusal()
        if refusal is not None:
            raise refusal
        if rule.kind in (ApiFaultKind.SLOW, ApiFaultKind.TIMEOUT):
            await asyncio.sleep(rule.seconds)
        if rule.kind in (ApiFaultKind.RESET, ApiFaultKind.TIMEOUT):
            raise CutError

    async def _dispatch(self, call: Call, request: web.Request, body: bytes) -> web.StreamResponse:
        if call.service == "sagemaker-runtime":
            assert self._session is not None  # noqa: S101 (set while the application runs)
            stream = call.operation.endswith("Stream")
            name = call.parameters["EndpointName"]
            return await self._runtime.invoke(request, name, body, self._session, stream=stream)
        handler = self._own.get((call.service, call.operation))
        if handler is not None:
            found = handler(call.parameters)
            return answer(call.protocol, await found if inspect.isawaitable(found) else found)
        if call.service == "fsx":
            raise AwsError("UnsupportedOperation", f"fsx {call.operation} is not imitated by the local HyperPod")
        return await self._to_moto(request, body)

    async def _to_moto(self, request: web.Request, body: bytes) -> web.Response:
        """Pass a request on as it is; waits for a moto that is still starting."""
        assert self._session is not None  # noqa: S101 (set while the application runs)
        headers = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        deadline = time.monotonic() + MOTO_SECONDS
        while True:
            try:
                async with self._session.request(
                    request.method, self.moto + request.raw_path, data=body, headers=headers
                ) as found:
                    kept = {name: text for name, text in found.headers.items() if name.lower() not in HOP_BY_HOP}
                    return web.Response(body=await found.read(), status=found.status, headers=kept)
            except aiohttp.ClientConnectorError as error:
                if time.monotonic() > deadline:
                    raise AwsError("ServiceUnavailable", f"moto does not answer: {error}", 503) from error
                await asyncio.sleep(0.1)
            except aiohttp.ClientError as error:
                raise AwsError("InternalFailure", f"moto: {error!r}", 500) from error
