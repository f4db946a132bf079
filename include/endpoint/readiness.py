"""Is the endpoint ready? One pure function over observed facts.

Ready means: the operator has finished this generation, every pod is ready, the registration is complete and the
SageMaker endpoint in service, the load balancer's targets are healthy, and a real completion came back. An
unknown word of the operator is pending, never an error: new versions add words.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from include.endpoint.diagnosis import Limits, explain
from include.endpoint.diagnosis.registration import serving
from include.endpoint.facts import Facts, PodFacts
from include.errors import FailureClass

__all__ = ["Limits", "Readiness", "evaluate"]

KNOWN_STATES = frozenset(
    {
        "", "DeploymentPending", "DeploymentInProgress", "DeploymentFailed", "DeploymentComplete",
        "DeletionPending", "DeletionInProgress", "DeletionFailed", "DeletionComplete",
    }
)  # fmt: skip
PROBE = "first completion"


@dataclass(frozen=True)
class Readiness:
    """The verdict at one moment.

    :param phase: what is being waited for: ``operator``, ``queue``, ``schedule``, ``image``, ``weights``, ``load``,
        ``registration``, ``load balancer``, ``first completion``; ``ready`` or ``failed`` at the end.
    :param message: one line for the log; does not change unless something happened.
    :param failure_class: set when ``state`` is ``failed``.
    """

    state: Literal["pending", "ready", "failed"]
    phase: str
    reason: str = ""
    message: str = ""
    fix: str = ""
    failure_class: FailureClass | None = None
    evidence: tuple[str, ...] = ()
    row: str = ""

    @property
    def line(self) -> str:
        """``<phase>: <message>``."""
        return f"{self.phase}: {self.message}"

    @property
    def wants_probe(self) -> bool:
        """True when only a real completion is missing."""
        return self.state == "pending" and self.phase == PROBE


def evaluate(facts: Facts, now: dt.datetime, limits: Limits | None = None) -> Readiness:
    """Judge an endpoint.

    :param now: aware; patience is counted against it, so that old facts can be judged again.
    """
    cause = explain(facts, now, limits)
    if cause is not None and cause.terminal:
        return Readiness(
            "failed",
            "failed",
            cause.reason,
            cause.message,
            cause.fix,
            cause.failure_class,
            cause.evidence,
            cause.row,
        )
    for gate in GATES:
        waiting = gate(facts)
        if waiting is not None:
            phase, message = waiting
            if cause is None or cause.row == "data-capture":
                return Readiness("pending", phase, message=message)
            return Readiness(
                "pending", phase, cause.reason, cause.message, cause.fix, evidence=cause.evidence, row=cause.row
            )
    return Readiness("ready", "ready", message=_summary(facts))


Waiting = tuple[str, str]


def _operator(facts: Facts) -> Waiting | None:
    resource = facts.resource
    if facts.kind == "direct":
        return None
    if not resource.state and not resource.deployment_state:
        return "operator", "the operator has not looked at it yet"
    if resource.observed_generation < resource.generation:
        return "operator", f"the operator is at generation {resource.observed_generation} of {resource.generation}"
    return None


def _queue(facts: Facts) -> Waiting | None:
    queue = facts.queue
    if queue is None or not queue.exists or queue.admitted:
        return None
    return "queue", f"waiting for quota in {facts.queued_by or 'the queue'}"


def _pods(facts: Facts) -> Waiting | None:
    if not facts.workloads:
        return "operator", "no Deployment yet"
    if serving(facts) and all(item.observed_generation >= item.generation for item in facts.workloads):
        return None
    ready = sum(item.ready for item in facts.workloads)
    wanted = sum(item.replicas for item in facts.workloads)
    waiting = [pod for pod in facts.pods if not pod.ready and not pod.deleting]
    if not waiting:
        return "schedule", f"{ready} of {wanted} pods ready; the next one is being made"
    phase, message = _pod_phase(waiting[0])
    return phase, f"{ready} of {wanted} pods ready; {waiting[0].name} {message}"


def _pod_phase(pod: PodFacts) -> Waiting:
    if not pod.node:
        return "schedule", "waits for a node"
    unfinished = [item for item in pod.containers if item.init and item.exit_code is None and not item.ready]
    if unfinished:
        return "weights", f"runs {unfinished[0].name} on {pod.node}"
    pulling = [item for item in pod.containers if item.waiting_reason]
    if pulling:
        return "image", f"prepares {pulling[0].name} on {pod.node} ({pulling[0].waiting_reason})"
    if any(item.started_at for item in pod.containers if not item.init):
        return "load", f"loads the model on {pod.node}"
    return "image", f"starts on {pod.node}"


def _state(facts: Facts) -> Waiting | None:
    state = facts.resource.state
    if facts.kind == "direct" or state == "DeploymentComplete":
        return None
    unknown = "" if state in KNOWN_STATES else " (a word that this version does not know)"
    return "operator", f"pods are ready; the operator says {state or 'nothing'}{unknown}"


def _registration(facts: Facts) -> Waiting | None:
    if not facts.wants_registration:
        return None
    operator_says = facts.resource.registration_state
    registered, endpoint = facts.registration, facts.sagemaker
    if endpoint is not None:
        if endpoint.exists and endpoint.status == "InService":
            return None
        status = endpoint.status if endpoint.exists else "does not exist yet"
        return "registration", f"SageMaker endpoint {facts.name}: {status}"
    if registered is not None and registered.exists and registered.state != "CreationCompleted":
        return "registration", f"registration is {registered.state or 'not looked at yet'}"
    if operator_says != "CreationCompleted" and not (registered and registered.state == "CreationCompleted"):
        return "registration", f"SageMaker side is {operator_says or 'not started'}"
    return None


def _targets(facts: Facts) -> Waiting | None:
    targets = facts.targets
    if targets is None or targets.skipped:
        return None
    if targets.total and targets.healthy >= targets.total:
        return None
    why = f" ({', '.join(targets.reasons)})" if targets.reasons else ""
    return "load balancer", f"{targets.healthy} of {targets.total} targets healthy{why}"


def _completion(facts: Facts) -> Waiting | None:
    probe = facts.probe
    if probe is None:
        return PROBE, "everything is up; asking for a first completion"
    return None if probe.ok else (PROBE, f"not answering yet: {probe.detail}")


GATES: tuple[Callable[[Facts], Waiting | None], ...] = (
    _queue,
    _operator,
    _pods,
    _state,
    _registration,
    _targets,
    _completion,
)


def _summary(facts: Facts) -> str:
    seconds = (facts.at - facts.created_at).total_seconds()
    ready = sum(item.ready for item in facts.workloads)
    took = facts.probe.seconds if facts.probe else 0.0
    return f"{ready} pod(s) serving after {seconds:.1f} s; first completion in {took:.2f} s"
