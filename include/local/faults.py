"""Scripted faults of the local HyperPod: rules in a ConfigMap, read by the node agent and the operator.

A rule names endpoints (or Jobs) by a glob on their name and says what goes wrong. ``times`` limits a rule to
the first N distinct targets, by UID, and the targets that used it are written back into the ConfigMap before
the fault acts: a killed agent that starts again neither repeats nor forgets a fault.
"""

from __future__ import annotations

import fnmatch
import hashlib
import json
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import Field

from include.catalog.specs import Spec

CONFIG_MAP = "hyperpod-local-faults"
NAMESPACE = "hyperpod-inference-system"


class Fault(StrEnum):
    """What can be provoked. ``params`` of a rule are in brackets; seconds are floats."""

    # the node agent: what happens to a pod
    SLOW_DEPLOY = "slow-deploy"  # container starts after [seconds=30]
    SLOW_IMAGE_PULL = "slow-image-pull"  # the pull takes [seconds=30]
    IMAGE_PULL = "image-pull"  # ErrImagePull, then ImagePullBackOff, with [message]
    UNSCHEDULABLE = "unschedulable"  # FailedScheduling: Insufficient [resource=nvidia.com/gpu]
    TOO_MANY_PODS = "too-many-pods"  # FailedScheduling: Too many pods
    IP_EXHAUSTED = "ip-exhausted"  # FailedCreatePodSandBox: failed to assign an IP address
    MOUNT_FAILED = "mount-failed"  # FailedMount: MountVolume.SetUp failed, with [message]
    CONFIG_ERROR = "config-error"  # CreateContainerConfigError, with [message]
    OOM = "oom"  # killed with 137 / OOMKilled, [seconds=0] after the start
    CRASH_LOOP = "crash-loop"  # exits with [exit_code=1] after logging [log]
    CRASH_AFTER_READY = "crash-after-ready"  # killed (139) [seconds=0] after it became ready, [crashes=1] times
    CUDA_OOM = "cuda-oom"  # logs a CUDA out-of-memory trace, exits with 1
    ENGINE_DEAD = "engine-dead"  # logs vLLM's EngineDeadError, exits with 1
    DRIVER_TOO_OLD = "driver-too-old"  # logs that the CUDA driver is too old for the image, exits with 1
    NO_KV_TRANSFER = "no-kv-transfer"  # logs "Retrieved 0 of N tokens" and serves on
    HF_DOWNLOAD_FAILED = "hf-download-failed"  # the downloader of a huggingface source exits with 1
    NOT_READY = "not-ready"  # runs, but its readiness probe gets 503
    HANG = "hang"  # the process is stopped (SIGSTOP) [seconds=0] after it became ready
    WRONG_IMAGE_DIGEST = "wrong-image-digest"  # the container's imageID is another digest
    NODE_LOST = "node-lost"  # the pod's node goes NotReady [seconds=0] after ready, back after [back=60]
    # the operator: what happens to an endpoint
    OPERATOR_DOWN = "operator-down"  # controller Deployment at 0 replicas, nothing reconciled while the rule is there
    SLOW_STATUS = "slow-status"  # the operator first looks at the object after [seconds=10]
    KUEUE_NOT_ADMITTED = "kueue-not-admitted"  # Workload stays without quota, no pod is made
    DEPLOYMENT_FAILED = "deployment-failed"  # DeploymentFailed with [message]
    DEPLOY_TIMEOUT = "deploy-timeout"  # maxDeployTimeInSeconds is [seconds=1]; the Deployment never gets ready
    IRSA_DENIED = "irsa-denied"  # AssumeRoleWithWebIdentity 403 in the condition
    TLS_BUCKET = "tls-bucket-not-writable"  # the test object cannot be written
    STUCK_REGISTRATION = "stuck-registration"  # registration stays CreationInProgress
    SLOW_REGISTRATION = "slow-registration"  # registration completes after [seconds=30]
    REGISTRATION_FAILED = "registration-failed"  # CreationFailed with [message]
    CERT_DOWNLOAD_TIMEOUT = "cert-download-timeout"  # registration: Error downloading CA certificate
    ALB_503 = "alb-503"  # everything looks healthy, the load balancer answers 503
    DNS_ERROR = "dns-error"  # dnsStatus.dnsHealth Error
    CERT_EXPIRING = "certificate-expiring"  # certificateHealth Expiring and its event
    SCALE_LAG = "scale-lag"  # a change of replicas acts after [seconds=30]
    WRONG_IMAGE = "wrong-image"  # the Deployment runs [image] instead of the one asked for
    WRONG_REPLICAS = "wrong-replicas"  # the Deployment runs [replicas=1] instead of the number asked for
    ORPHAN_ON_DELETE = "orphan-on-delete"  # SageMaker objects stay behind
    STUCK_DELETE = "stuck-delete"  # the finalizer stays, state DeletionInProgress
    DELETE_FAILED = "delete-failed"  # state DeletionFailed, the finalizer stays


