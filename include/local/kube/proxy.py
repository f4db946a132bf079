"""Requests that the API server passes on: logs to the kubelet, proxy requests to pods and services."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import aiohttp
from aiohttp import web
from yarl import URL

from include.local.kube.cluster import Cluster
from include.local.kube.errors import ApiError, bad_request, not_found

Object = dict[str, Any]
PORT_ANNOTATION = "hyperpod-local/port."
_HOP_HEADERS = frozenset(
    {"connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailers",
     "transfer-encoding", "upgrade", "host", "content-length", "authorization"}
)  # fmt: skip
_LOG_OPTIONS = ("container", "follow", "previous", "sinceSeconds", "sinceTime", "timestamps", "tailLines", "limitBytes")


def _unavailable(message: str) -> ApiError:
    return ApiError(503, "ServiceUnavailable", message)


def kubelet_url(cluster: Cluster, node_name: str) -> str:
    """Return the base URL of a node's kubelet.

    :raises ApiError: 404 without such a node, 503 when the node does not say where its kubelet is.
    """
    record = cluster.store.get("/nodes", "", node_name)
    if record is None:
        raise not_found(node_name, "nodes")
    status = record.object.get("status", {})
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port")
    addresses = {item["type"]: item["address"] for item in status.get("addresses", ())}
    if not port or "InternalIP" not in addresses:
        raise _unavailable(f'node "{node_name}" has no InternalIP or no kubeletEndpoint')
    return f"http://{addresses['InternalIP']}:{port}"


def log_url(cluster: Cluster, pod: Object, query: Mapping[str, str]) -> URL:
    """Return where the kubelet serves a container's log.

    :raises ApiError: 400 for a container that the pod does not have, or a pod without a node.
    """
    meta, spec = pod["metadata"], pod["spec"]
    names = [item["name"] for item in [*spec["containers"], *spec.get("initContainers", ())]]
    container = query.get("container") or (names[0] if len(names) == 1 else "")
    if not container:
        raise bad_request(
            f"a container name must be specified for pod {meta['name']}, choose one of: [{' '.join(names)}]"
        )
    if container not in names:
        raise bad_request(f"container {container} is not valid for pod {meta['name']}")
    if not spec.get("nodeName"):
        raise bad_request(f'container "{container}" in pod "{meta["name"]}" is waiting to start: no node assigned')
    base = kubelet_url(cluster, spec["nodeName"])
    path = "/".join(quote(part, safe="") for part in (meta["namespace"], meta["name"], container))
    options = {key: query[key] for key in _LOG_OPTIONS if key in query and key != "container"}
    return URL(f"{base}/containerLogs/{path}").with_query(options)


def split_name(name: str) -> tuple[str, str, str]:
    """Split ``[scheme:]name[:port]`` of a proxy path into scheme, name and port."""
    parts = name.split(":")
    if len(parts) == 1:
        return "http", parts[0], ""
    if len(parts) == 2:
        return "http", parts[0], parts[1]
    return parts[0] or "http", parts[1], parts[2]


def pod_base(pod: Object, port: str) -> str:
    """Return ``host:port`` of a pod's port, as mapped by the node.

    :raises ApiError: 503 for a pod that has no address yet.
    """
    address = pod.get("status", {}).get("podIP")
    if not address:
        raise _unavailable(f'pod "{pod["metadata"]["name"]}" has no address')
    ports = [item for container in pod["spec"]["containers"] for item in container.get("ports", ())]
    if not port:
        port = str(ports[0]["containerPort"]) if ports else "80"
    elif not port.isdigit():
        named = [item["containerPort"] for item in ports if item.get("name") == port]
        if not named:
            raise _unavailable(f'pod "{pod["metadata"]["name"]}" has no port named "{port}"')
        port = str(named[0])
    annotations = pod["metadata"].get("annotations", {})
    return f"{address}:{annotations.get(PORT_ANNOTATION + port, port)}"


def service_base(cluster: Cluster, service: Object, port: str) -> str:
    """Return ``host:port`` of one ready endpoint of a service.

    :raises ApiError: 503 when it has no ready endpoint or no such port.
    """
    meta = service["metadata"]
    ports = service["spec"].get("ports", ())
    chosen = [item for item in ports if not port or port in (item.get("name"), str(item["port"]))]
    record = cluster.store.get("/endpoints", meta["namespace"], meta["name"])
    subsets = record.object.get("subsets", ()) if record else ()
    for item in chosen:
        for subset in subsets:
            for candidate in subset.get("ports", ()):
                if subset.get("addresses") and candidate.get("name", "") == item.get("name", ""):
                    return f"{subset['addresses'][0]['ip']}:{candidate['port']}"
    raise _unavailable(f'no endpoints available for service "{meta["name"]}"')


async def forward(request: web.Request, session: aiohttp.ClientSession, url: URL) -> web.StreamResponse:
    """Pass a request on and stream the answer back as it arrives.

    :raises ApiError: 503 when the other side cannot be reached.
    """
    headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP_HEADERS}
    body = await request.read()
    try:
        upstream = await session.request(request.method, url, headers=headers, data=body or None, allow_redirects=False)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise _unavailable(f"error trying to reach {url.host}:{url.port}: {error}") from None
    async with upstream:
        kept = {key: value for key, value in upstream.headers.items() if key.lower() not in _HOP_HEADERS}
        response = web.StreamResponse(status=upstream.status, reason=upstream.reason, headers=kept)
        await response.prepare(request)
        try:
            async for chunk in upstream.content.iter_any():
                await response.write(chunk)
        except (aiohttp.ClientError, OSError):
            # The answer has begun: only breaking the connection still tells the client that it is incomplete.
            if request.transport is not None:
                request.transport.abort()
            raise
        await response.write_eof()
        return response
