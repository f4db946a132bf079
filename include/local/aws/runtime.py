"""``InvokeEndpoint`` and its streaming form, forwarded to the pods that serve the endpoint."""

from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from include.local.aws import ACCOUNT
from include.local.aws.endpoints import Endpoints
from include.local.aws.errors import AwsError
from include.local.aws.eventstream import CONTENT_TYPE, payload_part, stream_error
from include.local.aws.kube import Kube

GROUP = "apis/inference.sagemaker.aws.amazon.com/v1"
KINDS = ("inferenceendpointconfigs", "jumpstartmodels")
REMEMBERED_SECONDS = 1.0
ANSWER_SECONDS = 60.0  # SageMaker's own limits for a model's answer, whole and streamed
STREAM_SECONDS = 480.0


@dataclass
class Target:
    """Where an endpoint's pods listen.

    :param urls: one per ready address, taken in turn.
    """

    urls: list[str]
    found_at: float
    turn: itertools.count[int] = field(default_factory=itertools.count)

    def next(self) -> str:
        """Return the next address."""
        return self.urls[next(self.turn) % len(self.urls)]


class Runtime:
    """The runtime API of every registered endpoint."""

    def __init__(self, endpoints: Endpoints, kube: Kube, region: str) -> None:
        self._endpoints = endpoints
        self._kube = kube
        self._region = region
        self._targets: dict[str, Target] = {}

    async def invoke(
        self, request: web.Request, name: str, body: bytes, session: aiohttp.ClientSession, *, stream: bool
    ) -> web.StreamResponse:
        """Forward one invocation.

        :raises AwsError: ValidationError for an endpoint that cannot serve, ModelError for what the model said.
        """
        target = await self._target(name)
        headers = {key: request.headers[key] for key in ("Content-Type", "Accept") if key in request.headers}
        headers |= {key: value for key, value in request.headers.items() if key.startswith("X-Amzn-SageMaker-")}
        timeout = aiohttp.ClientTimeout(total=STREAM_SECONDS if stream else ANSWER_SECONDS)
        try:
            async with session.post(target.next(), data=body, headers=headers, timeout=timeout) as answer:
                if answer.status >= 400:
                    raise await self._model_error(name, answer)
                return await (_stream(request, answer) if stream else _whole(answer))
        except (aiohttp.ClientError, TimeoutError) as error:
            self._targets.pop(name, None)
            message = f"Received server error (0) from primary: {error!r}"
            raise AwsError("ModelError", message, 424, self._log(name, 500, message)) from error

    async def _model_error(self, name: str, answer: aiohttp.ClientResponse) -> AwsError:
        text = (await answer.read()).decode(errors="replace")
        side = "client" if answer.status < 500 else "server"
        message = f'Received {side} error ({answer.status}) from primary with message "{text}".'
        return AwsError("ModelError", message, 424, self._log(name, answer.status, text))

    def _log(self, name: str, status: int, text: str) -> dict[str, Any]:
        arn = f"arn:aws:logs:{self._region}:{ACCOUNT}:log-group:/aws/sagemaker/Endpoints/{name}"
        return {"OriginalStatusCode": status, "OriginalMessage": text, "LogStreamArn": arn}

    async def _target(self, name: str) -> Target:
        known = self._targets.get(name)
        if known and time.monotonic() - known.found_at < REMEMBERED_SECONDS:
            return known
        if self._endpoints.status(name) not in ("InService", "Updating"):
            self._targets.pop(name, None)
            raise AwsError("ValidationError", f"Endpoint {name} of account {ACCOUNT} not found.")
        urls = await self._addresses(name)
        if not urls:
            raise AwsError("ServiceUnavailable", f"Endpoint {name} has no ready pod.", 503)
        turn = known.turn if known else itertools.count()
        self._targets[name] = Target(urls, time.monotonic(), turn)
        return self._targets[name]

    async def _addresses(self, name: str) -> list[str]:
        for kind in KINDS:
            for item in (await self._kube.get(f"{GROUP}/{kind}"))["items"]:
                if _endpoint_name(item) == name:
                    path = str(item["spec"].get("invocationEndpoint") or "invocations").strip("/")
                    return await self._ready(item["metadata"]["namespace"], item["metadata"]["name"], path)
        return []

    async def _ready(self, namespace: str, name: str, path: str) -> list[str]:
        found = await self._kube.get(f"api/v1/namespaces/{namespace}/endpoints")
        return [
            f"http://{address['ip']}:{subset['ports'][0]['port']}/{path}"
            for item in found["items"]
            if item["metadata"]["name"] == f"{name}-routing-service"
            for subset in item.get("subsets") or ()
            for address in subset.get("addresses") or ()
        ]


def _endpoint_name(item: dict[str, Any]) -> str:
    spec = item["spec"]
    return str(spec.get("endpointName") or (spec.get("sageMakerEndpoint") or {}).get("name") or "")


async def _whole(answer: aiohttp.ClientResponse) -> web.Response:
    return web.Response(
        body=await answer.read(), content_type=answer.content_type,
        headers={"x-Amzn-Invoked-Production-Variant": "AllTraffic"},
    )  # fmt: skip


async def _stream(request: web.Request, answer: aiohttp.ClientResponse) -> web.StreamResponse:
    reply = web.StreamResponse(
        headers={
            "X-Amzn-SageMaker-Content-Type": answer.content_type,
            "x-Amzn-Invoked-Production-Variant": "AllTraffic",
        }
    )
    reply.content_type = CONTENT_TYPE
    await reply.prepare(request)
    try:
        async for chunk in answer.content.iter_any():
            await reply.write(payload_part(chunk))
    except (aiohttp.ClientError, TimeoutError) as error:
        await reply.write(stream_error("ModelInvocationTimeExceeded", f"the model broke the stream: {error!r}"))
    await reply.write_eof()
    return reply
