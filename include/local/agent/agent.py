"""The parts of the node agent, put together."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web

from include.local.agent.balancer import Balancers
from include.local.agent.logs import Logs
from include.local.agent.nodes import NodePresence
from include.local.agent.placement import Placement
from include.local.agent.workloads import Workloads
from include.local.controller.api import Api, ApiError
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.queue import Reconciler
from include.local.controller.recorder import Recorder
from include.local.controller.resources import (
    CLAIMS,
    CONFIG_MAPS,
    DEPLOYMENTS,
    ENDPOINT_SLICES,
    ENDPOINTS,
    INGRESSES,
    JOBS,
    NAMESPACES,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    VOLUMES,
    Key,
    Object,
    Resource,
    controller_of,
    key_of,
)
from include.local.node.config import NodeConfig, NodeSpec
from include.local.node.kubelet import Kubelet
from include.local.node.mounts import Mounter
from include.local.node.podmanager import PodManager
from include.local.node.ports import PortAllocator

logger = logging.getLogger(__name__)
SWEEP_SECONDS = 20.0
WATCHED: dict[str, Resource] = {
    "pods": PODS, "deployments": DEPLOYMENTS, "jobs": JOBS, "services": SERVICES, "endpoints": ENDPOINTS,
    "slices": ENDPOINT_SLICES, "nodes": NODES, "secrets": SECRETS, "configmaps": CONFIG_MAPS, "claims": CLAIMS,
    "volumes": VOLUMES, "namespaces": NAMESPACES, "ingresses": INGRESSES,
}  # fmt: skip


class NodeAgent:
    """Everything that the nodes and the controller manager of a cluster do, on one API connection."""

    def __init__(self, api: Api, state: Path, config: NodeConfig) -> None:
        self._api = api
        self._state = state
        self._config = config
        self._informers = {name: Informer(api, resource) for name, resource in WATCHED.items()}
        self._faults = FaultBook(api)
        self._heartbeat = state / "heartbeat"
        self._nodes: dict[str, tuple[NodePresence, PodManager]] = {}
        self._http: aiohttp.ClientSession | None = None
        self._background: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Work until cancelled."""
        self._touch()
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        informers = [*self._informers.values(), self._faults.informer]
        watching = [asyncio.create_task(informer.run()) for informer in informers]
        try:
            await asyncio.gather(*(informer.synced.wait() for informer in informers))
            port = await self._serve()
            for spec in self._config.nodes:
                self._nodes[spec.name] = self._node(spec, port)
                await self._until_done(self._nodes[spec.name][0].register)
            balancers = Balancers(self._api, self._faults, self._informers, self._http)
            self._wire(balancers)
            await asyncio.gather(*watching, self._heartbeats(), self._sweeps())
        finally:
            for task in [*watching, *self._background]:
                task.cancel()

    async def end_pods(self) -> None:
        """End every pod's processes; the pods stay in the API."""
        for _, manager in self._nodes.values():
            await manager.end_all()

    async def close(self) -> None:
        """Close the connections."""
        if self._http is not None:
            await self._http.close()
        await self._api.close()

    def _node(self, spec: NodeSpec, port: int) -> tuple[NodePresence, PodManager]:
        if self._http is None:
            raise RuntimeError("the agent is not running")
        manager: list[PodManager] = []

        async def evict() -> list[Object]:
            await manager[0].end_all()
            return [pod for pod in self._informers["pods"].all() if pod["spec"].get("nodeName") == spec.name]

        presence = NodePresence(self._api, spec, port, evict)
        kubelet = Kubelet(
            node=spec.name,
            folder=self._state / "nodes" / spec.name,
            api=self._api,
            http=self._http,
            recorder=Recorder(self._api, "kubelet", spec.name),
            book=self._faults,
            config=self._config,
            ports=PortAllocator(),
            heartbeat=self._heartbeat,
            fsx_root=self._state.parent / "fsx",
            lose=lambda seconds: self._lose(presence, seconds),
        )
        mounter = Mounter(lambda kind, *key: self._informers[kind].get(*key), kubelet.fsx_root)
        manager.append(PodManager(kubelet, mounter, self._informers["pods"], _is_finished))
        return presence, manager[0]

    async def _lose(self, presence: NodePresence, seconds: float) -> None:
        """Lose a node in the background: whoever asks runs in a pod that goes with it."""
        task = asyncio.create_task(presence.lose(seconds))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _wire(self, balancers: Balancers) -> None:
        workloads = Workloads(self._api, self._informers)
        placement = Placement(self._api, self._faults, self._informers["pods"], self._informers["nodes"])
        queues: dict[str, Reconciler[Key]] = {
            "deployments": Reconciler("deployment", workloads.deployment),
            "jobs": Reconciler("job", workloads.job),
            "services": Reconciler("service", workloads.service),
            "claims": Reconciler("claim", workloads.claim),
            "namespaces": Reconciler("namespace", workloads.namespace),
            "ingresses": Reconciler("ingress", balancers.reconcile),
        }
        scheduling: Reconciler[Key] = Reconciler("schedule", placement.reconcile, workers=1)
        for name, queue in queues.items():
            self._listen(name, queue.add)
        self._listen("pods", scheduling.add)
        for _, manager in self._nodes.values():
            self._listen("pods", Reconciler[Key]("pod", manager.reconcile, workers=64).add)

        def pod_changed(pod: Object) -> None:
            owner_changed(pod, queues)
            for service in workloads.services_of(pod):
                queues["services"].add(service)

        self._informers["pods"].listen(pod_changed)
        for pod in self._informers["pods"].all():
            pod_changed(pod)

    def _listen(self, name: str, add: Callable[[Key], None]) -> None:
        self._informers[name].listen(lambda item: add(key_of(item)))
        for item in self._informers[name].all():
            add(key_of(item))

    async def _serve(self) -> int:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", Logs(self._pod_folder).handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return int(runner.addresses[0][1])

    def _pod_folder(self, namespace: str, name: str) -> Path | None:
        pod = self._informers["pods"].get(namespace, name)
        node = self._nodes.get((pod or {}).get("spec", {}).get("nodeName", ""))
        return node[1].folder(pod) if pod and node else None

    def _touch(self) -> None:
        self._heartbeat.parent.mkdir(parents=True, exist_ok=True)
        self._heartbeat.touch()

    async def _heartbeats(self) -> None:
        while True:
            await asyncio.sleep(self._config.heartbeat_seconds)
            self._touch()
            for presence, _ in self._nodes.values():
                try:
                    await presence.beat()
                except ApiError as error:
                    logger.info("heartbeat: %s", error)

    async def _sweeps(self) -> None:
        while True:
            for _, manager in self._nodes.values():
                await manager.sweep()
            await asyncio.sleep(SWEEP_SECONDS)

    @staticmethod
    async def _until_done(work: Callable[[], Any]) -> None:
        while True:
            try:
                await work()
                return
            except ApiError as error:
                logger.info("registering: %s", error)
                await asyncio.sleep(0.5)


def owner_changed(pod: Object, queues: dict[str, Reconciler[Key]]) -> None:
    """Let the controller of a pod's owner look at it."""
    owner = controller_of(pod)
    if owner and owner["kind"] in ("Deployment", "Job"):
        queues[f"{owner['kind'].lower()}s"].add((pod["metadata"]["namespace"], owner["name"]))


def _is_finished(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
