"""How a request reaches an endpoint: in the cluster, through the load balancer, SageMaker or the API server."""

from __future__ import annotations

import atexit
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.assemble import registration_facts, resource_facts
from include.endpoint.clients import Clients
from include.endpoint.model import EndpointRef
from include.endpoint.resources import ENDPOINT_KINDS, ENDPOINT_SLICES, INGRESSES, REGISTRATIONS, SERVICES
from include.errors import ConfigurationError, FailureClass, PipelineError

Way = Literal["service", "endpoints", "alb", "sagemaker", "port-forward", "proxy"]
SERVICE_PORT = 443


@dataclass(frozen=True)
class Invocation:
    """Where requests go.

    :param base_url: without a trailing slash; ``base_url + path`` takes inference requests.
    :param protocol: ``openai-chat``, ``openai-completions``, ``invocations`` or ``sagemaker``.
    :param headers: may carry a bearer token: never log them or hand them to another task.
    :param ca_file: PEM file with the CA of a private certificate.
    :param direct: the base URL reaches the model server itself, so ``/v1/models`` and the health path work.
    """

    base_url: str
    path: str
    model: str
    protocol: str
    headers: dict[str, str] = field(default_factory=dict, repr=False)
    ca_file: str | None = None
    way: Way = "service"
    direct: bool = True

    def url(self, path: str | None = None) -> str:
        """Return the full URL of a path of the server, by default that of inference requests."""
        return self.base_url + (self.path if path is None else "/" + path.lstrip("/"))


def resolve(plan: ReleasePlan, ref: EndpointRef, clients: Clients, way: Way | None = None) -> Invocation:
    """Return how to reach a live endpoint.

    :param way: instead of the cluster's.
    :raises PipelineError: when the way does not exist (yet) for this endpoint.
    """
    chosen = way or plan.cluster.invocation
    deployment = plan.model.deployment
    path = "/" + deployment.invocation_path.lstrip("/")
    model = deployment.served_model_name or deployment.volume.mount_path
    common: dict[str, Any] = {"path": path, "model": model, "protocol": protocol_of(path), "way": chosen}
    resolver = {
        "service": _service,
        "endpoints": _endpoints,
        "alb": _balancer,
        "sagemaker": _sagemaker,
        "port-forward": _port_forward,
        "proxy": _proxy,
    }[chosen]
    return Invocation(**(common | resolver(plan, ref, clients)))


def protocol_of(path: str) -> str:
    """Return the protocol that a path speaks."""
    if path.endswith("/chat/completions"):
        return "openai-chat"
    return "openai-completions" if path.endswith("/completions") else "invocations"


def _service_place(plan: ReleasePlan, ref: EndpointRef) -> tuple[str, str]:
    """Namespace and name of the Service that takes requests: the router's, when there is one."""
    if plan.model.deployment.routing:
        return names.OPERATOR_NAMESPACE, names.router_service_name(ref.name, ref.namespace)
    return ref.namespace, names.service_name(ref.name)


def _service_port(namespace: str, name: str, clients: Clients) -> int:
    service = clients.api.get(SERVICES, name, namespace)
    if service is None:
        raise _not_there(f"Service {namespace}/{name}", "wait until the operator has made it")
    ports = service.get("spec", {}).get("ports") or [{"port": SERVICE_PORT}]
    return int(ports[0]["port"])


