"""Delete an endpoint and prove that it is gone, on the Kubernetes and on the SageMaker plane."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from include.endpoint import names
from include.endpoint.intents import IntentLog
from include.endpoint.lifecycle import hours_and_cost
from include.endpoint.model import EndpointRef, ObjectTrace, TeardownReport
from include.endpoint.resources import (
    CLAIMS,
    DEPLOYMENTS,
    ENDPOINT_KINDS,
    INGRESSES,
    LEASES,
    PODS,
    REGISTRATIONS,
    SERVICES,
    Resource,
)
from include.errors import ConfigurationError, FailureClass, PipelineError

if TYPE_CHECKING:
    from include.catalog.plan import ReleasePlan
    from include.endpoint.clients import Clients

PATIENCE_SECONDS = 900.0
POLL_SECONDS = 0.5


@dataclass(frozen=True)
class Remnant:
    """One object of the endpoint that still exists."""

    plane: str
    kind: str
    name: str
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.kind}/{self.name}" + (f" ({self.detail})" if self.detail else "")


def teardown(
    ref: EndpointRef,
    clients: Clients,
    intents: IntentLog,
    *,
    plan: ReleasePlan | None = None,
    patience_s: float = PATIENCE_SECONDS,
) -> TeardownReport:
    """Delete the endpoint, wait until every object of it is gone, and close its intent.

    Finalizers are never stripped: that is how the SageMaker side gets orphaned.

    :param plan: unused by endpoints that name everything themselves; kept for direct deployments.
    :raises ConfigurationError: the object under this name is protected, or not ours.
    :raises PipelineError: with what is still there, when ``patience_s`` has passed.
    """
    started = time.monotonic()
    before = {(item.kind, item.name): item for item in remnants(ref, clients)}
    _delete_main(ref, clients)
    deadline = started + patience_s
    left = list(remnants(ref, clients))
    while left and time.monotonic() < deadline:
        for item in left:
            before.setdefault((item.kind, item.name), item)
        if all(item.plane == "sagemaker" for item in left):
            _sweep_sagemaker(ref, clients)
        time.sleep(POLL_SECONDS)
        left = list(remnants(ref, clients))
    if left:
        raise _stuck(ref, clients, left, time.monotonic() - started)
    hours, cost = hours_and_cost(ref.created_at, dt.datetime.now(dt.UTC), ref.hourly_price, 1)
    report = TeardownReport(
        endpoint=ref.name,
        absent=True,
        objects=tuple(_trace(item) for item in before.values()),
        gpu_hours=hours,
        cost_usd=cost,
        seconds=time.monotonic() - started,
    )
    intents.closed(ref.name, report)
    return report


def remnants(ref: EndpointRef, clients: Clients) -> Iterator[Remnant]:
    """Yield every object of the endpoint that exists now, on both planes."""
    api, space, name = clients.api, ref.namespace, ref.name
    main = ENDPOINT_KINDS[ref.kind]
    item = api.get(main, name, space)
    if item is not None and item["metadata"]["uid"] == ref.uid:
        state = str((item.get("status") or {}).get("state") or "")
        yield Remnant("kubernetes", main.kind, name, state)
    fixed: list[tuple[Resource, str, str]] = [
        (DEPLOYMENTS, space, workload) for workload in names.workload_names(name) if main is not DEPLOYMENTS
    ]
    fixed += [(SERVICES, space, names.service_name(name)), (REGISTRATIONS, space, ref.sagemaker_endpoint or name)]
    fixed += [(INGRESSES, where, ingress) for where, ingress in names.ingress_names(name, space)]
    fixed += [(CLAIMS, space, f"{name}-model"), (LEASES, space, f"bench-{name}"[:63])]
    for resource, where, object_name in fixed:
        if api.get(resource, object_name, where) is not None:
            yield Remnant("kubernetes", resource.kind, object_name)
    for pod in api.list(PODS, space, labels=f"app={name}"):
        yield Remnant("kubernetes", "Pod", pod["metadata"]["name"])
    if ref.sagemaker_endpoint:
        yield from _sagemaker_remnants(ref.sagemaker_endpoint, clients)


def _sagemaker_remnants(name: str, clients: Clients) -> Iterator[Remnant]:
    client = clients.sagemaker
    for kind, call, argument in (
        ("Endpoint", client.describe_endpoint, "EndpointName"),
        ("EndpointConfig", client.describe_endpoint_config, "EndpointConfigName"),
        ("Model", client.describe_model, "ModelName"),
    ):
        found = _described(call, **{argument: name})
        if found is not None:
            yield Remnant("sagemaker", kind, name, str(found.get("EndpointStatus", "")))


def _described(call: Any, **arguments: str) -> dict[str, Any] | None:
    from botocore.exceptions import ClientError

    try:
        answer: dict[str, Any] = call(**arguments)
    except ClientError as error:
        details = error.response["Error"]
        if details["Code"] == "ValidationException" and "could not find" in details["Message"].lower():
            return None
        raise
    return answer


def _delete_main(ref: EndpointRef, clients: Clients) -> None:
    resource = ENDPOINT_KINDS[ref.kind]
    item = clients.api.get(resource, ref.name, ref.namespace)
    if item is None or item["metadata"]["uid"] != ref.uid:
        return
    if names.is_protected(item):
        raise ConfigurationError(
            "Protected",
            f"{ref.namespace}/{ref.name} is marked {names.PROTECTED}=true",
            fix="remove the mark if it may go; it was not touched",
        )
    if not names.is_ours(item) or names.label(item, names.OWNER) != ref.owner:
        raise ConfigurationError(
            "NotOurs",
            f"{ref.namespace}/{ref.name} belongs to {names.label(item, names.OWNER) or 'somebody else'}, not to {ref.owner}",
            fix="nothing: it was not touched",
        )
    clients.api.delete(resource, ref.name, ref.namespace, uid=ref.uid)


def _sweep_sagemaker(ref: EndpointRef, clients: Clients) -> None:
    """Delete what the operator left behind: only objects of our recorded name that the operator made."""
    from botocore.exceptions import ClientError

    name, client = ref.sagemaker_endpoint, clients.sagemaker
    if name is None:
        return
    for describe, arn, delete, argument in (
        (client.describe_endpoint, "EndpointArn", client.delete_endpoint, "EndpointName"),
        (client.describe_endpoint_config, "EndpointConfigArn", client.delete_endpoint_config, "EndpointConfigName"),
        (client.describe_model, "ModelArn", client.delete_model, "ModelName"),
    ):
        found = _described(describe, **{argument: name})
        if found is None:
            continue
        tags = {tag["Key"]: tag["Value"] for tag in client.list_tags(ResourceArn=found[arn])["Tags"]}
        key, value = names.OPERATOR_TAG
        if tags.get(key) != value:
            raise ConfigurationError(
                "NotOurs",
                f"SageMaker {argument} {name!r} has no tag {key}={value}",
                fix="somebody else made it under our name; remove it by hand if it is not needed",
            )
        try:
            delete(**{argument: name})
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceInUse"):
                raise


def _stuck(ref: EndpointRef, clients: Clients, left: list[Remnant], seconds: float) -> PipelineError:
    item = clients.api.get(ENDPOINT_KINDS[ref.kind], ref.name, ref.namespace)
    finalizers = ", ".join((item or {}).get("metadata", {}).get("finalizers") or ()) or "none"
    operators = [clients.api.get(DEPLOYMENTS, name, names.OPERATOR_NAMESPACE) for name in names.OPERATOR_DEPLOYMENTS]
    running = any(((found or {}).get("status") or {}).get("availableReplicas") for found in operators)
    why = "the operator is running" if running else "the inference operator is not running"
    return PipelineError(
        "StillThere",
        f"{ref.name} was not gone after {seconds:.0f} s: {', '.join(str(item) for item in left)};"
        f" {why}; finalizers: {finalizers}; it costs ${ref.hourly_price} an hour",
        fix="start the operator and let it finish; do not strip finalizers: that orphans the SageMaker side",
        failure_class=FailureClass.TRANSIENT,
        evidence=tuple(str(item) for item in left),
    )


def _trace(item: Remnant) -> ObjectTrace:
    plane: Any = item.plane
    return ObjectTrace(plane=plane, kind=item.kind, name=item.name, existed=True, absent=True, evidence="not found")
