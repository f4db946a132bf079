"""``python -m include.local.operator``: reconcile the HyperPod custom resources."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from include.local.controller.api import Api, ApiError
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.queue import Reconciler
from include.local.controller.recorder import Recorder
from include.local.controller.resources import (
    DEPLOYMENTS,
    ENDPOINT_CONFIGS,
    INGRESSES,
    JUMPSTART_MODELS,
    Key,
    Object,
    controller_of,
    key_of,
)
from include.local.faults import Fault
from include.local.operator.aws import Aws
from include.local.operator.reconcile import EndpointReconciler
from include.local.operator.world import World

NAMESPACE = "hyperpod-inference-system"
NAME = "hyperpod-inference-controller-manager"
SHOWN = {"hyperpod-local/shown": "true"}
BEAT_SECONDS = 1.0
logger = logging.getLogger(__name__)


class Operator:
    """Both kinds of custom resources on one connection."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._faults = FaultBook(api)
        self._shared = [Informer(api, DEPLOYMENTS), Informer(api, INGRESSES)]
        self._queues: dict[str, Reconciler[Key]] = {}
        self._items: dict[str, Informer] = {}
        self._aws, events = Aws(), Recorder(api, "hyperpod-inference-operator")
        for resource in (ENDPOINT_CONFIGS, JUMPSTART_MODELS):
            items = Informer(api, resource)
            world = World(api, resource, self._faults, events, self._aws)
            queue = Reconciler("endpoint", EndpointReconciler(world, items).reconcile, workers=16)
            items.listen(lambda item, queue=queue: queue.add(key_of(item)))  # type: ignore[misc]
            self._queues[resource.kind], self._items[resource.kind] = queue, items
        for informer in self._shared:
            informer.listen(self._part_changed)
        self._faults.listen(self._everything)

    async def run(self) -> None:
        """Work until cancelled."""
        informers = [*self._items.values(), *self._shared, self._faults.informer]
        warming = asyncio.to_thread(self._aws.warm)
        await asyncio.gather(*(informer.run() for informer in informers), self._beat(), warming)

    def _part_changed(self, part: Object) -> None:
        owner = controller_of(part)
        if owner and owner["kind"] in self._queues:
            self._queues[owner["kind"]].add((part["metadata"]["namespace"], owner["name"]))

    def _everything(self) -> None:
        for kind, items in self._items.items():
            for item in items.all():
                self._queues[kind].add(key_of(item))

    async def _beat(self) -> None:
        """Keep the controller's Deployment as a cluster shows it: one ready replica while this works."""
        shown: int | None = None
        await self._faults.informer.synced.wait()
        while True:
            replicas = 0 if self._faults.any(Fault.OPERATOR_DOWN) else 1
            if replicas != shown:
                try:
                    await self._show(replicas)
                    shown = replicas
                except ApiError as error:
                    logger.info("operator deployment: %s", error)
            await asyncio.sleep(BEAT_SECONDS)

    async def _show(self, replicas: int) -> None:
        container = {"name": "manager", "image": "hyperpod-inference-operator:v3.2-local"}
        labels = {"app.kubernetes.io/name": "hyperpod-inference-operator"}
        template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
        item = {
            "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": labels | SHOWN},
            "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
        }
        try:
            await self._api.create(DEPLOYMENTS, item)
        except ApiError as error:
            if error.status != 409:
                raise
            await self._api.patch(DEPLOYMENTS, NAMESPACE, NAME, {"spec": {"replicas": replicas}})
        # Its pod is this process, which no kubelet runs: only the status is shown.
        names = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
        status = dict.fromkeys(names, replicas)
        await self._api.patch(DEPLOYMENTS, NAMESPACE, NAME, {"status": status}, subresource="status")


async def _main() -> None:
    api = await Api.connect()
    task = asyncio.create_task(Operator(api).run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        logger.info("stopped")
    finally:
        await api.close()


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m include.local.operator", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.parse_args()
    asyncio.run(_main())


if __name__ == "__main__":
    main()
