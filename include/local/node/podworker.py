"""One pod of a node: volumes, init containers, containers, status; survives the agent's restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import shutil
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from include.local.controller.api import ApiError
from include.local.controller.clock import parse, seconds_since, stamp
from include.local.controller.resources import PODS, Object, is_deleting, key_of
from include.local.faults import Fault
from include.local.node.containers import Container, Launch
from include.local.node.environment import command_line, container_environment, host_path, node_environment
from include.local.node.images import Image
from include.local.node.kubelet import Kubelet
from include.local.node.mounts import Mounted, Mounter, MountError
from include.local.node.ports import ANNOTATION, VARIABLE
from include.local.node.process import kill_pod_folder
from include.local.node.status import pod_status

logger = logging.getLogger(__name__)
DEFAULT_GRACE_SECONDS = 30.0
MOUNT_PATIENCE_SECONDS = 20.0
UNMOUNT_SECONDS = 10.0
NODE_FACTS = {"status.podIP": "127.0.0.1", "status.hostIP": "127.0.0.1"}


class PodWorker:
    """Runs one pod from its binding to its end.

    :param folder: everything of this pod on disk; removed with the pod.
    """

    def __init__(self, kubelet: Kubelet, mounter: Mounter, pod: Object, folder: Path) -> None:
        self.pod = pod
        self.folder = folder
        self._kubelet = kubelet
        self._mounter = mounter
        self._mounted: dict[str, Mounted] = {}
        self._ports: dict[int, int] = self._earlier_ports()
        self._policy = pod["spec"].get("restartPolicy") or "Always"
        self._dirty = asyncio.Event()
        self._sandbox = False
        self._mounting: asyncio.Future[Mounted] | None = None
        self._tasks: list[asyncio.Task[Any]] = []
        self._init = [self._container(spec, init=True) for spec in pod["spec"].get("initContainers") or ()]
        self._main = [self._container(spec) for spec in pod["spec"]["containers"]]

    def start(self) -> None:
        """Begin (or take up again) the pod's work."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(self._guarded(self._live())), loop.create_task(self._report())]

    def update(self, pod: Object) -> None:
        """Take the pod as the API server has it now."""
        self.pod = pod

    async def end(self, *, grace: float | None = None) -> None:
        """End the containers, forget the folder; nothing of the pod runs on return."""
        if grace is None:
            grace = float(self.pod["spec"].get("terminationGracePeriodSeconds") or DEFAULT_GRACE_SECONDS)
        for container in self._main:
            if "running" in container.record.state and grace:
                await self._kubelet.recorder.normal(
                    self.pod, "Killing", f"Stopping container {container.spec['name']}", container.field
                )
        await asyncio.gather(*(container.stop(grace) for container in [*self._init, *self._main]))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._mounting is not None:
            # A thread cannot be cancelled; what it still writes must not outlive the folder.
            await asyncio.wait({self._mounting}, timeout=UNMOUNT_SECONDS)
        await asyncio.to_thread(kill_pod_folder, self.folder)
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)
        self._kubelet.ports.release(list(self._ports.values()))

    def _container(self, spec: Object, *, init: bool = False) -> Container:
        policy = ("Never" if self._policy == "Never" else "OnFailure") if init else self._policy
        return Container(
            self._kubelet,
            lambda: self.pod,
            spec,
            self.folder / "containers" / spec["name"],
            policy,
            self._launch,
            self._dirty.set,
            self._ports,
        )

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Exception:
            logger.exception("pod %s", self.pod["metadata"]["name"])
            raise

    async def _live(self) -> None:
        self._dirty.set()
        await self._make_sandbox()
        await self._mount()
        slow = await self._kubelet.fault(Fault.SLOW_DEPLOY, self.pod)
        if slow is not None and self._main[0].process is None:
            await asyncio.sleep(max(0.0, slow.number("seconds", 30) - seconds_since(self._start_time())))
        for container in self._main if self._init else ():
            if container.process is None:
                container.waiting("PodInitializing")
        for container in self._init:
            if await container.run() != 0:
                return
            container.record.ready = True
            self._dirty.set()
        await asyncio.gather(*(container.run() for container in self._main))

    async def _make_sandbox(self) -> None:
        while (rule := await self._kubelet.fault(Fault.IP_EXHAUSTED, self.pod)) is not None:
            text = rule.text("message", "failed to assign an IP address to container")
            await self._warn("FailedCreatePodSandBox", f"Failed to create pod sandbox: {text}")
            await asyncio.sleep(self._kubelet.config.back_off_seconds)
        wanted = [int(p["containerPort"]) for c in self.pod["spec"]["containers"] for p in c.get("ports") or ()]
        for number in wanted:
            if number not in self._ports:
                self._ports[number] = self._kubelet.ports.take()
        self.folder.mkdir(parents=True, exist_ok=True)
        meta = self.pod["metadata"]
        identity = {"name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"], "ports": self._ports}
        (self.folder / "pod.json").write_text(json.dumps(identity))
        self._sandbox = True
        self._dirty.set()

    def _earlier_ports(self) -> dict[int, int]:
        path = self.folder / "pod.json"
        if not path.exists():
            return {}
        found = {int(number): int(port) for number, port in json.loads(path.read_text())["ports"].items()}
        for port in found.values():
            self._kubelet.ports.keep(port)
        return found

    async def _mount(self) -> None:
        marker = self.folder / "mounted.json"
        for volume in self.pod["spec"].get("volumes") or ():
            target = self.folder / "volumes" / volume["name"]
            done = json.loads(marker.read_text()) if marker.exists() else {}
            if volume["name"] in done:
                self._mounted[volume["name"]] = Mounted(target, done[volume["name"]])
                continue
            self._mounted[volume["name"]] = await self._mount_one(volume, target)
            done[volume["name"]] = self._mounted[volume["name"]].manifest_digest
            marker.write_text(json.dumps(done))

    async def _mount_one(self, volume: Object, target: Path) -> Mounted:
        failures = 0
        while True:
            try:
                rule = await self._kubelet.fault(Fault.MOUNT_FAILED, self.pod)
                if rule is not None:
                    default = f'MountVolume.SetUp failed for volume "{volume["name"]}": driver name not found'
                    raise MountError(rule.text("message", default))
                namespace = self.pod["metadata"]["namespace"]
                return await self._mount_in_thread(volume, namespace, target)
            except MountError as error:
                failures += 1
                await self._warn("FailedMount", str(error))
                reason = "CreateContainerError" if error.integrity else "ContainerCreating"
                for container in self._main:
                    container.waiting(reason, str(error))
                config = self._kubelet.config
                await asyncio.sleep(min(0.25 * 2.0**failures, config.back_off_limit_seconds))

    async def _mount_in_thread(self, volume: Object, namespace: str, target: Path) -> Mounted:
        self._mounting = asyncio.ensure_future(asyncio.to_thread(self._mounter.mount, volume, namespace, target))
        while True:
            done, _ = await asyncio.wait({self._mounting}, timeout=MOUNT_PATIENCE_SECONDS)
            if done:
                return self._mounting.result()
            text = f"Unable to attach or mount volumes: unmounted volumes=[{volume['name']}]: timed out waiting"
            await self._warn("FailedMount", text)

    async def _launch(self, spec: Object, image: Image) -> Launch:
        mounts: dict[str, Path] = {}
        extra: dict[str, str] = {}
        for mount in spec.get("volumeMounts") or ():
            found = self._mounted[mount["name"]]
            mounts[mount["mountPath"]] = found.folder / (mount.get("subPath") or "")
            extra[f"HYPERPOD_LOCAL_MOUNT_{mount['name'].upper().replace('-', '_')}"] = str(mounts[mount["mountPath"]])
            if found.manifest_digest:
                extra["HYPERPOD_LOCAL_MANIFEST_DIGEST"] = found.manifest_digest
        if mounts:
            model = mounts.get("/opt/ml/model", next(iter(mounts.values())))
            extra["SM_MODEL_DIR"] = str(model)
        extra |= {f"{VARIABLE}{number}": str(port) for number, port in self._ports.items()}
        look = self._mounter.look
        given = container_environment(
            self.pod,
            spec,
            NODE_FACTS,
            lambda namespace, name: look("secrets", namespace, name),
            lambda namespace, name: look("configmaps", namespace, name),
        )
        given = {name: host_path(value, mounts) for name, value in given.items()}
        work = self.folder / "work" / spec["name"]
        work.mkdir(parents=True, exist_ok=True)
        env = node_environment() | {"HOME": str(work), "HOSTNAME": self.pod["metadata"]["name"]} | given | extra
        return Launch(command_line(spec, image.entrypoint, env, mounts), env, work)

    async def _warn(self, reason: str, message: str) -> None:
        await self._kubelet.recorder.warning(self.pod, reason, message)

    def _start_time(self) -> str:
        known = (self.pod.get("status") or {}).get("startTime")
        return str(known or self.pod["metadata"]["creationTimestamp"])

    async def _report(self) -> None:
        """Write the status whenever it changed; keeps trying while the API server is away."""
        started = (self.pod.get("status") or {}).get("startTime") or stamp()
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._write_ports()
                await self._write_status(started)
            except ApiError as error:
                if error.status != 404:
                    logger.info("status of %s: %s", self.pod["metadata"]["name"], error)
                    self._dirty.set()
                await asyncio.sleep(0.5)

    async def _write_ports(self) -> None:
        wanted = {f"{ANNOTATION}{number}": str(port) for number, port in self._ports.items()}
        known = self.pod["metadata"].get("annotations") or {}
        if self._sandbox and any(known.get(name) != port for name, port in wanted.items()):
            self.pod = await self._kubelet.api.patch(PODS, *key_of(self.pod), {"metadata": {"annotations": wanted}})

    async def _write_status(self, started: str) -> None:
        status = pod_status(
            self.pod,
            [container.record for container in self._init],
            [container.record for container in self._main],
            start_time=started,
            now=stamp(),
            sandbox=self._sandbox,
        )
        if status != {name: (self.pod.get("status") or {}).get(name) for name in status}:
            change = {"status": status, "metadata": {"uid": self.pod["metadata"]["uid"]}}
            self.pod = await self._kubelet.api.patch(PODS, *key_of(self.pod), change, subresource="status")


def deletion_grace(pod: Object) -> float:
    """Seconds left of a deleting pod's grace period; 0 when it was deleted without one."""
    meta = pod["metadata"]
    if not is_deleting(pod):
        return 0.0
    left = (parse(meta["deletionTimestamp"]) - parse(stamp())).total_seconds()
    with contextlib.suppress(TypeError):
        return max(0.0, min(left, float(meta.get("deletionGracePeriodSeconds"))))
    return max(0.0, left)