class Rule(Spec):
    """One scripted fault.

    :param id: key of the rule in the ConfigMap.
    :param match: glob on the name of the custom resource, Deployment or Job, or on ``namespace/name``.
    :param times: number of distinct targets that it hits; ``None``: all.
    :param used: UIDs of the targets that it has hit, only kept when ``times`` is set.
    """

    id: str = Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=63)
    match: str = "*"
    kind: Fault
    params: dict[str, str] = Field(default_factory=dict)
    times: int | None = Field(None, ge=1)
    used: tuple[str, ...] = ()

    def matches(self, namespace: str, name: str) -> bool:
        """True when the glob covers the target."""
        return fnmatch.fnmatchcase(name, self.match) or fnmatch.fnmatchcase(f"{namespace}/{name}", self.match)

    def number(self, name: str, default: float) -> float:
        """A numeric parameter."""
        return float(self.params.get(name, default))

    def text(self, name: str, default: str) -> str:
        """A text parameter."""
        return self.params.get(name, default)


def new_rule(match: str, kind: str, params: dict[str, str], times: int | None = None) -> Rule:
    """Build a rule whose id follows from its content.

    :raises pydantic.ValidationError: for an unknown kind or ``times`` below 1.
    """
    identity = json.dumps([match, kind, sorted(params.items()), times])
    suffix = hashlib.sha256(identity.encode()).hexdigest()[:8]
    return Rule(id=f"{kind}-{suffix}", match=match, kind=Fault(kind), params=params, times=times)


def dump_rules(rules: Iterable[Rule]) -> dict[str, str]:
    """Return the ``data`` of the ConfigMap."""
    return {rule.id: rule.model_dump_json(exclude={"id"}, exclude_defaults=True) for rule in rules}


def load_rules(config_map: dict[str, Any] | None) -> tuple[Rule, ...]:
    """Return the rules in a ConfigMap; ``None`` or no data means none.

    :raises ValueError: naming the rule that cannot be read.
    """
    rules = []
    for rule_id, text in sorted(((config_map or {}).get("data") or {}).items()):
        try:
            rules.append(Rule.model_validate(json.loads(text) | {"id": rule_id}))
        except (ValueError, TypeError) as error:
            raise ValueError(f"fault rule {rule_id!r} in ConfigMap {CONFIG_MAP}: {error}") from error
    return tuple(rules)


def find(rules: Iterable[Rule], kind: Fault, namespace: str, name: str, uid: str) -> Rule | None:
    """Return the first rule of a kind that covers a target and is not used up by others."""
    for rule in rules:
        covered = rule.kind == kind and rule.matches(namespace, name)
        if covered and (rule.times is None or uid in rule.used or len(rule.used) < rule.times):
            return rule
    return None


def claim(rule: Rule, uid: str) -> Rule | None:
    """Return the rule with ``uid`` among its targets; ``None`` when nothing needs to be written."""
    if rule.times is None or uid in rule.used:
        return None
    return rule.model_copy(update={"used": (*rule.used, uid)})
