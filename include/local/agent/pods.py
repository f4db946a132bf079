"""The kubelet's part: one asyncio task for each pod of this node, from scheduling to its end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
import socket
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from include.local.agent.scheduler import why_not
from include.local.agent.volumes import MountError, Volumes
from include.local.controller.api import Api, ApiError
from include.local.controller.clock import stamp
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.recorder import Recorder
from include.local.controller.resources import PODS, Object, key_of
from include.local.faults import Fault
from include.local.node.environment import ConfigError, command_line, container_environment, node_environment
from include.local.node.images import Image, ImageNotFoundError, resolve
from include.local.node.process import ContainerProcess, attempts, kill_pod_folder

logger = logging.getLogger(__name__)
TICK = 0.2
BACKOFF = (1.0, 2.0, 5.0, 10.0)
CRASHES = {
    Fault.CRASH_LOOP: ("crash", 1),
    Fault.CUDA_OOM: ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", 1),
    Fault.ENGINE_DEAD: ("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue", 1),
    Fault.DRIVER_TOO_OLD: ("RuntimeError: The NVIDIA driver on your system is too old", 1),
    Fault.OOM: ("Killed", 137),
}


@dataclass
class Running:
    """One pod at work on this node."""

    pod: Object
    folder: Path
    name: str
    restarts: int = 0
    process: ContainerProcess | None = None
    image: Image | None = None
    ready: bool = False
    last: dict[str, Any] = field(default_factory=dict)
    ports: dict[str, str] = field(default_factory=dict)
    crashed: int = 0


class Kubelet:
    """Runs pods as processes.

    :param nodes: informer on Node objects; ``pods`` on pods of all namespaces.
    """

    def __init__(
        self, api: Api, faults: FaultBook, state: Path, node: str, informers: dict[str, Informer], volumes: Volumes
    ) -> None:
        self._api = api
        self._faults = faults
        self._state = state
        self._node = node
        self._informers = informers
        self._volumes = volumes
        self._events = Recorder(api, "kubelet", node)
        self._scheduling = Recorder(api, "default-scheduler")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._http: aiohttp.ClientSession | None = None
        self.heartbeat = state / "heartbeat"

    def folder(self, pod: Object) -> Path:
        """Folder of a pod."""
        return self._state / "nodes" / self._node / "pods" / str(pod["metadata"]["uid"])

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Start what has to run, end what is gone."""
        pod = self._informers["pods"].get(*key)
        if pod is None:
            await self._end_gone()
            return None
        uid = str(pod["metadata"]["uid"])
        finished = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
        if uid not in self._tasks and not finished:
            self._tasks[uid] = asyncio.get_running_loop().create_task(self._run(pod))
        return None

    async def _end_gone(self) -> None:
        wanted = {str(pod["metadata"]["uid"]) for pod in self._informers["pods"].all()}
        for uid in [uid for uid in self._tasks if uid not in wanted]:
            self._tasks.pop(uid).cancel()
        for folder in (self._state / "nodes" / self._node / "pods").glob("*"):
            if folder.name not in wanted:
                await asyncio.to_thread(kill_pod_folder, folder)
                await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)

    async def _run(self, pod: Object) -> None:
        labels = pod["metadata"].get("labels") or {}
        run = Running(pod, self.folder(pod), labels.get("app") or labels.get("job-name") or pod["metadata"]["name"])
        if self._http is None:
            self._http = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2))
        try:
            await self._schedule(run)
            await self._pull(run)
            mounts = await self._mount(run)
            await self._serve(run, mounts)
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("pod %s", pod["metadata"]["name"])
            self._tasks.pop(str(pod["metadata"]["uid"]), None)

    async def _schedule(self, run: Running) -> None:
        while not run.pod["spec"].get("nodeName"):
            reason = await self._unschedulable(run)
            if reason is None:
                change = {"spec": {"nodeName": self._node}}
                run.pod = await self._api.patch(PODS, *key_of(run.pod), change)
                name = f"{run.pod['metadata']['namespace']}/{run.pod['metadata']['name']}"
                await self._scheduling.normal(run.pod, "Scheduled", f"Successfully assigned {name} to {self._node}")
                break
            message = f"0/1 nodes are available: 1 {reason}."
            condition = _condition("PodScheduled", False, "Unschedulable", message)
            await self._status(run, {"phase": "Pending", "conditions": [condition]})
            await self._scheduling.warning(run.pod, "FailedScheduling", message)
            await asyncio.sleep(1)
        await self._status(run, self._waiting(run, "ContainerCreating", ""))

    async def _unschedulable(self, run: Running) -> str | None:
        if rule := await self._fault(run, Fault.UNSCHEDULABLE):
            return f"Insufficient {rule.text('resource', 'nvidia.com/gpu')}"
        if await self._fault(run, Fault.TOO_MANY_PODS):
            return "Too many pods"
        node = self._informers["nodes"].get("", self._node)
        if node is None:
            return "node(s) not found"
        mine = run.pod["metadata"]["uid"]
        others = [pod for pod in self._informers["pods"].all() if pod["metadata"]["uid"] != mine]
        return why_not(run.pod, node, others)

    async def _pull(self, run: Running) -> None:
        reference = str(run.pod["spec"]["containers"][0]["image"])
        tries = 0
        while True:
            try:
                rule = await self._fault(run, Fault.IMAGE_PULL)
                if rule:
                    raise ImageNotFoundError(
                        rule.text("message", f'failed to resolve reference "{reference}": not found')
                    )
                await self._events.normal(run.pod, "Pulling", f'Pulling image "{reference}"')
                if slow := await self._fault(run, Fault.SLOW_IMAGE_PULL):
                    await asyncio.sleep(slow.number("seconds", 30))
                run.image = resolve(reference)
                await self._events.normal(run.pod, "Pulled", f'Successfully pulled image "{reference}" in 10ms')
                return
            except ImageNotFoundError as error:
                await self._events.warning(run.pod, "Failed", f'Failed to pull image "{reference}": {error}')
                reason = "ErrImagePull" if tries == 0 else "ImagePullBackOff"
                said = str(error) if tries == 0 else f'Back-off pulling image "{reference}": {error}'
                await self._status(run, self._waiting(run, reason, said))
                await asyncio.sleep(BACKOFF[min(tries, 3)])
                tries += 1

    async def _mount(self, run: Running) -> dict[str, Path]:
        run.folder.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                rule = await self._fault(run, Fault.MOUNT_FAILED)
                if rule:
                    raise MountError(
                        rule.text("message", 'MountVolume.SetUp failed for volume "model": driver not found')
                    )
                return await self._volumes.mount(run.pod, run.folder)
            except MountError as error:
                await self._events.warning(run.pod, "FailedMount", str(error))
                await self._status(run, self._waiting(run, "CreateContainerError", str(error)))
                await asyncio.sleep(3)

    async def _serve(self, run: Running, mounts: dict[str, Path]) -> None:
        container = run.pod["spec"]["containers"][0]
        folder = run.folder / "containers" / container["name"]
        known = attempts(folder)
        run.restarts = max(0, len(known) - 1)
        annotations = run.pod["metadata"].get("annotations") or {}
        run.ports = {k: v for k, v in annotations.items() if k.startswith("hyperpod-local/port.")}
        if known and known[-1].alive():
            run.process = known[-1]
            logger.info("adopted %s", run.pod["metadata"]["name"])
        if slow := await self._fault(run, Fault.SLOW_DEPLOY):
            await asyncio.sleep(slow.number("seconds", 30))
        while True:
            if run.process is None and not await self._start(run, container, folder, mounts, len(known)):
                await asyncio.sleep(2)
                continue
            known = attempts(folder)
            if not await self._watch(run, container):
                return
            run.process = None
            run.restarts += 1
            wait = BACKOFF[min(run.restarts - 1, 3)]
            if run.restarts > 1:
                said = f"back-off {wait:.0f}s restarting failed container={container['name']}"
                await self._status(run, self._waiting(run, "CrashLoopBackOff", said))
                await self._events.warning(run.pod, "BackOff", said)
            await asyncio.sleep(wait)

    async def _start(
        self, run: Running, container: Object, folder: Path, mounts: dict[str, Path], attempt: int
    ) -> bool:
        if run.image is None:
            return False
        paths = {m["mountPath"]: mounts[m["name"]] for m in container.get("volumeMounts") or () if m["name"] in mounts}
        try:
            if await self._fault(run, Fault.CONFIG_ERROR):
                raise ConfigError('secret "absent" not found')
            env = node_environment() | container_environment(
                run.pod, container, {"status.podIP": "127.0.0.1"}, self._lookup("secrets"), self._lookup("configmaps")
            )
        except ConfigError as error:
            await self._status(run, self._waiting(run, "CreateContainerConfigError", str(error)))
            await self._events.warning(run.pod, "Failed", f"Error: {error}")
            return False
        await self._give_ports(run, container)
        for key, port in run.ports.items():
            env[f"HYPERPOD_LOCAL_PORT_{key.rsplit('.', 1)[-1]}"] = port
        for path in paths.values():
            env.setdefault("SM_MODEL_DIR", str(path))
        argv = command_line(container, run.image.entrypoint, env, {str(k): v for k, v in paths.items()})
        argv = await self._sabotaged(run, argv)
        run.process = ContainerProcess(folder, attempt)
        self.heartbeat.touch()
        run.process.start(argv, env, run.folder, self.heartbeat)
        await asyncio.to_thread(run.process.wait_for_record)
        run.ready = False
        await self._events.normal(run.pod, "Started", f"Started container {container['name']}")
        await self._status(run, self._live(run))
        return True

    async def _sabotaged(self, run: Running, argv: list[str]) -> list[str]:
        for kind, (said, code) in CRASHES.items():
            rule = await self._fault(run, kind)
            if rule:
                text, exit_code = rule.text("log", said), int(rule.number("exit_code", code))
                return [sys.executable, "-c", f"import os; print({text!r}, flush=True); os._exit({exit_code})"]
        return argv

    async def _give_ports(self, run: Running, container: Object) -> None:
        missing = {}
        for port in container.get("ports") or ():
            key = f"hyperpod-local/port.{port['containerPort']}"
            if key not in run.ports:
                missing[key] = str(_free_port())
        if missing:
            run.ports |= missing
            run.pod = await self._api.patch(PODS, *key_of(run.pod), {"metadata": {"annotations": missing}})

    async def _watch(self, run: Running, container: Object) -> bool:
        """Follow the process; true when it must be started again."""
        assert run.process is not None  # noqa: S101 (set by the caller)
        probe = container.get("readinessProbe")
        while run.process.exit() is None and run.process.alive():
            ready = await self._probe(run, probe)
            if ready and await self._fault(run, Fault.NOT_READY):
                ready = False
            if ready != run.ready:
                run.ready = ready
                await self._status(run, self._live(run))
            if run.ready and run.crashed == 0 and (rule := await self._fault(run, Fault.CRASH_AFTER_READY)):
                run.crashed += 1
                await asyncio.sleep(rule.number("seconds", 0))
                run.process.kill()
            await asyncio.sleep(TICK)
        ended = run.process.exit()
        code = ended.code if ended else 137
        run.ready = False
        reason = (
            "OOMKilled"
            if code == 137 and await self._fault(run, Fault.OOM)
            else ("Completed" if code == 0 else "Error")
        )
        terminated = {"exitCode": code, "reason": reason, "finishedAt": stamp()}
        run.last = {"terminated": terminated}
        again = (run.pod["spec"].get("restartPolicy") or "Always") == "Always"
        phase = "Running" if again else ("Succeeded" if code == 0 else "Failed")
        await self._status(run, {**self._live(run, {"terminated": terminated}), "phase": phase})
        return again

    async def _probe(self, run: Running, probe: Any) -> bool:
        if not probe:
            return True
        get = probe.get("httpGet")
        if not get or self._http is None:
            return True
        port = run.ports.get(f"hyperpod-local/port.{get['port']}") or next(iter(run.ports.values()), get["port"])
        with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
            async with self._http.get(f"http://127.0.0.1:{port}{get.get('path', '/')}") as answer:
                return answer.status < 400
        return False

    def _live(self, run: Running, state: dict[str, Any] | None = None) -> dict[str, Any]:
        container = run.pod["spec"]["containers"][0]
        started = (run.process.record() or {}).get("started") if run.process else None
        current = state or {"running": {"startedAt": str(started)[:19] + "Z" if started else stamp()}}
        status = {
            "name": container["name"],
            "ready": run.ready,
            "started": state is None,
            "restartCount": run.restarts,
            "image": container["image"],
            "imageID": run.image.image_id if run.image else "",
            "state": current,
            "lastState": run.last if state is None else {},
        }
        return {"phase": "Running", "podIP": "127.0.0.1", "hostIP": "127.0.0.1", "containerStatuses": [status],
                "conditions": _conditions(run.ready)}  # fmt: skip

    def _waiting(self, run: Running, reason: str, message: str) -> dict[str, Any]:
        container = run.pod["spec"]["containers"][0]
        status = {
            "name": container["name"], "ready": False, "restartCount": run.restarts, "image": container["image"],
            "imageID": "", "state": {"waiting": {"reason": reason, "message": message}}, "lastState": run.last,
        }  # fmt: skip
        phase = "Running" if run.restarts else "Pending"
        return {"phase": phase, "podIP": "127.0.0.1", "containerStatuses": [status], "conditions": _conditions(False)}

    async def _status(self, run: Running, status: dict[str, Any]) -> None:
        before = {item["type"]: item for item in (run.pod.get("status") or {}).get("conditions") or ()}
        for item in status["conditions"]:
            old = before.get(item["type"])
            if old and old["status"] == item["status"]:
                item["lastTransitionTime"] = old["lastTransitionTime"]
        with contextlib.suppress(ApiError):
            run.pod = await self._api.patch(PODS, *key_of(run.pod), {"status": status}, subresource="status")

    async def _fault(self, run: Running, kind: Fault) -> Any:
        if not self._faults.any(kind):
            return None
        return await self._faults.active(kind, run.pod["metadata"]["namespace"], run.name, run.pod["metadata"]["uid"])

    def _lookup(self, name: str) -> Any:
        return lambda namespace, item: self._informers[name].get(namespace, item)


def _conditions(ready: bool) -> list[dict[str, Any]]:
    return [
        _condition("PodScheduled", True, "", ""),
        _condition("Initialized", True, "", ""),
        _condition("ContainersReady", ready, "" if ready else "ContainersNotReady", ""),
        _condition("Ready", ready, "" if ready else "ContainersNotReady", ""),
    ]


def _condition(kind: str, status: bool, reason: str, message: str) -> dict[str, Any]:
    said = {"reason": reason, "message": message} if reason else {}
    return {"type": kind, "status": str(status), "lastTransitionTime": stamp(), **said}


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
