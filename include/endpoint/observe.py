"""Look at an endpoint once, on every plane, and return the facts."""

from __future__ import annotations

import dataclasses
import datetime as dt

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.asking import Asker, text_of
from include.endpoint.awsfacts import balancer_host, sagemaker_facts, target_facts
from include.endpoint.clients import Clients
from include.endpoint.facts import Facts, LogFacts, ProbeFacts
from include.endpoint.invocation import resolve
from include.endpoint.model import EndpointRef
from include.endpoint.readiness import evaluate
from include.endpoint.resources import (
    DEPLOYMENTS,
    ENDPOINT_KINDS,
    EVENTS,
    NODES,
    PODS,
    REGISTRATIONS,
    WORKLOADS,
)
from include.endpoint.snapshot import Snapshot, decoding, facts_from, wished_logs
from include.errors import PipelineError

PROBE_TIMEOUT_S = 30.0
PROBE_PROMPT = "Hello"


def observe(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> Facts:
    """Return everything that can be known about an endpoint now; asks for a completion once all else is up.

    :raises PipelineError: when the Kubernetes API cannot be reached.
    """
    facts = facts_from(ref, plan, take_snapshot(ref, plan, clients), dt.datetime.now(dt.UTC))
    return complete(facts, ref, plan, clients)


def take_snapshot(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> Snapshot:
    """Read the endpoint's Kubernetes objects."""
    api, namespace = clients.api, ref.namespace
    apps = f"app in ({','.join(names.workload_names(ref.name))})"
    resource = api.get(ENDPOINT_KINDS[ref.kind], ref.name, namespace)
    found = (api.get(DEPLOYMENTS, name, namespace) for name in names.workload_names(ref.name))
    pods = api.list(PODS, namespace, labels=apps)
    registered = ref.sagemaker_endpoint is not None
    settled = resource is not None and bool((resource.get("status") or {}).get("state"))
    return Snapshot(
        resource=resource,
        deployments=tuple(item for item in found if item is not None),
        pods=tuple(pods),
        events=tuple(api.list(EVENTS, namespace)),
        registration=api.get(REGISTRATIONS, ref.name, namespace) if registered else None,
        queue=tuple(api.list(WORKLOADS, namespace)) if plan.cluster.queue_name else (),
        operator=None if settled or ref.kind == "direct" else operator_deployments(clients),
        nodes=own_nodes(pods, clients),
    )


def operator_deployments(clients: Clients) -> tuple[dict[str, object], ...] | None:
    """Return the operator's Deployments, ``None`` when this identity may not look."""
    try:
        return tuple(clients.api.list(DEPLOYMENTS, names.OPERATOR_NAMESPACE))
    except PipelineError as error:
        if error.reason != "AccessDenied":
            raise
        return None


def own_nodes(pods: list[dict[str, object]], clients: Clients) -> tuple[dict[str, object], ...]:
    """Return the nodes that run some pods, as far as this identity may look."""
    wanted = {str((pod.get("spec") or {}).get("nodeName") or "") for pod in pods} - {""}  # type: ignore[attr-defined]
    try:
        found = [clients.api.get(NODES, name) for name in sorted(wanted)]
    except PipelineError as error:
        if error.reason != "AccessDenied":
            raise
        return ()
    return tuple(item for item in found if item is not None)


def complete(facts: Facts, ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> Facts:
    """Add to Kubernetes facts what they call for: the AWS side, logs of what ended, a real completion.

    Blocking. Each is asked only when it can matter: AWS once the pods serve, the completion when all else is up.
    """
    facts = with_logs(facts, clients)
    verdict = evaluate(facts, facts.at)
    if verdict.state == "failed":
        return facts
    if facts.wants_registration and verdict.phase not in ("operator", "queue", "schedule", "image", "weights", "load"):
        facts = dataclasses.replace(facts, sagemaker=sagemaker_facts(ref.name, clients))
        if plan.cluster.invocation in ("alb", "sagemaker"):
            facts = dataclasses.replace(facts, targets=target_facts(balancer_host(facts), clients))
        verdict = evaluate(facts, facts.at)
    if verdict.wants_probe:
        facts = dataclasses.replace(facts, probe=probe(ref, plan, clients))
        if any(decoding(pod) for pod in facts.pods):
            # Only an answer makes prefill hand something over.
            facts = with_logs(facts, clients)
        # The probe takes time: patience and the cold start count to its end.
        facts = dataclasses.replace(facts, at=dt.datetime.now(dt.UTC))
    return facts


def with_logs(facts: Facts, clients: Clients) -> Facts:
    """Add the last lines of containers that ended or restarted."""
    logs = []
    for wish in wished_logs(facts):
        lines = clients.api.log(wish.pod, facts.namespace, wish.container, previous=wish.previous)
        if lines:
            logs.append(LogFacts(wish.pod, wish.container, lines, wish.previous))
    return dataclasses.replace(facts, logs=tuple(logs))


def probe(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> ProbeFacts:
    """Ask the endpoint for one token the way that the benchmark will."""
    now = dt.datetime.now(dt.UTC)
    try:
        asker = Asker(resolve(plan, ref, clients), clients, PROBE_TIMEOUT_S)
    except PipelineError as error:
        return ProbeFacts(ok=False, at=now, detail=error.message)
    answer = asker.infer(asker.body(PROBE_PROMPT, 1))
    spoken = answer.ok and (bool(text_of(answer.json)) or "choices" in (answer.json or {}))
    detail = "" if spoken else answer.said
    return ProbeFacts(ok=spoken, at=now, status=answer.status, detail=detail, seconds=answer.seconds)
