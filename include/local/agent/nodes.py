"""Node objects: registration, heartbeats, and the loss of a node."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from include.local.controller.api import Api, ApiError
from include.local.controller.clock import stamp
from include.local.controller.recorder import Recorder
from include.local.controller.resources import CSI_DRIVERS, NODES, PODS, Object, Resource, key_of
from include.local.node.config import HEALTH_LABEL, NodeSpec

logger = logging.getLogger(__name__)
DRIVERS = ("s3.csi.aws.com", "fsx.csi.aws.com")
UNREACHABLE = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


async def ensure(api: Api, resource: Resource, item: Object) -> None:
    """Create an object unless it is there."""
    try:
        await api.create(resource, item)
    except ApiError as error:
        if error.status != 409:
            raise


class NodePresence:
    """One node as the API server shows it.

    :param port: port of the kubelet's HTTP API.
    :param evict: ends the node's pods and returns their objects.
    """

    def __init__(self, api: Api, spec: NodeSpec, port: int, evict: Callable[[], Awaitable[list[Object]]]) -> None:
        self.spec = spec
        self._api = api
        self._port = port
        self._evict = evict
        self._lost = False
        self._events = Recorder(api, "node-controller")

    @property
    def lost(self) -> bool:
        """True while the node is gone."""
        return self._lost

    async def register(self) -> None:
        """Create or take over the Node object and the CSI drivers."""
        for driver in DRIVERS:
            await ensure(self._api, CSI_DRIVERS, {"metadata": {"name": driver}, "spec": {"attachRequired": False}})
        await ensure(self._api, NODES, {"metadata": {"name": self.spec.name}, "spec": {}})
        change = {"metadata": {"labels": self.spec.all_labels()}, "spec": {"taints": None}}
        await self._api.patch(NODES, "", self.spec.name, change)
        await self.beat()

    async def beat(self) -> None:
        """Report that the node is there, with its capacity."""
        if not self._lost:
            await self._set_status("True", "KubeletReady", "kubelet is posting ready status")

    async def lose(self, seconds: float) -> None:
        """Make the node disappear: NotReady, tainted, its pods gone; it is back after ``seconds``."""
        self._lost = True
        await self._set_status("Unknown", "NodeStatusUnknown", "Kubelet stopped posting node status.")
        label = {HEALTH_LABEL: "UnschedulablePendingReplacement"}
        change = {"metadata": {"labels": label}, "spec": {"taints": [{**UNREACHABLE, "timeAdded": stamp()}]}}
        node = await self._api.patch(NODES, "", self.spec.name, change)
        await self._events.normal(node, "NodeNotReady", f"Node {self.spec.name} status is now: NodeNotReady")
        for pod in await self._evict():
            text = f"Marking for deletion Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
            await self._events.normal(pod, "TaintManagerEviction", text)
            await self._api.delete(PODS, *key_of(pod), uid=pod["metadata"]["uid"], grace_seconds=0)
        await asyncio.sleep(seconds)
        self._lost = False
        await self.register()

    async def _set_status(self, ready: str, reason: str, message: str) -> None:
        now = stamp()
        condition = {"type": "Ready", "status": ready, "reason": reason, "message": message}
        status: Object = {
            "capacity": self.spec.allocatable,
            "allocatable": self.spec.allocatable,
            "addresses": [
                {"type": "InternalIP", "address": "127.0.0.1"},
                {"type": "Hostname", "address": self.spec.name},
            ],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": self._port}},
            "conditions": [{**condition, "lastHeartbeatTime": now, "lastTransitionTime": now}],
            "nodeInfo": {"kubeletVersion": "v1.36.0-local", "architecture": "amd64", "operatingSystem": "linux"},
        }
        await self._api.patch(NODES, "", self.spec.name, {"status": status}, subresource="status")
