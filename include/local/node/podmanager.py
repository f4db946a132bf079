"""Which pods run on a node: begins the new ones, ends the deleted ones, kills what nobody wants any more."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

from include.local.controller.informer import Informer
from include.local.controller.resources import PODS, Key, Object, is_deleting
from include.local.node.kubelet import Kubelet
from include.local.node.mounts import Mounter
from include.local.node.podworker import PodWorker, deletion_grace
from include.local.node.process import kill_pod_folder

logger = logging.getLogger(__name__)
# A pod that vanished from the API without a grace period still gets a moment for a clean exit.
VANISHED_GRACE_SECONDS = 2.0


class PodManager:
    """The workers of one node.

    :param pods: informer on the pods of all namespaces.
    """

    def __init__(self, kubelet: Kubelet, mounter: Mounter, pods: Informer, finished: Callable[[Object], bool]) -> None:
        self._kubelet = kubelet
        self._mounter = mounter
        self._pods = pods
        self._finished = finished
        self._workers: dict[str, PodWorker] = {}
        self._keys: dict[Key, str] = {}

    def folder(self, pod: Object) -> Path:
        """Folder of a pod."""
        return self._kubelet.folder / "pods" / str(pod["metadata"]["uid"])

    async def reconcile(self, key: Key) -> float | None:
        """Make what runs equal to what the API says about one pod name."""
        pod = self._pods.get(*key)
        uid = str(pod["metadata"]["uid"]) if pod else ""
        known = self._keys.get(key)
        if known and known != uid:
            await self._end(key, known, VANISHED_GRACE_SECONDS)
        if pod is None or pod["spec"].get("nodeName") != self._kubelet.node:
            return None
        if is_deleting(pod):
            await self._end(key, uid, deletion_grace(pod))
            await self._kubelet.api.delete(PODS, *key, uid=uid, grace_seconds=0)
            return None
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(pod)
        elif not self._finished(pod):
            self._workers[uid] = worker = PodWorker(self._kubelet, self._mounter, pod, self.folder(pod))
            self._keys[key] = uid
            worker.start()
        return None

    async def sweep(self) -> None:
        """Kill pods on disk that the API server does not know; only call with a synced informer."""
        wanted = {str(pod["metadata"]["uid"]) for pod in self._pods.all()}
        for folder in (self._kubelet.folder / "pods").glob("*"):
            if folder.name not in wanted and folder.name not in self._workers:
                await self._forget(folder)

    async def end_all(self) -> None:
        """End every pod's processes at once; the pods stay in the API."""
        await asyncio.gather(*(worker.end(grace=0) for worker in self._workers.values()))
        self._workers.clear()
        self._keys.clear()

    async def _end(self, key: Key, uid: str, grace: float) -> None:
        worker = self._workers.pop(uid, None)
        self._keys.pop(key, None)
        if worker is not None:
            await worker.end(grace=grace)
        else:
            await self._forget(self._kubelet.folder / "pods" / uid)

    async def _forget(self, folder: Path) -> None:
        running = await asyncio.to_thread(kill_pod_folder, folder)
        await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        logger.info("removed pod %s of an earlier run, %s processes ended", folder.name, running)
