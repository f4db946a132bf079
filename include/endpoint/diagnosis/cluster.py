"""Rows about the operator, the queue, nodes, time and money."""

from __future__ import annotations

import datetime as dt

from include.endpoint.diagnosis.model import (
    LEAVING,
    Diagnosis,
    Limits,
    age,
    cut,
    events_with,
    evidence_of,
    is_leaving,
    waits_for_lost_node,
)
from include.endpoint.diagnosis.registration import serving
from include.endpoint.facts import Facts
from include.errors import FailureClass

LOST = ("NodeLost", "Evicted", "Terminated", "Preempted")


def vanished(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The endpoint was deleted, replaced or is being deleted by somebody else."""
    resource, where = facts.resource, f"{facts.namespace}/{facts.name}"
    if not resource.exists:
        reason, message = "EndpointDeleted", f"{where} was deleted while it was waited for"
    elif facts.uid and resource.uid != facts.uid:
        reason, message = "EndpointReplaced", f"{where} has UID {resource.uid} now, it was created with {facts.uid}"
    elif resource.deleting_since:
        reason, message = "EndpointDeleting", f"{where} is being deleted since {resource.deleting_since:%H:%M:%S}"
    else:
        return None
    return Diagnosis(
        "vanished",
        reason,
        message,
        "find out who deleted it (audit log, reaper); start a new run",
        FailureClass.INTERNAL,
        terminal=True,
        evidence=evidence_of(facts),
    )


def over_budget(facts: Facts, now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The run has used up its money or its time to live."""
    spent, budget = facts.spent_usd, facts.budget_usd
    if spent is not None and budget is not None and spent > budget:
        message = f"{facts.name} has cost ${spent:.4f}, the budget is ${budget:.4f}"
        reason, fix = "BudgetExceeded", "raise the budget or use fewer load levels; it is torn down now"
    elif facts.expires_at is not None and now >= facts.expires_at:
        message = f"{facts.name} has reached the end of its time to live at {facts.expires_at:%Y-%m-%d %H:%M:%S} UTC"
        reason, fix = "Expired", "raise the run's time to live; it is torn down now"
    else:
        return None
    return Diagnosis("budget", reason, message, fix, FailureClass.CONFIGURATION, terminal=True)


def queued(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """Task governance has not admitted the endpoint."""
    queue = facts.queue
    if queue is None or not queue.exists or queue.admitted:
        return None
    return Diagnosis(
        "queue",
        "WaitingForQuota",
        f"{facts.name} waits in queue {facts.queued_by or '(unnamed)'}: {cut(queue.message or 'not admitted yet')}",
        "wait, raise the team's quota, or use a higher priority class",
        FailureClass.CAPACITY,
        terminal=age(facts.created_at, now) > limits.queue_s,
        evidence=evidence_of(facts),
    )


def node_leaving(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """A node of the endpoint is being replaced or rebooted, or is gone."""
    for node in facts.nodes:
        if not is_leaving(node):
            continue
        state = node.health if node.health in LEAVING else "not ready"
        return _replaced(
            facts,
            "NodeLost",
            f"node {node.name} of {facts.name} is {state}: HyperPod replaces it and its pod starts again elsewhere",
        )
    for pod in facts.pods:
        if waits_for_lost_node(pod):
            said = (
                f"pod {pod.name} waits for a node of type {facts.instance_type} that is away: {cut(pod.unschedulable)}"
            )
            return _replaced(facts, "NodeLost", said)
        if pod.reason in LOST:
            said = f"pod {pod.name} of {facts.name} was lost ({pod.reason}): {cut(pod.message or 'no message')}"
            return _replaced(facts, "PodLost", said)
    return None


def _replaced(facts: Facts, reason: str, message: str) -> Diagnosis:
    return Diagnosis(
        "node-replaced",
        reason,
        message,
        "wait for the new pod; a measurement during this time does not count and is repeated",
        FailureClass.TRANSIENT,
        terminal=False,
        evidence=evidence_of(facts),
    )


def operator_down(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """Nobody looks at the custom resource."""
    resource = facts.resource
    unseen = not resource.state or resource.observed_generation < resource.generation
    if facts.kind == "direct" or not unseen or facts.workloads:
        return None
    waited, operator = age(facts.created_at, now), facts.operator
    if operator is None or (operator.found and operator.available > 0):
        return _silent(facts, waited, limits)
    what = f"{operator.name} has no available replica" if operator.found else "its Deployment was not found"
    return Diagnosis(
        "operator-down",
        "OperatorDown",
        f"the HyperPod inference operator is down ({what}); {facts.name} has not been looked at for {waited:.0f} s",
        "bring the operator up in hyperpod-inference-system (Kueue or a scale-down may have set it to 0)",
        FailureClass.TRANSIENT,
        terminal=waited > limits.operator_silence_s,
        evidence=evidence_of(facts),
    )


def _silent(facts: Facts, waited: float, limits: Limits) -> Diagnosis | None:
    if waited <= limits.operator_silence_s:
        return None
    return Diagnosis(
        "operator-down",
        "OperatorSilent",
        f"the operator runs but has not looked at {facts.name} for {waited:.0f} s",
        "read the operator's log; it may have lost its lease or its rights",
        FailureClass.TRANSIENT,
        terminal=True,
        evidence=evidence_of(facts),
    )


def no_answer(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """Everything says healthy, and a real request is not answered."""
    probe = facts.probe
    if probe is None or probe.ok or not serving(facts):
        return None
    ready_since = max((pod.ready_at for pod in facts.pods if pod.ready_at), default=None)
    waited = age(ready_since or facts.created_at, now)
    if waited < limits.first_completion_s / 10:
        return None
    return Diagnosis(
        "no-answer",
        "CompletionRefused",
        f"{facts.name} looks healthy but has not answered a completion for {waited:.0f} s: {cut(probe.detail)}",
        "check invocation_path, port, served_model_name and the way of invoking that the cluster asks for",
        FailureClass.CONFIGURATION if 400 <= probe.status < 500 else FailureClass.TRANSIENT,
        terminal=waited > limits.first_completion_s,
        evidence=(probe.detail, *evidence_of(facts)),
    )


def deadline(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The deployment took longer than it was allowed."""
    resource = facts.resource
    allowed = facts.max_deploy_seconds
    stalled = any(
        item.type == "Progressing" and item.status == "False" and item.reason == "ProgressDeadlineExceeded"
        for workload in facts.workloads
        for item in workload.conditions
    )
    spoken = "maxdeploytime" in (resource.message + resource.reason).lower() or resource.reason == "DeploymentTimeout"
    waited = age(facts.created_at, now)
    extra = limits.registration_s if facts.wants_registration else 60.0
    waiting_in_queue = facts.queue is not None and facts.queue.exists and not facts.queue.admitted
    late = waited > allowed + extra and not waiting_in_queue
    if (serving(facts) and not late) or not (spoken or stalled or late):
        return None
    return Diagnosis(
        "deadline",
        "DeployTimeExceeded",
        f"{facts.name} is not ready after {waited:.0f} s, max_deploy_seconds is {allowed}"
        + (f": {cut(resource.message)}" if resource.message else ""),
        "raise deployment.max_deploy_seconds (large images and weights take long), or use prefetch and caches",
        FailureClass.TRANSIENT,
        terminal=True,
        evidence=evidence_of(facts),
    )


def deployment_failed(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The operator gave up, and nothing more specific is known."""
    resource = facts.resource
    if "DeploymentFailed" not in (resource.state, resource.deployment_state):
        return None
    held = [item.message for item in resource.conditions if item.status == "True" and item.message]
    said = resource.message or (held[-1] if held else "") or resource.reason or "no reason given"
    return Diagnosis(
        "deployment-failed",
        resource.reason or "DeploymentFailed",
        f"the operator gave up on {facts.name}: {cut(said)}",
        "read the evidence; correct the deployment, then start a new run",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=(*held, *evidence_of(facts, events_with(facts, reasons=("DeploymentFailed",)))),
    )


DELETED_ROWS = {"vanished": vanished, "budget": over_budget}
ROWS = {
    "queue": queued,
    "node-replaced": node_leaving,
    "operator-down": operator_down,
    "no-answer": no_answer,
    "deadline": deadline,
    "deployment-failed": deployment_failed,
}
