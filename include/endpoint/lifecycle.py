"""Create or adopt an endpoint; hold it; make it permanent. Nothing here waits."""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import Any, Protocol

from include.canonical import digest
from include.catalog.plan import ReleasePlan
from include.catalog.specs import JsonObject
from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.model import EndpointRef
from include.endpoint.render.parts import autoscaling
from include.endpoint.resources import DIRECT_KINDS, ENDPOINT_KINDS
from include.errors import ConfigurationError, PipelineError
from include.staging.model import StagedModel

ACCELERATOR_MARKS = ("/gpu", "/mig-", "neuron")


def create_endpoint(plan: ReleasePlan, staged: StagedModel | None, clients: Clients, intents: IntentLog) -> EndpointRef:
    """Create the planned endpoint, or adopt the one that an earlier try of the same run created.

    The intent is written first. Safe to call again after any crash.

    :param staged: ``None`` when there is nothing to stage (JumpStart, Hugging Face in the pod).
    :raises ConfigurationError: the name is taken by something that this run does not own, or that was
        made from another specification; the API refused the object.
    """
    resource = ENDPOINT_KINDS[plan.model.deployment.kind]
    namespace = plan.cluster.namespace
    intent = intents.open(plan)
    body = main_object(plan, staged, expires_at=intent.expires_at)
    adopted = False
    try:
        found = clients.api.create(resource, body, namespace)
    except LookupError as error:
        raise ConfigurationError(
            "OperatorMissing",
            f"cluster {plan.cluster.name!r} does not serve {resource.kind} ({resource.api_version})"
            f" or has no namespace {namespace!r}",
            fix="install the HyperPod inference operator and create the namespace; preflight tells which",
        ) from error
    except PipelineError as error:
        if error.reason != "AlreadyExists":
            raise
        existing = clients.api.get(resource, plan.endpoint_name, namespace)
        if existing is None:
            raise
        found, adopted = _adopted(existing, body, plan), True
    ref = reference(plan, found, adopted=adopted)
    intents.created(ref.name, ref.uid)
    if plan.model.deployment.kind == "direct":
        _create_companions(plan, staged, found, clients)
    return ref


def main_object(plan: ReleasePlan, staged: StagedModel | None, *, expires_at: dt.datetime) -> JsonObject:
    """Return the object to create: the planned one, with what became known since."""
    planned = plan.custom_resource
    body: JsonObject = copy.deepcopy(planned["items"][0] if planned["kind"] == "List" else planned)
    annotations = body["metadata"].setdefault("annotations", {})
    annotations |= {
        names.SPEC_DIGEST: spec_digest(plan),
        names.PLAN_DIGEST: plan.digest,
        names.EXPIRES_AT: names.format_time(expires_at),
        names.HOURLY_USD: str(plan.hourly_price),
        names.RESULTS_URI: plan.cluster.results_uri,
    }
    if staged is not None:
        annotations[names.MANIFEST_DIGEST] = staged.manifest_digest
        template = body["spec"].get("template") if planned["kind"] == "List" else None
        if template:
            template["metadata"].setdefault("annotations", {})[names.MANIFEST_DIGEST] = staged.manifest_digest
    return body


def spec_digest(plan: ReleasePlan) -> str:
    """Return ``sha256:<hex>`` of what is asked of the cluster: the rendered specifications."""
    planned = plan.custom_resource
    specs = [item["spec"] for item in planned["items"]] if planned["kind"] == "List" else planned["spec"]
    return digest(specs)


def _adopted(existing: JsonObject, wanted: JsonObject, plan: ReleasePlan) -> JsonObject:
    name = f"{plan.cluster.namespace}/{plan.endpoint_name}"
    owner = names.label(existing, names.OWNER)
    if not names.is_ours(existing) or owner != plan.run.owner:
        raise ConfigurationError(
            "NameTaken",
            f"{name} exists and belongs to {owner or 'somebody else'}, not to {plan.run.owner}",
            fix="delete it yourself if it is yours, or rename the model; it was not touched",
        )
    theirs, ours = names.annotation(existing, names.SPEC_DIGEST), names.annotation(wanted, names.SPEC_DIGEST)
    if theirs != ours:
        raise ConfigurationError(
            "SpecChanged",
            f"{name} was created from {theirs or 'an unknown specification'}, the plan says {ours}",
            fix="start a new run: a run keeps the plan that it began with",
        )
    if names.metadata_of(existing).get("deletionTimestamp"):
        raise PipelineError(
            "BeingDeleted",
            f"{name} is being deleted",
            fix="wait until it is gone; the retry creates it again",
        )
    return existing


def reference(plan: ReleasePlan, item: JsonObject, *, adopted: bool) -> EndpointRef:
    """Return the reference to a created object; times are the API server's."""
    metadata = item["metadata"]
    created = names.parse_time(metadata.get("creationTimestamp")) or dt.datetime.now(dt.UTC)
    expires = names.parse_time(names.annotation(item, names.EXPIRES_AT))
    return EndpointRef(
        cluster=plan.cluster.name,
        namespace=plan.cluster.namespace,
        kind=plan.model.deployment.kind,
        name=metadata["name"],
        uid=metadata["uid"],
        owner=plan.run.owner,
        spec_digest=spec_digest(plan),
        created_at=created,
        expires_at=expires or created + dt.timedelta(seconds=plan.ttl_seconds),
        hourly_price=plan.hourly_price,
        adopted=adopted,
        sagemaker_endpoint=sagemaker_name(plan),
        served_model_name=plan.model.deployment.served_model_name,
    )


