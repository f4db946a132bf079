"""Where an endpoint says how it is: Prometheus pages of its pods, of the operator's collector, of its nodes' GPUs."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Iterator

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.invocation import Way, addresses_of
from include.endpoint.model import EndpointRef
from include.endpoint.resources import ENDPOINT_SLICES, PODS
from include.errors import PipelineError
from include.metricspage import MetricsPage

log = logging.getLogger(__name__)

COLLECTOR_PORT = 9113
# NVIDIA's exporter as its own chart, the GPU operator and the EKS add-ons label it; one pod on each GPU node.
DCGM_LABELS = ("app=nvidia-dcgm-exporter", "app.kubernetes.io/name=dcgm-exporter")
DCGM_PORT = 9400


def metrics_pages(
    plan: ReleasePlan, ref: EndpointRef, clients: Clients, way: Way | None = None
) -> tuple[MetricsPage, ...]:
    """Return the pages: at the pods' own addresses where these can be reached, else by way of the API server.

    :param way: how those who read them reach the endpoint, instead of the cluster's ``invocation``.
    """
    direct = (way or plan.cluster.invocation) in ("service", "endpoints")
    found = _servers(plan, ref, clients) if direct else _servers_by_proxy(plan, ref, clients)
    pages = list(found)
    try:
        pages += _gpus(ref, clients, direct=direct)
    except PipelineError as error:  # reading pods of all namespaces may be denied: a benchmark does not depend on it
        log.info("no GPU metrics: %s", error)
    return tuple(pages)


def _servers(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> Iterator[MetricsPage]:
    selector = f"kubernetes.io/service-name={names.service_name(ref.name)}"
    part = plan.model.deployment.metrics
    path = (part.path if part else None) or "/metrics"
    for address, port in sorted(addresses_of(clients.api.list(ENDPOINT_SLICES, ref.namespace, labels=selector))):
        yield MetricsPage(f"http://{address}:{(part.port if part else None) or port}{path}", kind="server")
        if part is not None and part.enabled:
            yield MetricsPage(f"http://{address}:{COLLECTOR_PORT}/metrics", kind="collector")


def _servers_by_proxy(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> Iterator[MetricsPage]:
    part = plan.model.deployment.metrics
    path = (part.path if part else None) or "/metrics"
    port = (part.port if part else None) or plan.model.deployment.port
    pods = clients.api.list(PODS, ref.namespace, labels=f"app={ref.name}")
    for pod in sorted((pod for pod in pods if _runs(pod)), key=lambda pod: str(pod["metadata"]["name"])):
        yield by_proxy(clients, pod, port, path, "server")
        if part is not None and part.enabled:
            yield by_proxy(clients, pod, COLLECTOR_PORT, "/metrics", "collector")


def _runs(pod: dict[str, object]) -> bool:
    status = pod.get("status")
    return isinstance(status, dict) and status.get("phase") == "Running"


def by_proxy(clients: Clients, pod: dict[str, dict[str, str]], port: int, path: str, kind: str) -> MetricsPage:
    """Return a page of a pod as the API server passes it on; needs the right to get ``pods/proxy``."""
    configuration = clients.kube.configuration
    meta = pod["metadata"]
    place = f"/api/v1/namespaces/{meta['namespace']}/pods/{meta['name']}:{port}/proxy{path}"

    def headers() -> dict[str, str]:
        token = configuration.auth_settings().get("BearerToken", {}).get("value")
        return {"Authorization": str(token)} if token else {}

    def context() -> ssl.SSLContext:
        made = ssl.create_default_context(cafile=configuration.ssl_ca_cert)
        if not configuration.verify_ssl:
            made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
        if configuration.cert_file:
            made.load_cert_chain(configuration.cert_file, configuration.key_file)
        return made

    return MetricsPage(str(configuration.host).rstrip("/") + place, headers, context, kind)


def _gpus(ref: EndpointRef, clients: Clients, *, direct: bool) -> Iterator[MetricsPage]:
    """Yield the exporters on the nodes of the endpoint's pods, and on no others."""
    nodes = {pod["spec"].get("nodeName") for pod in clients.api.list(PODS, ref.namespace, labels=f"app={ref.name}")}
    for label in DCGM_LABELS:
        for pod in clients.api.list(PODS, labels=label):
            address = (pod.get("status") or {}).get("podIP")
            if not address or pod["spec"].get("nodeName") not in nodes:
                continue
            if direct:
                yield MetricsPage(f"http://{address}:{DCGM_PORT}/metrics", kind="gpu")
            else:
                yield by_proxy(clients, pod, DCGM_PORT, "/metrics", "gpu")