def _service(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> dict[str, Any]:
    namespace, name = _service_place(plan, ref)
    port = _service_port(namespace, name, clients)
    return {"base_url": f"http://{name}.{namespace}.svc:{port}"}


def _endpoints(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> dict[str, Any]:
    namespace, name = _service_place(plan, ref)
    slices = clients.api.list(ENDPOINT_SLICES, namespace, labels=f"kubernetes.io/service-name={name}")
    addresses = sorted(addresses_of(slices))
    if not addresses:
        raise _not_there(f"a ready address of Service {namespace}/{name}", "wait until a pod is ready")
    address, port = addresses[0]
    return {"base_url": f"http://{address}:{port}"}


def addresses_of(slices: list[dict[str, Any]]) -> Iterator[tuple[str, int]]:
    """Yield address and port of every ready endpoint of EndpointSlices."""
    for item in slices:
        ports = [int(port["port"]) for port in item.get("ports") or [] if port.get("port")]
        for endpoint in item.get("endpoints") or []:
            if ports and (endpoint.get("conditions") or {}).get("ready") is not False:
                for address in endpoint.get("addresses") or []:
                    yield address, ports[0]


def _balancer(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> dict[str, Any]:
    resource = clients.api.get(ENDPOINT_KINDS[ref.kind], ref.name, ref.namespace)
    registration = clients.api.get(REGISTRATIONS, ref.name, ref.namespace)
    host = registration_facts(registration).alb_host or _ingress_host(ref, clients)
    domains = resource_facts(resource).domain_names
    custom = plan.model.deployment.tls and plan.model.deployment.tls.domain_name
    host = custom or host or next((name for name in domains if ".elb." in name), "")
    if not host:
        raise _not_there(f"the load balancer of {ref.name}", "wait until its Ingress has an address")
    ca_file = None if custom else certificate_file(resource or {}, ref, clients)
    return {"base_url": f"https://{host}", "ca_file": ca_file}


def _ingress_host(ref: EndpointRef, clients: Clients) -> str:
    for namespace, name in names.ingress_names(ref.name, ref.namespace):
        item = clients.api.get(INGRESSES, name, namespace) or {}
        for entry in ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or []:
            if entry.get("hostname"):
                return str(entry["hostname"])
    return ""


def certificate_bytes(resource: dict[str, Any], clients: Clients) -> bytes:
    """Return the CA (PEM) that the operator wrote to S3 for an endpoint.

    :raises PipelineError: when the status names none, or it cannot be read.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    tls = (resource.get("status") or {}).get("tlsCertificate") or {}
    bucket, keys = tls.get("tlsCertificateOutputS3Bucket"), tls.get("tlsCertificateS3Keys") or []
    if not bucket or not keys:
        raise _not_there("the certificate of the endpoint in its status", "wait until the operator has written it")
    found = []
    for key in keys:
        try:
            found.append(clients.s3.get_object(Bucket=bucket, Key=key)["Body"].read())
        except (ClientError, BotoCoreError) as error:
            raise ConfigurationError(
                "CertificateUnreadable",
                f"s3://{bucket}/{key} cannot be read: {error}",
                fix="let this identity read the TLS bucket (deploy/iam)",
            ) from error
    return b"\n".join(found)


def certificate_file(resource: dict[str, Any], ref: EndpointRef, clients: Clients) -> str:
    """Write the endpoint's CA to a file that goes away with this process."""
    pem = certificate_bytes(resource, clients)
    with tempfile.NamedTemporaryFile("wb", prefix=f"hyperpod-ca-{ref.name}-", suffix=".pem", delete=False) as file:
        file.write(pem)
    atexit.register(Path(file.name).unlink, missing_ok=True)
    return file.name


def _sagemaker(_plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> dict[str, Any]:
    if ref.sagemaker_endpoint is None:
        raise ConfigurationError(
            "NotRegistered",
            f"{ref.name} has no SageMaker endpoint",
            fix="set deployment.sagemaker_endpoint to true, or the cluster's invocation to another way",
        )
    return {
        "base_url": str(clients.runtime.meta.endpoint_url).rstrip("/"),
        "path": f"/endpoints/{ref.sagemaker_endpoint}/invocations",
        "protocol": "sagemaker",
        "direct": False,
    }


def _proxy(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> dict[str, Any]:
    namespace, name = _service_place(plan, ref)
    port = _service_port(namespace, name, clients)
    configuration = clients.kube.configuration
    place = f"/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy"
    token = configuration.auth_settings().get("BearerToken", {}).get("value")
    headers = {"Authorization": str(token)} if token else {}
    return {
        "base_url": str(configuration.host).rstrip("/") + place,
        "headers": headers,
        "ca_file": configuration.ssl_ca_cert,
    }


def _port_forward(plan: ReleasePlan, ref: EndpointRef, clients: Clients) -> dict[str, Any]:
    from include.endpoint.portforward import forward

    return {"base_url": f"http://127.0.0.1:{forward(ref, clients, plan.model.deployment.port)}"}


def _not_there(what: str, fix: str) -> PipelineError:
    return PipelineError("NotReachable", f"{what} does not exist", fix=fix, failure_class=FailureClass.TRANSIENT)
