"""A dictionary view of the Kubernetes API over ``kubernetes_asyncio``: any resource, no generated models."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import aiohttp

from include.local.controller.resources import Object, Resource

if TYPE_CHECKING:
    from kubernetes_asyncio.client import ApiClient

REQUEST_SECONDS = 20
MERGE_PATCH = "application/merge-patch+json"


class ApiError(Exception):
    """The API refused, or could not be reached (``status`` 0)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status = status
        self.reason = reason
        self.message = message


class Api:
    """One connection pool to one API server."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> Api:
        """Open the API that ``KUBECONFIG`` names.

        :raises kubernetes_asyncio.config.ConfigException: when there is no usable kubeconfig.
        """
        from kubernetes_asyncio import client, config

        configuration = client.Configuration()
        configuration.connection_pool_maxsize = 0
        await config.load_kube_config(client_configuration=configuration)
        return cls(client.ApiClient(configuration))

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _send(
        self, method: str, path: str, query: dict[str, Any] | None, body: Any, content_type: str, timeout: Any
    ) -> aiohttp.ClientResponse:
        try:
            response = await self._client.call_api(
                path,
                method,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json", "Content-Type": content_type},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _request_timeout=timeout,
            )
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error!r}") from error
        if response.status >= 300:
            await _raise(response)
        return response  # type: ignore[no-any-return]

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: dict[str, Any] | None = None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> Object:
        """Send one request and return the JSON answer.

        :raises ApiError: on any status >= 300 and when the server cannot be reached.
        """
        response = await self._send(method, path, query, body, content_type, REQUEST_SECONDS)
        try:
            answer: Object = json.loads(await response.read() or b"{}")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"{method} {path}: {error!r}") from error
        return answer

    async def get(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """Return an object, ``None`` when there is none."""
        try:
            return await self.request("GET", resource.path(namespace, name))
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    async def list(self, resource: Resource, namespace: str = "", *, selector: str = "") -> Object:
        """Return the list object of a collection (all namespaces when ``namespace`` is empty)."""
        query = {"labelSelector": selector} if selector else {}
        return await self.request("GET", resource.path(namespace), query=query)

    async def create(self, resource: Resource, item: Object) -> Object:
        """Create an object; fills apiVersion and kind."""
        body = {"apiVersion": resource.api_version, "kind": resource.kind} | item
        return await self.request("POST", resource.path(item["metadata"].get("namespace", ""), ""), body=body)

    async def patch(
        self, resource: Resource, namespace: str, name: str, change: Object, *, subresource: str = ""
    ) -> Object:
        """Merge-patch an object or one of its subresources."""
        path = resource.path(namespace, name, subresource)
        return await self.request("PATCH", path, body=change, content_type=MERGE_PATCH)

    async def delete(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        *,
        uid: str | None = None,
        grace_seconds: int | None = None,
    ) -> bool:
        """Delete an object in the background; false when it is already gone or has another UID."""
        body: Object = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        if uid is not None:
            body["preconditions"] = {"uid": uid}
        if grace_seconds is not None:
            body["gracePeriodSeconds"] = grace_seconds
        try:
            await self.request("DELETE", resource.path(namespace, name), body=body)
        except ApiError as error:
            if error.status in (404, 409):
                return False
            raise
        return True

    async def watch(self, resource: Resource, namespace: str, version: str) -> AsyncIterator[Object]:
        """Yield watch events after ``version`` until the server ends the stream.

        :raises ApiError: 410 when the version is too old; 0 when the connection is lost.
        """
        query = {
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": 240,
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=REQUEST_SECONDS, sock_read=300)
        response = await self._send("GET", resource.path(namespace), query, None, "application/json", timeout)
        try:
            async for line in response.content:
                event: Object = json.loads(line)
                if event["type"] == "ERROR":
                    raise _error_of(event["object"])
                yield event
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise ApiError(0, "Unreachable", f"watch {resource.plural}: {error!r}") from error
        finally:
            response.close()


def _error_of(status: Object) -> ApiError:
    return ApiError(status.get("code", 500), status.get("reason", ""), status.get("message", ""))


async def _raise(response: aiohttp.ClientResponse) -> None:
    try:
        text = (await response.read()).decode(errors="replace")
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise ApiError(0, "Unreachable", repr(error)) from error
    try:
        status = json.loads(text)
        reason, message = status.get("reason", ""), status.get("message", text)
    except (ValueError, AttributeError):
        reason, message = response.reason or "", text
    raise ApiError(response.status, reason, message)
