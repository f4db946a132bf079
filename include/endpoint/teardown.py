"""Delete an endpoint and prove that it is gone, on the Kubernetes and on the SageMaker plane."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from include.endpoint import names
from include.endpoint.absence import (
    SAGEMAKER_KINDS,
    Recorded,
    Remnant,
    describe,
    lease_name,
    remnants,
)
from include.endpoint.assemble import operator_facts, registration_facts, resource_facts
from include.endpoint.intents import Deletion, IntentLog
from include.endpoint.lifecycle import accelerators, hours_and_cost
from include.endpoint.model import EndpointRef, ObjectTrace, TeardownReport
from include.endpoint.observe import operator_deployments
from include.endpoint.render.direct import volume_name
from include.endpoint.resources import CLAIMS, ENDPOINT_KINDS, LEASES, REGISTRATIONS, SERVICES, VOLUMES, Resource
from include.errors import ConfigurationError, FailureClass, PipelineError

if TYPE_CHECKING:
    from include.catalog.plan import ReleasePlan
    from include.endpoint.clients import Clients

log = logging.getLogger(__name__)

PATIENCE_SECONDS = 900.0
POLL_SECONDS = 0.5
SAY_EVERY_SECONDS = 30.0
Say = Callable[[str], None]
Key = tuple[str, str, str]
STILL_THERE = "StillThere"


def teardown(
    ref: EndpointRef,
    clients: Clients,
    intents: IntentLog,
    *,
    plan: ReleasePlan | None = None,
    patience_s: float = PATIENCE_SECONDS,
    say: Say = log.info,
) -> TeardownReport:
    """Delete the endpoint, wait until every object of it is gone, and close its intent.

    Idempotent; one that was interrupted is gone on with, and what it saw is in the report too. Only the object with
    the reference's UID and owner is deleted, and on the SageMaker plane only what the operator made under our
    recorded name. Finalizers are never stripped: that orphans the SageMaker side. An endpoint that is held for
    debugging is left alone and reported as kept.

    :param plan: tells the number of accelerators; without it the intent does.
    :raises ConfigurationError: the object under this name is protected, or not ours; it was not touched.
    :raises PipelineError: with what is still there and why, when ``patience_s`` has passed.
    """
    deadline = time.monotonic() + patience_s
    intent = intents.find(ref.name, ref.cluster)
    devices = accelerators(plan) if plan is not None else (intent.accelerators if intent else 0)
    live = locate(ref, clients)
    if isinstance(live, TeardownReport):
        intents.closed(ref.name, live)
        return live
    if live is not None and _held_until(live) is not None:
        return _kept(ref, live)
    # Looked at before anything is deleted: what goes faster than the first poll existed too.
    deletion = intents.deleting(ref.name, ref.cluster, _before(ref, live, clients))
    recorded = Recorded(deletion.balancer_host, deletion.certificate_arn)
    seen = dict.fromkeys(deletion.seen)
    _delete(ref, live, clients)
    left = _wait(ref, clients, recorded, seen, deadline, say)
    seconds = round((dt.datetime.now(dt.UTC) - deletion.began_at).total_seconds(), 3)
    if left:
        raise _stuck(ref, clients, left, seconds)
    hours, cost = hours_and_cost(ref.created_at, dt.datetime.now(dt.UTC), ref.hourly_price, devices)
    report = TeardownReport(
        endpoint=ref.name,
        absent=True,
        objects=tuple(_trace(*key) for key in seen),
        gpu_hours=hours,
        cost_usd=cost,
        seconds=seconds,
    )
    intents.closed(ref.name, report)
    return report


def locate(ref: EndpointRef, clients: Clients) -> dict[str, Any] | TeardownReport | None:
    """Return the endpoint's main object, if it is there and ours.

    :return: ``None`` when nothing has the name; a report when another object has it now, which means that ours
        is gone and that everything of this name belongs to the other one.
    :raises ConfigurationError: when it is protected or belongs to somebody else.
    """
    item = clients.api.get(ENDPOINT_KINDS[ref.kind], ref.name, ref.namespace)
    if item is None:
        return None
    where, uid = f"{ref.namespace}/{ref.name}", item["metadata"]["uid"]
    if ref.uid and uid != ref.uid:
        detail = {"replaced_by": uid}
        evidence = f"the name has UID {uid} now"
        gone = ObjectTrace(
            plane="kubernetes", kind=ref.kind, name=ref.name, existed=False, absent=True, evidence=evidence
        )
        return TeardownReport(endpoint=ref.name, absent=True, objects=(gone,), detail=detail)
    if names.is_protected(item):
        raise ConfigurationError(
            "Protected",
            f"{where} is marked {names.PROTECTED}=true",
            fix="remove the mark if it may go; it was not touched",
        )
    if not names.is_ours(item) or names.label(item, names.OWNER) != ref.owner:
        raise ConfigurationError(
            "NotOurs",
            f"{where} belongs to {names.label(item, names.OWNER) or 'somebody else'}, not to {ref.owner}",
            fix="nothing: it was not touched",
        )
    return item


def _held_until(item: dict[str, Any]) -> dt.datetime | None:
    until = names.parse_time(names.annotation(item, names.HOLD_UNTIL))
    return until if until is not None and until > dt.datetime.now(dt.UTC) else None


def _kept(ref: EndpointRef, item: dict[str, Any]) -> TeardownReport:
    until = names.annotation(item, names.HOLD_UNTIL)
    return TeardownReport(endpoint=ref.name, absent=False, kept=True, detail={"held_until": until})


def _before(ref: EndpointRef, live: dict[str, Any] | None, clients: Clients) -> Deletion:
    recorded = _recorded(ref, live, clients)
    return Deletion(
        began_at=dt.datetime.now(dt.UTC),
        seen=tuple(_key(item) for item in remnants(ref, clients, recorded)),
        balancer_host=recorded.balancer_host,
        certificate_arn=recorded.certificate_arn,
    )


def _recorded(ref: EndpointRef, live: dict[str, Any] | None, clients: Clients) -> Recorded:
    if live is None or ref.sagemaker_endpoint is None:
        return Recorded()
    registration = clients.api.get(REGISTRATIONS, ref.sagemaker_endpoint, ref.namespace)
    custom = ((live.get("spec") or {}).get("tlsConfig") or {}).get("customCertificateConfig")
    arn = resource_facts(live).certificate_arn
    return Recorded(registration_facts(registration).alb_host, "" if custom else arn)


def _delete(ref: EndpointRef, live: dict[str, Any] | None, clients: Clients) -> None:
    if live is not None:
        clients.api.delete(ENDPOINT_KINDS[ref.kind], ref.name, ref.namespace, uid=live["metadata"]["uid"])
    own: list[tuple[Resource, str, str]] = [(LEASES, lease_name(ref.name), ref.namespace)]
    if ref.kind == "direct":
        own += [
            (SERVICES, names.service_name(ref.name), ref.namespace),
            (CLAIMS, volume_name(ref.name), ref.namespace),
            (VOLUMES, volume_name(f"{ref.namespace}-{ref.name}"), ""),
        ]
    for resource, name, namespace in own:
        item = clients.api.get(resource, name, namespace)
        if item is not None and names.label(item, names.MANAGED_BY) == names.MANAGER:
            clients.api.delete(resource, name, namespace, uid=item["metadata"]["uid"])


def _key(item: Remnant) -> Key:
    return item.plane, item.kind, item.name


def _wait(
    ref: EndpointRef,
    clients: Clients,
    recorded: Recorded,
    seen: dict[Key, None],
    deadline: float,
    say: Say,
) -> list[Remnant]:
    """Poll until nothing is left; sweep the SageMaker side once the operator has nothing more to do it with."""
    said_at, said = 0.0, ""
    while True:
        left = list(remnants(ref, clients, recorded))
        for item in left:
            seen.setdefault(_key(item))
        if not left or time.monotonic() > deadline:
            return left
        if all(item.plane == "sagemaker" for item in left) and ref.sagemaker_endpoint:
            sweep_sagemaker(ref.sagemaker_endpoint, clients)
        line = f"deleting {ref.name}: {len(left)} left: {', '.join(str(item) for item in left)}"
        if (line != said and time.monotonic() - said_at > 1) or time.monotonic() - said_at > SAY_EVERY_SECONDS:
            say(line)
            said_at, said = time.monotonic(), line
        time.sleep(POLL_SECONDS)


def sweep_sagemaker(name: str, clients: Clients) -> None:
    """Delete SageMaker objects of a recorded name that the operator made and has left behind.

    :raises ConfigurationError: when an object of this name was not made by the operator.
    """
    from botocore.exceptions import ClientError

    client = clients.sagemaker
    deletes = {
        "Endpoint": client.delete_endpoint,
        "EndpointConfig": client.delete_endpoint_config,
        "Model": client.delete_model,
    }
    for kind in SAGEMAKER_KINDS:
        found = describe(kind, name, clients)
        if found is None or found.get("EndpointStatus") == "Deleting":
            continue
        tags = operator_tags(found[kind.arn], clients)
        key, value = names.OPERATOR_TAG
        if tags.get(key) != value:
            raise ConfigurationError(
                "NotOurs",
                f"SageMaker {kind.kind} {name!r} has no tag {key}={value}",
                fix="somebody else made it under our name; it was not touched, remove it by hand if it is not needed",
            )
        try:
            deletes[kind.kind](**{kind.argument: name})
        except ClientError as error:
            # Gone in the meantime, or still in use by the one before it: the next poll looks again.
            if error.response["Error"]["Code"] not in ("ValidationException", "ResourceInUse"):
                raise


def operator_tags(arn: str, clients: Clients) -> dict[str, str]:
    """Return the tags of a SageMaker object."""
    return {tag["Key"]: tag["Value"] for tag in clients.sagemaker.list_tags(ResourceArn=arn)["Tags"]}


def _stuck(ref: EndpointRef, clients: Clients, left: list[Remnant], seconds: float) -> PipelineError:
    item = clients.api.get(ENDPOINT_KINDS[ref.kind], ref.name, ref.namespace) or {}
    finalizers = ", ".join((item.get("metadata") or {}).get("finalizers") or ()) or "none"
    found = operator_deployments(clients)
    facts = operator_facts(found) if found is not None else None
    if ref.kind == "direct":
        why, fix = "Kubernetes has not finished", "look at the objects' finalizers and at the nodes of the pods"
    elif facts is None or facts.available:
        why = f"the operator is running; finalizers: {finalizers}"
        fix = "read the operator's log for this name; do not strip finalizers: that orphans the SageMaker side"
    else:
        why = f"the inference operator is not running; finalizers: {finalizers}"
        fix = "start the operator and let it finish; do not strip finalizers: that orphans the SageMaker side"
    return PipelineError(
        STILL_THERE,
        f"{ref.name} was not gone after {seconds:.0f} s: {', '.join(str(item) for item in left)};"
        f" {why}; it costs ${ref.hourly_price} an hour",
        fix=fix,
        failure_class=FailureClass.TRANSIENT,
        evidence=tuple(str(item) for item in left),
    )


def _trace(plane: Any, kind: str, name: str) -> ObjectTrace:
    at = names.format_time(dt.datetime.now(dt.UTC))
    said = "Could not find" if plane == "sagemaker" else "not found"
    return ObjectTrace(plane=plane, kind=kind, name=name, existed=True, absent=True, evidence=f"{said} at {at}")
