"""Where an endpoint says how it is: Prometheus pages of its pods, of the operator's collector, of its nodes' GPUs."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.invocation import addresses_of
from include.endpoint.model import EndpointRef
from include.endpoint.resources import ENDPOINT_SLICES, PODS
from include.errors import PipelineError

log = logging.getLogger(__name__)

COLLECTOR_PORT = 9113
# NVIDIA's exporter as its own chart, the GPU operator and the EKS add-ons label it; one pod on each GPU node.
DCGM_LABELS = ("app=nvidia-dcgm-exporter", "app.kubernetes.io/name=dcgm-exporter")
DCGM_PORT = 9400


def metrics_pages(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> tuple[str, ...]:
    """Return the URLs; none when the cluster's own addresses are out of reach here, as its ``invocation`` tells."""
    if plan.cluster.invocation not in ("service", "endpoints"):
        return ()
    pages = list(_servers(plan, ref, clients))
    try:
        pages += _gpus(ref, clients)
    except PipelineError as error:  # reading pods of all namespaces may be denied: a benchmark does not depend on it
        log.info("no GPU metrics: %s", error)
    return tuple(pages)


def _servers(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> Iterator[str]:
    selector = f"kubernetes.io/service-name={names.service_name(ref.name)}"
    part = plan.model.deployment.metrics
    path = (part.path if part else None) or "/metrics"
    for address, port in sorted(addresses_of(clients.api.list(ENDPOINT_SLICES, ref.namespace, labels=selector))):
        yield f"http://{address}:{(part.port if part else None) or port}{path}"
        if part is not None and part.enabled:
            yield f"http://{address}:{COLLECTOR_PORT}/metrics"


def _gpus(ref: EndpointRef, clients: Clients) -> Iterator[str]:
    """Yield the exporters on the nodes of the endpoint's pods, and on no others."""
    nodes = {pod["spec"].get("nodeName") for pod in clients.api.list(PODS, ref.namespace, labels=f"app={ref.name}")}
    for label in DCGM_LABELS:
        for pod in clients.api.list(PODS, labels=label):
            address = (pod.get("status") or {}).get("podIP")
            if address and pod["spec"].get("nodeName") in nodes:
                yield f"http://{address}:{DCGM_PORT}/metrics"
