"""Logs and proxies: options passed on, ports mapped, streams not held back."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
import requests
from aiohttp import web

from tests.include.local.kube.api import CORE, MERGE, Api, free_port, pod

PODS = f"{CORE}/pods"


class Upstream:
    """A kubelet and a pod's server in one: says what it was asked, and streams on demand."""

    def __init__(self) -> None:
        self.port = free_port()
        self.loop = asyncio.new_event_loop()
        self.go_on = threading.Event()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(10)

    async def _start(self) -> None:
        app = web.Application()
        app.router.add_route("*", "/stream", self._stream)
        app.router.add_route("*", "/broken", self._broken)
        app.router.add_route("*", "/{path:.*}", self._echo)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()

    async def _echo(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        credentials = "Authorization" in request.headers
        facts = {"method": request.method, "path": request.path, "query": dict(request.query), "body": body}
        return web.json_response(facts | {"credentials": credentials}, status=418, headers={"X-Upstream": "yes"})

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: 1\n\n")
        await asyncio.to_thread(self.go_on.wait, 20)
        await response.write(b"data: 2\n\n")
        return response

    async def _broken(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Length": "100"})
        await response.prepare(request)
        await response.write(b"half")
        assert request.transport is not None
        request.transport.close()
        return response


@pytest.fixture(scope="module")
def upstream(api: Api) -> Iterator[Upstream]:
    server = Upstream()
    status = {
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": server.port}},
    }
    api.ok("POST", "/api/v1/nodes", {"metadata": {"name": "proxied"}, "status": status})
    body = pod("web", nodeName="proxied")
    body["metadata"]["annotations"] = {"hyperpod-local/port.8000": str(server.port)}
    api.ok("POST", PODS, body)
    api.ok("PATCH", f"{PODS}/web/status", {"status": {"podIP": "127.0.0.1", "phase": "Running"}}, kind=MERGE)
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8000}]}}
    api.ok("POST", f"{CORE}/services", service)
    yield server
    server.loop.call_soon_threadsafe(server.loop.stop)


def test_log_options_reach_the_kubelet(api: Api, upstream: Upstream) -> None:
    options = {"tailLines": "5", "sinceSeconds": "60", "timestamps": "true", "previous": "true", "limitBytes": "99"}
    facts = api.send("GET", f"{PODS}/web/log", **options, pretty="true").json()
    assert facts["path"] == "/containerLogs/default/web/main"
    assert facts["query"] == options
    assert facts["credentials"] is False, "the client's token is not the kubelet's business"


def test_log_of_a_wrong_container_or_unscheduled_pod(api: Api, upstream: Upstream) -> None:
    assert api.send("GET", f"{PODS}/web/log", container="other").status_code == 400
    api.ok("POST", PODS, pod("waiting"))
    assert "waiting to start" in api.send("GET", f"{PODS}/waiting/log").json()["message"]
    assert api.send("GET", f"{PODS}/none/log").status_code == 404


@pytest.mark.parametrize("name", ["web", "web:8000", "web:http", "http:web:8000"])
def test_pod_proxy_maps_ports(api: Api, upstream: Upstream, name: str) -> None:
    answer = api.send("POST", f"{PODS}/{name}/proxy/v1/chat%20x?a=1&b=%2F", b'{"x": 1}')
    assert (answer.status_code, answer.headers["X-Upstream"]) == (418, "yes")
    facts = answer.json()
    assert (facts["path"], facts["query"], facts["body"]) == ("/v1/chat x", {"a": "1", "b": "/"}, '{"x": 1}')


def test_service_proxy_needs_a_ready_endpoint(api: Api, upstream: Upstream) -> None:
    path = f"{CORE}/services/web:80/proxy/ping"
    nobody = api.send("GET", path)
    assert (nobody.status_code, nobody.json()["reason"]) == (503, "ServiceUnavailable")
    subsets = [{"addresses": [{"ip": "127.0.0.1"}], "ports": [{"name": "http", "port": upstream.port}]}]
    api.ok("POST", f"{CORE}/endpoints", {"metadata": {"name": "web"}, "subsets": subsets})
    for name in ("web", "web:80", "web:http"):
        assert api.send("GET", f"{CORE}/services/{name}/proxy/ping").json()["path"] == "/ping"
    assert api.send("GET", f"{CORE}/services/web:81/proxy/ping").status_code == 503


def test_streams_are_passed_on_as_they_come(api: Api, upstream: Upstream) -> None:
    upstream.go_on.clear()
    answer = requests.get(
        f"{api.url}{PODS}/web/proxy/stream", stream=True, timeout=20, verify=str(api.state / "ca.crt"),
        headers={"Authorization": f"Bearer {api.token}"},
    )  # fmt: skip
    chunks = answer.iter_content(chunk_size=None)
    assert next(chunks) == b"data: 1\n\n", "arrives while the server behind it still waits"
    upstream.go_on.set()
    assert b"".join(chunks) == b"data: 2\n\n"


def test_a_broken_stream_is_not_made_whole(api: Api, upstream: Upstream) -> None:
    with pytest.raises(requests.RequestException):
        _ = api.send("GET", f"{PODS}/web/proxy/broken").content


def test_proxy_to_a_dead_port_is_503(api: Api, upstream: Upstream) -> None:
    assert api.send("GET", f"{PODS}/web:{free_port()}/proxy/").status_code == 503