def sagemaker_name(plan: ReleasePlan) -> str | None:
    """Return the name of the SageMaker endpoint that the plan asks for, ``None`` when it asks for none."""
    deployment = plan.model.deployment
    asked = deployment.sagemaker_endpoint and deployment.kind != "direct"
    return plan.endpoint_name if asked else None


def accelerators(plan: ReleasePlan) -> int:
    """Return how many accelerators (GPUs, MIG partitions, Neuron devices) all replicas ask for together."""
    deployment = plan.model.deployment
    pools = deployment.disaggregation
    if pools:
        sides = ((pools.prefill.resources, pools.prefill.replicas), (pools.decode.resources, pools.decode.replicas))
        return sum(_devices(amounts) * replicas for amounts, replicas in sides)
    return _devices(deployment.resources) * deployment.replicas


def _devices(amounts: Any) -> int:
    limits = {**amounts.get("requests", {}), **amounts.get("limits", {})}
    return sum(
        int(count)
        for name, count in limits.items()
        if any(mark in name for mark in ACCELERATOR_MARKS) and str(count).isdigit()
    )


def _create_companions(plan: ReleasePlan, staged: StagedModel | None, deployment: JsonObject, clients: Clients) -> None:
    owner = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "name": deployment["metadata"]["name"],
        "uid": deployment["metadata"]["uid"],
    }
    for planned in plan.custom_resource["items"][1:]:
        resource, body = DIRECT_KINDS[planned["kind"]], copy.deepcopy(planned)
        if staged is not None:
            body["metadata"].setdefault("annotations", {})[names.MANIFEST_DIGEST] = staged.manifest_digest
        if resource.namespaced:
            body["metadata"]["ownerReferences"] = [owner]
        namespace = plan.cluster.namespace if resource.namespaced else ""
        try:
            clients.api.create(resource, body, namespace)
        except PipelineError as error:
            if error.reason != "AlreadyExists":
                raise
            existing = clients.api.get(resource, body["metadata"]["name"], namespace) or {}
            if names.label(existing, names.OWNER) != plan.run.owner:
                raise ConfigurationError(
                    "NameTaken",
                    f"{resource.kind} {body['metadata']['name']} exists and is not this run's",
                    fix="delete it yourself if it is yours; it was not touched",
                ) from error


class Located(Protocol):
    """What names one object on the cluster, and no other that may get its name later."""

    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def namespace(self) -> str: ...  # noqa: D102
    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def uid(self) -> str: ...  # noqa: D102


def hold(ref: Located, clients: Clients, until: dt.datetime) -> None:
    """Keep an endpoint for debugging until a time; teardown and reaper leave it alone until then."""
    text = names.format_time(until)
    annotations = {names.HOLD_UNTIL: text, names.EXPIRES_AT: text}
    _annotate(ref, clients, annotations)


def release_hold(ref: Located, clients: Clients) -> None:
    """Give a held or kept endpoint back: it expires now."""
    now = names.format_time(dt.datetime.now(dt.UTC))
    _annotate(ref, clients, {names.HOLD_UNTIL: None, names.KEPT: None, names.EXPIRES_AT: now})


def promote(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> bool:
    """Turn a measured endpoint into a serving one: switch on the autoscaling that the benchmark left out.

    :return: True when there was something to switch on.
    """
    deployment = plan.model.deployment
    spec: JsonObject = {}
    if deployment.autoscaling is not None:
        spec["autoScalingSpec"] = autoscaling(deployment.autoscaling)
    if deployment.router_autoscaling is not None:
        spec["intelligentRoutingSpec"] = {"autoScalingSpec": autoscaling(deployment.router_autoscaling)}
    if deployment.kind == "direct" or not spec:
        return False
    body = {"metadata": {"uid": ref.uid}, "spec": spec}
    clients.api.patch(ENDPOINT_KINDS[ref.kind], ref.name, body, ref.namespace)
    return True


def mark_kept(ref: EndpointRef, clients: Clients, *, results_uri: str) -> None:
    """Mark an endpoint as kept on purpose: it outlives its run, until it expires."""
    _annotate(ref, clients, {names.KEPT: "true", names.RESULTS_URI: results_uri})


def _annotate(ref: Located, clients: Clients, annotations: Mapping[str, str | None]) -> None:
    body = {"metadata": {"uid": ref.uid, "annotations": dict(annotations)}}
    try:
        clients.api.patch(ENDPOINT_KINDS[ref.kind], ref.name, body, ref.namespace)
    except LookupError as error:
        raise PipelineError(
            "EndpointGone", f"{ref.namespace}/{ref.name} does not exist any more", fix="start a new run"
        ) from error


def hours_and_cost(created: dt.datetime, ended: dt.datetime, hourly: Decimal, devices: int) -> tuple[float, Decimal]:
    """Return accelerator-hours and USD of an endpoint's life."""
    from include.results.cost import cost_usd

    seconds = max((ended - created).total_seconds(), 0.0)
    return round(devices * seconds / 3600, 6), cost_usd(hourly, seconds)
