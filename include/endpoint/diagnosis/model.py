"""A diagnosis, the patience of each wait, and the evidence that goes with a verdict."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from include.endpoint.facts import EventFacts, Facts, NodeFacts, PodFacts
from include.errors import FailureClass

MOST_EVENTS, MOST_LINES = 8, 12
LEAVING = ("UnschedulablePendingReplacement", "UnschedulablePendingReboot", "Unschedulable")


@dataclass(frozen=True)
class Limits:
    """Patience in seconds (and restarts): after it, a wait counts as failed.

    :param queue_s: waiting for quota is normal, so it is long.
    :param registration_s: from the deployment being complete to InService.
    """

    operator_silence_s: float = 180
    unschedulable_s: float = 900
    queue_s: float = 6 * 3600
    image_pull_s: float = 120
    mount_s: float = 180
    config_s: float = 30
    restarts: int = 3
    registration_s: float = 1500
    targets_s: float = 600
    first_completion_s: float = 300


@dataclass(frozen=True)
class Diagnosis:
    """One cause.

    :param row: name of the row of the catalogue.
    :param terminal: waiting longer cannot help, or has been tried long enough.
    """

    row: str
    reason: str
    message: str
    fix: str
    failure_class: FailureClass
    terminal: bool
    evidence: tuple[str, ...] = ()


def is_leaving(node: NodeFacts) -> bool:
    """True when a node is being replaced or rebooted, or is gone."""
    return not node.ready or node.health in LEAVING


def waits_for_lost_node(pod: PodFacts) -> bool:
    """True when the only nodes that would take the pod are away: the taints that Kubernetes gives to those."""
    said = pod.unschedulable
    away = any(f"node.kubernetes.io/{taint}" in said for taint in ("unreachable", "not-ready"))
    return away and "Insufficient" not in said


def age(since: dt.datetime | None, now: dt.datetime) -> float:
    """Return seconds since a moment, 0 when it is unknown or in the future."""
    return max((now - since).total_seconds(), 0.0) if since else 0.0


def events_with(facts: Facts, *needles: str, reasons: Iterable[str] = ()) -> list[EventFacts]:
    """Return the events whose text contains one of ``needles`` (any case) or whose reason is one of ``reasons``."""
    lowered, wanted = [needle.lower() for needle in needles], set(reasons)
    return [
        event
        for event in facts.events
        if event.reason in wanted or any(needle in event.message.lower() for needle in lowered)
    ]


def oldest(events: Iterable[EventFacts]) -> dt.datetime | None:
    """Return when the first of some events was first seen."""
    return min((event.first_at for event in events if event.first_at), default=None)


def evidence_of(facts: Facts, events: Iterable[EventFacts] = ()) -> tuple[str, ...]:
    """Return raw lines: the given (else the warning) events, container states, and the last log lines."""
    chosen = list(events) or [event for event in facts.events if event.type == "Warning"]
    lines = [event.line for event in chosen[-MOST_EVENTS:]]
    for pod in facts.pods:
        for container in pod.containers:
            if container.waiting_reason:
                said = container.waiting_message or "no message"
                lines.append(f"Pod/{pod.name} {container.name} waiting: {container.waiting_reason}: {said}")
            if container.terminated_reason:
                code = container.exit_code
                lines.append(f"Pod/{pod.name} {container.name} ended: {container.terminated_reason}, exit code {code}")
    for log in facts.logs:
        lines += [f"{log.pod} {log.container}| {line}" for line in log.lines[-MOST_LINES:]]
    return tuple(dict.fromkeys(lines))


def first_line_with(lines: Iterable[str], *needles: str) -> str | None:
    """Return the first line that contains one of ``needles`` (any case)."""
    lowered = [needle.lower() for needle in needles]
    return next((line for line in lines if any(needle in line.lower() for needle in lowered)), None)


def cut(text: str, limit: int = 400) -> str:
    """Return a text on one line, shortened."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"
