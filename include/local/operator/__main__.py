"""``python -m include.local.operator``: reconcile the HyperPod custom resources."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from include.local.agent.workloads import SHOWN_LABEL
from include.local.controller.api import Api, ApiError
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.queue import Reconciler
from include.local.controller.resources import DEPLOYMENTS, ENDPOINT_CONFIGS, Object, controller_of, key_of
from include.local.faults import Fault
from include.local.operator.reconcile import EndpointReconciler

NAMESPACE = "hyperpod-inference-system"
NAME = "hyperpod-inference-controller-manager"
BEAT_SECONDS = 2.0
logger = logging.getLogger(__name__)


async def _main() -> None:
    api = await Api.connect()
    faults = FaultBook(api)
    items, deployments = Informer(api, ENDPOINT_CONFIGS), Informer(api, DEPLOYMENTS)
    reconciler = EndpointReconciler(api, ENDPOINT_CONFIGS, faults, items, deployments)
    queue = Reconciler("endpoint", reconciler.reconcile)
    items.listen(lambda item: queue.add(key_of(item)))

    def deployment_changed(item: Object) -> None:
        owner = controller_of(item)
        if owner and owner["kind"] == ENDPOINT_CONFIGS.kind:
            queue.add((item["metadata"]["namespace"], owner["name"]))

    deployments.listen(deployment_changed)
    work = asyncio.gather(items.run(), deployments.run(), faults.informer.run(), _beat(api, faults))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, work.cancel)
    try:
        await work
    except asyncio.CancelledError:
        logger.info("stopped")
    finally:
        await api.close()


async def _beat(api: Api, faults: FaultBook) -> None:
    """Keep the controller's Deployment as a cluster shows it: one replica while we work."""
    shown = -1
    while True:
        replicas = 0 if faults.any(Fault.OPERATOR_DOWN) else 1
        if replicas != shown:
            try:
                await _show(api, replicas)
                shown = replicas
            except ApiError as error:
                logger.info("operator deployment: %s", error)
        await asyncio.sleep(BEAT_SECONDS)


async def _show(api: Api, replicas: int) -> None:
    container = {"name": "manager", "image": "hyperpod-inference-operator:v3.2-local"}
    labels = {"app.kubernetes.io/name": "hyperpod-inference-operator"}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    item = {
        "metadata": {"name": NAME, "namespace": NAMESPACE, "labels": {**labels, "hyperpod-local/shown": "true"}},
        "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": template},
    }
    try:
        await api.create(DEPLOYMENTS, item)
    except ApiError as error:
        if error.status != 409:
            raise
    # Its pod is this process, which no kubelet runs: only the status is shown.
    status = {"replicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas}
    await api.patch(DEPLOYMENTS, NAMESPACE, NAME, {"status": status}, subresource="status")


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m include.local.operator", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    parser.parse_args()
    asyncio.run(_main())


if __name__ == "__main__":
    main()
