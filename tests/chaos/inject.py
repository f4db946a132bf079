"""How each target is hit: SIGKILL of a process, or an API that refuses the next calls."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from typing import Any

from include.local.aws.faults import ApiFault
from include.local.demo import Stack
from tests.chaos.census import kube
from tests.chaos.matrix import Injection
from tests.workers import kill_workers

HITS = 3
PATIENCE_S = 20
# The operator deletes its objects and forgets SageMaker's, which bill on.
ORPHANS = "operator-orphans"
ENDPOINTS = {"resource": "inferenceendpointconfigs"}
# The real API server's answers; each hits the next calls about endpoints, whoever makes them.
KUBE_RULES: dict[str, dict[str, Any]] = {
    "kube-500": {"match": ENDPOINTS, "action": "status", "code": 500},
    "kube-409": {"match": {**ENDPOINTS, "verb": "[cpu]*"}, "action": "status", "code": 409, "times": 1},
    "kube-429": {"match": ENDPOINTS, "action": "status", "code": 429, "retry_after": 1},
    "kube-timeout": {"match": ENDPOINTS, "action": "hang", "seconds": PATIENCE_S},
    "kube-reset": {"match": ENDPOINTS, "action": "reset"},
    "kube-lost-answer": {"match": {**ENDPOINTS, "verb": "[cd]*"}, "action": "reset", "after": True, "times": 1},
    "kube-expired-watch": {"match": {**ENDPOINTS, "verb": "watch"}, "action": "expire"},
    "kube-expired-credentials": {"match": ENDPOINTS, "action": "status", "code": 401},
}
AWS_KINDS = {
    "aws-timeout": "timeout",
    "aws-throttle": "throttle",
    "aws-500": "internal-error",
    "aws-reset": "reset",
    "aws-lost-answer": "lost-answer",
    "aws-expired-token": "expired-token",
}


@dataclass(frozen=True)
class Armed:
    """A refusal that waits for its first call."""

    injection: Injection
    rule: Any


def kill(stack: Stack, injection: Injection) -> bool:
    """SIGKILL the target; false when there was nothing to kill."""
    target = injection.point.target
    if target == "worker":
        return bool(kill_workers(stack))
    processes = stack.airflow.processes if target in stack.airflow.processes else stack.hyperpod.processes
    process = processes[target]
    if process.poll() is not None:
        return False
    os.kill(process.pid, signal.SIGKILL)
    return True


def arm(stack: Stack, injection: Injection) -> Armed:
    """Make an API refuse its next calls."""
    target = injection.point.target
    if target in AWS_KINDS:
        fault = ApiFault.model_validate(
            {"kind": AWS_KINDS[target], "service": "sagemaker", "times": HITS, "seconds": PATIENCE_S}
        )
        return Armed(injection, stack.faults.add_api(fault).id)
    if target == ORPHANS:
        return Armed(injection, stack.faults.add_cluster("orphan-on-delete", "*", {}, times=1).id)
    listed = kube(stack).call("POST", "_local/faults", {"times": HITS, **KUBE_RULES[target]})
    return Armed(injection, listed["faults"][-1]["id"])


def has_hit(stack: Stack, armed: Armed) -> bool:
    """True when a refusal has met a call."""
    if armed.injection.point.target in AWS_KINDS:
        left = {rule["id"]: rule["times"] for rule in stack.faults.api()}
        return bool(left.get(armed.rule, 0) < HITS)
    if armed.injection.point.target == ORPHANS:
        return any(rule.id == armed.rule and rule.used for rule in stack.faults.cluster())
    return any(
        rule["id"] == armed.rule and rule["fired"] for rule in kube(stack).call("GET", "_local/faults")["faults"]
    )


def disarm(stack: Stack) -> None:
    """Let every API answer again."""
    kube(stack).call("DELETE", "_local/faults")
    stack.faults.clear()
