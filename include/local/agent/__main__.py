"""``python -m include.local.agent``: the node agent: kubelet, Deployment, Job and Endpoints controllers."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path
from typing import Any

from aiohttp import web

from include.local.agent.pods import Kubelet
from include.local.agent.volumes import Volumes
from include.local.agent.workloads import Workloads
from include.local.controller.api import Api, ApiError
from include.local.controller.clock import stamp
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.queue import Reconciler
from include.local.controller.resources import (
    CLAIMS,
    CONFIG_MAPS,
    CSI_DRIVERS,
    DEPLOYMENTS,
    ENDPOINTS,
    JOBS,
    NODES,
    PODS,
    SECRETS,
    SERVICES,
    VOLUMES,
    Object,
    Resource,
    controller_of,
    key_of,
)
from include.local.node.process import attempts, kill_all

logger = logging.getLogger(__name__)
NODE = "hyperpod-i-local00000000001"
INSTANCE_TYPE = "ml.local.cpu"
HEARTBEAT_SECONDS = 5.0
WATCHED: dict[str, Resource] = {
    "pods": PODS, "deployments": DEPLOYMENTS, "jobs": JOBS, "services": SERVICES, "endpoints": ENDPOINTS,
    "nodes": NODES, "secrets": SECRETS, "configmaps": CONFIG_MAPS, "claims": CLAIMS, "volumes": VOLUMES,
}  # fmt: skip


class NodeAgent:
    """Everything that a node of a cluster does, on one API connection."""

    def __init__(self, api: Api, state: Path) -> None:
        self.api = api
        self.state = state
        self.informers = {name: Informer(api, resource) for name, resource in WATCHED.items()}
        self.faults = FaultBook(api)
        volumes = Volumes(self.informers["claims"], self.informers["volumes"], state.parent / "fsx")
        self.kubelet = Kubelet(api, self.faults, state, NODE, self.informers, volumes)
        self.workloads = Workloads(api, self.informers)

    async def run(self) -> None:
        """Work until cancelled."""
        port = await self._serve_logs()
        await self._register(port)
        queues = {
            "pods": Reconciler("pod", self.kubelet.reconcile),
            "deployments": Reconciler("deployment", self.workloads.deployment),
            "jobs": Reconciler("job", self.workloads.job),
            "services": Reconciler("service", self.workloads.service),
        }
        for name, queue in queues.items():
            self.informers[name].listen(lambda item, q=queue: q.add(key_of(item)))  # type: ignore[misc]
        self.informers["pods"].listen(lambda pod: self._owner_changed(pod, queues))
        informers = [*self.informers.values(), self.faults.informer]
        await asyncio.gather(*(informer.run() for informer in informers), self._heartbeats(port))

    def _owner_changed(self, pod: Object, queues: dict[str, Reconciler[tuple[str, str]]]) -> None:
        owner = controller_of(pod)
        namespace = pod["metadata"]["namespace"]
        if owner and owner["kind"] in ("Deployment", "Job"):
            queues[f"{owner['kind'].lower()}s"].add((namespace, owner["name"]))
        for service in self.informers["services"].all():
            if service["metadata"]["namespace"] == namespace:
                queues["services"].add(key_of(service))

    async def _serve_logs(self) -> int:
        app = web.Application()
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return int(runner.addresses[0][1])

    async def _logs(self, request: web.Request) -> web.Response:
        pod = self.informers["pods"].get(request.match_info["namespace"], request.match_info["pod"])
        if pod is None:
            raise web.HTTPNotFound
        folder = self.kubelet.folder(pod) / "containers" / request.match_info["container"]
        known = attempts(folder)
        if request.query.get("previous") in ("1", "true"):
            known = known[:-1]
        text = known[-1].log.read_text(errors="replace") if known and known[-1].log.exists() else ""
        lines = [line.split(" ", 3)[-1] for line in text.splitlines()]
        tail = request.query.get("tailLines")
        if tail:
            lines = lines[-int(tail) :]
        return web.Response(text="\n".join(lines) + ("\n" if lines else ""), content_type="text/plain")

    async def _register(self, port: int) -> None:
        for driver in ("s3.csi.aws.com", "fsx.csi.aws.com"):
            await self._ensure(CSI_DRIVERS, {"metadata": {"name": driver}, "spec": {"attachRequired": False}})
        labels = {
            "node.kubernetes.io/instance-type": INSTANCE_TYPE,
            "kubernetes.io/hostname": NODE,
            "sagemaker.amazonaws.com/node-health-status": "Schedulable",
            "sagemaker.amazonaws.com/deep-health-check-status": "Passed",
        }
        await self._ensure(NODES, {"metadata": {"name": NODE, "labels": labels}, "spec": {}})
        await self._beat(port)

    async def _ensure(self, resource: Resource, item: Object) -> None:
        try:
            await self.api.create(resource, item)
        except ApiError as error:
            if error.status != 409:
                raise

    async def _heartbeats(self, port: int) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            self.kubelet.heartbeat.touch()
            try:
                await self._beat(port)
            except ApiError as error:
                logger.info("heartbeat: %s", error)

    async def _beat(self, port: int) -> None:
        self.kubelet.heartbeat.parent.mkdir(parents=True, exist_ok=True)
        self.kubelet.heartbeat.touch()
        capacity = {"cpu": "8", "memory": "16Gi", "pods": "20", "hyperpod.local/accelerator": "2"}
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": stamp()}
        status: dict[str, Any] = {
            "capacity": capacity,
            "allocatable": capacity,
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
            "conditions": [ready],
            "nodeInfo": {"kubeletVersion": "v1.36.0-local", "architecture": "amd64", "operatingSystem": "linux"},
        }
        await self.api.patch(NODES, "", NODE, {"status": status}, subresource="status")


async def _main(state: Path) -> None:
    api = await Api.connect()
    task = asyncio.create_task(NodeAgent(api, state).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        # Asked to stop: take the pods along. A killed agent leaves them to its successor.
        await asyncio.to_thread(kill_all, state)
    finally:
        await api.close()


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m include.local.agent", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    asyncio.run(_main(parser.parse_args().state))


if __name__ == "__main__":
    main()
