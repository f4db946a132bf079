"""An asyncio connection to the API server that a synchronous client knows; credentials are renewed from it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from include.endpoint.resources import Resource

if TYPE_CHECKING:
    from include.endpoint.clients import Clients

LIST_TIMEOUT_S = 30.0
# The server ends a watch after so long; a stalled one is noticed a little later.
WATCH_S = 120
STALL_S = WATCH_S + 30
PAGE = 500


class RefusedError(Exception):
    """The API server answered with an error status."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class GoneError(Exception):
    """The watched version is too old: list again."""


class AsyncConnection:
    """List and watch against one API server.

    :param clients: its Kubernetes configuration is asked for a token before each list and each watch, in a
        thread, so that expiring tokens (EKS: 15 minutes) are never a failure.
    """

    def __init__(self, clients: Clients) -> None:
        from kubernetes_asyncio.client import ApiClient, Configuration

        source = clients.kube.configuration
        self.source = source
        configuration = Configuration(host=source.host)
        for name in ("ssl_ca_cert", "cert_file", "key_file", "verify_ssl", "tls_server_name", "proxy"):
            setattr(configuration, name, getattr(source, name, None))
        configuration.connection_pool_maxsize = 64
        self._api = ApiClient(configuration)
        self._host = str(source.host).rstrip("/")

    async def close(self) -> None:
        """Close every connection."""
        await self._api.close()

    async def _headers(self) -> dict[str, str]:
        auth = (await asyncio.to_thread(self.source.auth_settings)).get("BearerToken", {}).get("value")
        headers = {"Accept": "application/json"}
        return headers | ({"Authorization": str(auth)} if auth else {})

    async def collection(self, resource: Resource, namespace: str) -> tuple[list[dict[str, Any]], str]:
        """Return a collection and its version.

        :raises RefusedError: the server refused.
        """
        items: list[dict[str, Any]] = []
        more = ""
        while True:
            query = [("limit", str(PAGE))] + ([("continue", more)] if more else [])
            answer = await self._get(resource.path(namespace), query, LIST_TIMEOUT_S)
            async with answer:
                body = await answer.read()
                _raise_refusal(answer.status, body)
            page = json.loads(body)
            items += page.get("items") or []
            metadata = page.get("metadata") or {}
            more = metadata.get("continue") or ""
            if not more:
                return items, str(metadata.get("resourceVersion") or "")

    async def watch(
        self, resource: Resource, namespace: str, version: str
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Yield ``(type, object)`` from a version on, until the server ends the watch.

        :raises GoneError: the version is too old.
        :raises RefusedError: the server refused.
        """
        query = [
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", str(WATCH_S)),
        ]
        answer = await self._get(resource.path(namespace), query, STALL_S)
        async with answer:
            if answer.status != 200:
                _raise_refusal(answer.status, await answer.read())
            rest = b""
            async for chunk in answer.content.iter_any():
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    if line.strip():
                        yield _event(json.loads(line))

    async def _get(self, path: str, query: list[tuple[str, str]], seconds: float) -> Any:
        return await self._api.request(
            "GET",
            self._host + path,
            query_params=query,
            headers=await self._headers(),
            _preload_content=False,
            _request_timeout=seconds,
        )


def _event(event: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    kind, item = str(event.get("type")), event.get("object") or {}
    if kind == "ERROR":
        if item.get("code") == 410:
            raise GoneError(item.get("message", ""))
        raise RefusedError(int(item.get("code") or 0), str(item.get("message", "")))
    return kind, item


def _raise_refusal(status: int, body: bytes) -> None:
    if status < 400:
        return
    try:
        message = str(json.loads(body).get("message", ""))
    except (ValueError, AttributeError):
        message = body[:200].decode("utf-8", "replace")
    if status == 410:
        raise GoneError(message)
    raise RefusedError(status, message)
