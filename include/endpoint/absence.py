"""What still exists of an endpoint, on every plane; an empty answer is the proof of absence."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from include.endpoint import names
from include.endpoint.awsfacts import is_absent
from include.endpoint.clients import Clients
from include.endpoint.model import EndpointRef
from include.endpoint.render.direct import volume_name
from include.endpoint.resources import (
    CLAIMS,
    DEPLOYMENTS,
    ENDPOINT_KINDS,
    INGRESSES,
    LEASES,
    PODS,
    REGISTRATIONS,
    SERVICES,
    VOLUMES,
    Resource,
)
from include.errors import PipelineError

Plane = Literal["kubernetes", "sagemaker", "aws"]


@dataclass(frozen=True)
class Remnant:
    """One object of the endpoint that still exists."""

    plane: Plane
    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f" ({self.detail})" if self.detail else "")


def lease_name(endpoint: str) -> str:
    """Return the name of an endpoint's measuring lease."""
    return f"bench-{endpoint}"[: names.MAX_LABEL]


def remnants(ref: EndpointRef, clients: Clients, recorded: Recorded | None = None) -> Iterator[Remnant]:
    """Yield every object of the endpoint that exists now.

    :param recorded: what the custom resource named while it lived: load balancer and certificate.
    """
    yield from kubernetes_remnants(ref, clients)
    if ref.sagemaker_endpoint:
        yield from sagemaker_remnants(ref.sagemaker_endpoint, clients)
    if recorded is not None:
        yield from recorded.remnants(clients)


def kubernetes_remnants(ref: EndpointRef, clients: Clients) -> Iterator[Remnant]:
    """Yield what is left on the Kubernetes plane: resource, workloads, Service, Ingress, registration, volumes."""
    main = ENDPOINT_KINDS[ref.kind]
    for resource, namespace, name in [(main, ref.namespace, ref.name), *_derived(ref)]:
        item = _get(resource, name, namespace, clients)
        if item is not None:
            yield Remnant("kubernetes", resource.kind, name, _detail(item))
    for pod in clients.api.list(PODS, ref.namespace, labels=f"app in ({','.join(names.workload_names(ref.name))})"):
        yield Remnant("kubernetes", PODS.kind, pod["metadata"]["name"], _detail(pod))


def _derived(ref: EndpointRef) -> Iterator[tuple[Resource, str, str]]:
    name, namespace = ref.name, ref.namespace
    for workload in names.workload_names(name):
        if not (ref.kind == "direct" and workload == name):
            yield DEPLOYMENTS, namespace, workload
    yield DEPLOYMENTS, names.OPERATOR_NAMESPACE, names.router_name(name, namespace)
    yield SERVICES, namespace, names.service_name(name)
    yield SERVICES, names.OPERATOR_NAMESPACE, names.router_service_name(name, namespace)
    if ref.sagemaker_endpoint:
        yield REGISTRATIONS, namespace, ref.sagemaker_endpoint
    for where, ingress in names.ingress_names(name, namespace):
        yield INGRESSES, where, ingress
    yield CLAIMS, namespace, volume_name(name)
    yield LEASES, namespace, lease_name(name)
    if ref.kind == "direct":
        yield VOLUMES, "", volume_name(f"{namespace}-{name}")


def _get(resource: Resource, name: str, namespace: str, clients: Clients) -> dict[str, Any] | None:
    try:
        return clients.api.get(resource, name, namespace)
    except PipelineError as error:
        # Without the right to look into the operator's namespace its objects cannot be checked; they are owned
        # by objects that were.
        if error.reason == "AccessDenied" and namespace == names.OPERATOR_NAMESPACE:
            return None
        raise


def _detail(item: dict[str, Any]) -> str:
    status, metadata = item.get("status") or {}, item.get("metadata") or {}
    said = status.get("state") or status.get("phase") or ""
    waits = metadata.get("finalizers") if metadata.get("deletionTimestamp") else None
    return ", ".join(part for part in (str(said), f"finalizers {waits}" if waits else "") if part)


@dataclass(frozen=True)
class SageMakerKind:
    """One of the three SageMaker objects behind an endpoint, in the order of deletion."""

    kind: str
    argument: str
    arn: str


SAGEMAKER_KINDS = (
    SageMakerKind("Endpoint", "EndpointName", "EndpointArn"),
    SageMakerKind("EndpointConfig", "EndpointConfigName", "EndpointConfigArn"),
    SageMakerKind("Model", "ModelName", "ModelArn"),
)


def describe(kind: SageMakerKind, name: str, clients: Clients) -> dict[str, Any] | None:
    """Return a SageMaker object, ``None`` when it does not exist.

    :raises PipelineError: when SageMaker cannot be asked; "cannot be asked" is never taken for "gone".
    """
    from botocore.exceptions import BotoCoreError, ClientError

    client = clients.sagemaker
    call = {
        "Endpoint": client.describe_endpoint,
        "EndpointConfig": client.describe_endpoint_config,
        "Model": client.describe_model,
    }[kind.kind]
    try:
        found: dict[str, Any] = call(**{kind.argument: name})
    except ClientError as error:
        if is_absent(error):
            return None
        raise _unknown(kind, name, error) from error
    except BotoCoreError as error:
        raise _unknown(kind, name, error) from error
    return found


def _unknown(kind: SageMakerKind, name: str, error: Exception) -> PipelineError:
    return PipelineError(
        "SageMakerUnavailable",
        f"whether SageMaker {kind.kind} {name} exists cannot be told: {error}",
        fix="renew the AWS credentials and give this identity the rights in deploy/iam",
    )


def sagemaker_remnants(name: str, clients: Clients) -> Iterator[Remnant]:
    """Yield what is left on the SageMaker plane."""
    for kind in SAGEMAKER_KINDS:
        found = describe(kind, name, clients)
        if found is not None:
            yield Remnant("sagemaker", kind.kind, name, str(found.get("EndpointStatus", "")))


@dataclass(frozen=True)
class Recorded:
    """Names of AWS objects that only the custom resource knew."""

    balancer_host: str = ""
    certificate_arn: str = ""

    def remnants(self, clients: Clients) -> Iterator[Remnant]:
        """Yield the load balancer and the certificate if they exist and can be asked for."""
        from botocore.exceptions import BotoCoreError, ClientError

        from include.endpoint.awsfacts import balancer_arn

        try:
            if self.balancer_host and balancer_arn(self.balancer_host, clients):
                yield Remnant("aws", "LoadBalancer", self.balancer_host)
            if self.certificate_arn and _certificate_exists(self.certificate_arn, clients):
                yield Remnant("aws", "Certificate", self.certificate_arn)
        except (ClientError, BotoCoreError):
            return


def _certificate_exists(arn: str, clients: Clients) -> bool:
    from botocore.exceptions import ClientError

    try:
        clients.acm.describe_certificate(CertificateArn=arn)
    except ClientError as error:
        if error.response["Error"]["Code"] == "ResourceNotFoundException":
            return False
        raise
    return True
