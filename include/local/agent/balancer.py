"""The load balancer controller: for each Ingress an HTTPS server that forwards to the Service's ready pods.

It stands in for an ALB: host name ``localhost:<port>`` (a real ALB listens on 443 of a name of its own), the
certificate of the Ingress's TLS Secret, 503 while there is no target. It knows one rule: everything goes to the
first backend. The target groups and health checks of the ELB API are not imitated.
"""

from __future__ import annotations

import base64
import itertools
import logging
import ssl
import tempfile
from pathlib import Path

import aiohttp
from aiohttp import web

from include.local.controller.api import Api
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.resources import INGRESSES, Key, Object, is_deleting
from include.local.faults import Fault
from include.local.node.forward import forward
from include.local.node.ports import PortAllocator

logger = logging.getLogger(__name__)


class Balancer:
    """One listener."""

    def __init__(self, key: Key, port: int) -> None:
        self.key = key
        self.port = port
        self.runner: web.AppRunner | None = None
        self.secure = ""
        self.turn = itertools.count()


class Balancers:
    """Reconciles Ingresses."""

    def __init__(
        self, api: Api, faults: FaultBook, informers: dict[str, Informer], http: aiohttp.ClientSession
    ) -> None:
        self._api = api
        self._faults = faults
        self._informers = informers
        self._http = http
        self._ports = PortAllocator()
        self._running: dict[Key, Balancer] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Give an Ingress its address, open or close its listener."""
        item = self._informers["ingresses"].get(*key)
        if item is None or is_deleting(item):
            await self._close(key)
            return None
        if item["spec"].get("ingressClassName") != "alb":
            return None
        balancer = self._running.get(key)
        if balancer is None:
            balancer = self._running[key] = Balancer(key, self._port_of(item))
        address = {"loadBalancer": {"ingress": [{"hostname": f"localhost:{balancer.port}"}]}}
        if (item.get("status") or {}).get("loadBalancer") != address["loadBalancer"]:
            await self._api.patch(INGRESSES, *key, {"status": address}, subresource="status")
        secret = self._secret(item)
        if secret is None:
            return 0.5
        if balancer.secure != secret["metadata"]["resourceVersion"]:
            await self._open(balancer, secret)
        return None

    async def close(self) -> None:
        """Close every listener."""
        for key in list(self._running):
            await self._close(key)

    def _port_of(self, item: Object) -> int:
        """The port that the Ingress already names, when an earlier agent gave it one; else a free one."""
        entries = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []
        known = str(entries[0].get("hostname", "")).rpartition(":")[2] if entries else ""
        if known.isdigit():
            self._ports.keep(int(known))
            return int(known)
        return self._ports.take()

    def _secret(self, item: Object) -> Object | None:
        names = [entry.get("secretName") for entry in item["spec"].get("tls") or ()]
        # The Ingress of a routed endpoint lies in the system's namespace, its Secret in the endpoint's.
        namespaces = {item["metadata"]["namespace"], endpoint_of(item)[0]}
        for secret in self._informers["secrets"].all():
            if secret["metadata"]["name"] in names and secret["metadata"]["namespace"] in namespaces:
                return secret
        return None

    async def _open(self, balancer: Balancer, secret: Object) -> None:
        if balancer.runner is not None:
            await balancer.runner.cleanup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        with tempfile.TemporaryDirectory() as folder:
            # The ssl module reads certificates from files only; these live for one call.
            pair = [Path(folder) / name for name in ("tls.crt", "tls.key")]
            for path in pair:
                path.touch(mode=0o600)
                path.write_bytes(base64.b64decode(secret["data"][path.name]))
            context.load_cert_chain(str(pair[0]), str(pair[1]))

        async def handle(request: web.Request) -> web.StreamResponse:
            return await self._forward(balancer, request)

        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{tail:.*}", handle)
        balancer.runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await balancer.runner.setup()
        await web.TCPSite(balancer.runner, "127.0.0.1", balancer.port, ssl_context=context).start()
        balancer.secure = secret["metadata"]["resourceVersion"]

    async def _forward(self, balancer: Balancer, request: web.Request) -> web.StreamResponse:
        targets = await self._targets(balancer.key)
        if not targets:
            return web.Response(
                status=503, text="<html><head><title>503 Service Temporarily Unavailable</title></head></html>"
            )
        target = targets[next(balancer.turn) % len(targets)]
        return await forward(self._http, request, f"http://{target}")

    async def _targets(self, key: Key) -> list[str]:
        item = self._informers["ingresses"].get(*key)
        if item is None:
            return []
        owner = endpoint_of(item)
        if await self._faults.active(Fault.ALB_503, owner[0], owner[1], item["metadata"]["uid"]):
            return []
        service = item["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]["name"]
        found = self._informers["endpoints"].get(key[0], service)
        return [
            f"{address['ip']}:{subset['ports'][0]['port']}"
            for subset in (found or {}).get("subsets") or ()
            for address in subset.get("addresses") or ()
        ]

    async def _close(self, key: Key) -> None:
        balancer = self._running.pop(key, None)
        if balancer is not None:
            if balancer.runner is not None:
                await balancer.runner.cleanup()
            self._ports.release([balancer.port])


def endpoint_of(ingress: Object) -> Key:
    """Namespace and name of the endpoint that an Ingress belongs to: its annotation, else its own name."""
    annotations = ingress["metadata"].get("annotations") or {}
    namespace, slash, name = annotations.get("hyperpod-local/endpoint", "").partition("/")
    if slash:
        return namespace, name
    return ingress["metadata"]["namespace"], ingress["metadata"]["name"].removeprefix("alb-")
