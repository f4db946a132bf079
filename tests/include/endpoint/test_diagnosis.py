"""Every row of the failure catalogue: the cause is named, with evidence and a fix, and judged terminal or not."""

from __future__ import annotations

import dataclasses
import datetime as dt
import json
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes.client.exceptions import ApiException

from include.endpoint.diagnosis import ROWS, Limits, diagnose, explain
from include.endpoint.facts import (
    Facts,
    LogFacts,
    NodeFacts,
    OperatorFacts,
    ProbeFacts,
    QueueFacts,
    RegistrationFacts,
    ResourceFacts,
    SageMakerFacts,
    TargetFacts,
)
from include.endpoint.kubeerrors import translate
from include.errors import FailureClass
from tests.include.endpoint.builders import START, condition, container, event, pod, serving_facts, starting_facts

SOON = START + dt.timedelta(seconds=5)
LATER = START + dt.timedelta(seconds=1000)


def logs(*lines: str) -> tuple[LogFacts, ...]:
    return (LogFacts("ep-1", "main", lines),)


def crashed(**fields: Any) -> Any:
    return pod(containers=(container(restarts=1, exit_code=1, terminated_reason="Error", **fields),))


def resource(**fields: Any) -> ResourceFacts:
    return dataclasses.replace(starting_facts().resource, **fields)


CASES: list[tuple[str, Facts, dt.datetime, str, FailureClass, bool, str]] = [
    (
        "unschedulable",
        starting_facts(pod(node="", unschedulable="0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")),
        SOON,
        "Unschedulable",
        FailureClass.CAPACITY,
        False,
        "nvidia.com/gpu",
    ),
    (
        "unschedulable",
        starting_facts(pod(node="", unschedulable="0/4 nodes are available: 4 Insufficient nvidia.com/gpu.")),
        LATER,
        "Unschedulable",
        FailureClass.CAPACITY,
        True,
        "ml.g5.2xlarge",
    ),
    (
        "node-replaced",
        starting_facts(
            pod(
                node="",
                unschedulable="0/1 nodes are available: 1 node(s) had untolerated taint"
                " {node.kubernetes.io/unreachable: }.",
            )
        ),
        LATER,
        "NodeLost",
        FailureClass.TRANSIENT,
        False,
        "is away",
    ),
    (
        "unschedulable",
        starting_facts(
            pod(
                node="",
                unschedulable="0/2 nodes are available: 1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint"
                " {node.kubernetes.io/not-ready: }.",
            )
        ),
        LATER,
        "Unschedulable",
        FailureClass.CAPACITY,
        True,
        "nvidia.com/gpu",
    ),
    (
        "pod-slots",
        starting_facts(pod(node="", unschedulable="0/1 nodes are available: 1 Too many pods.")),
        LATER,
        "NoPodSlot",
        FailureClass.CAPACITY,
        True,
        "Too many pods",
    ),
    (
        "pod-slots",
        starting_facts(
            pod(),
            events=(event("FailedCreatePodSandBox", "plugin aws-cni: failed to assign an IP address to container"),),
        ),
        SOON,
        "NoPodSlot",
        FailureClass.CAPACITY,
        False,
        "IP address",
    ),
    (
        "image-pull",
        starting_facts(
            pod(containers=(container(waiting_reason="ErrImagePull", waiting_message="repo/vllm:1: not found"),))
        ),
        SOON,
        "ErrImagePull",
        FailureClass.CONFIGURATION,
        True,
        "repo/vllm:1",
    ),
    (
        "image-pull",
        starting_facts(
            pod(
                containers=(container(waiting_reason="ImagePullBackOff", waiting_message="Back-off pulling image"),),
                scheduled_at=START,
            )
        ),
        SOON,
        "ImagePullBackOff",
        FailureClass.TRANSIENT,
        False,
        "Back-off",
    ),
    (
        "image-pull",
        starting_facts(
            pod(
                containers=(
                    container(waiting_reason="ImagePullBackOff", waiting_message="no match for platform in manifest"),
                )
            )
        ),
        SOON,
        "ImagePullBackOff",
        FailureClass.CONFIGURATION,
        True,
        "platform",
    ),
    (
        "mount",
        starting_facts(
            pod(),
            events=(
                event("FailedMount", "MountVolume.SetUp failed for volume x: driver name s3.csi.aws.com not found"),
            ),
        ),
        LATER,
        "VolumeMountFailed",
        FailureClass.CONFIGURATION,
        True,
        "s3.csi.aws.com",
    ),
    (
        "weights-corrupt",
        starting_facts(
            pod(), events=(event("FailedMount", "s3://b/m/files/w.gguf has sha256 aa, the manifest says bb"),)
        ),
        SOON,
        "WeightsCorrupt",
        FailureClass.INTEGRITY,
        True,
        "w.gguf",
    ),
    (
        "oom",
        starting_facts(pod(containers=(container(restarts=1, exit_code=137, terminated_reason="OOMKilled"),))),
        SOON,
        "OutOfMemory",
        FailureClass.CONFIGURATION,
        True,
        "137",
    ),
    (
        "cuda-oom",
        starting_facts(crashed(), logs=logs("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB")),
        SOON,
        "AcceleratorOutOfMemory",
        FailureClass.CONFIGURATION,
        True,
        "Tried to allocate",
    ),
    (
        "engine-dead",
        starting_facts(
            crashed(), logs=logs("vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue")
        ),
        SOON,
        "EngineDead",
        FailureClass.CONFIGURATION,
        True,
        "EngineCore",
    ),
    (
        "driver-too-old",
        starting_facts(
            crashed(),
            logs=logs("RuntimeError: The NVIDIA driver on your system is too old (found version 12040)"),
            image="vllm:cu129",
        ),
        SOON,
        "DriverTooOld",
        FailureClass.CONFIGURATION,
        True,
        "cu129",
    ),
    (
        "hub-download",
        starting_facts(
            pod(
                containers=(
                    container(
                        "hf-model-downloader", init=True, waiting_reason="CrashLoopBackOff", restarts=2, exit_code=1
                    ),
                )
            ),
            events=(event("HuggingFaceDownloadFailed", "401 Client Error: gated repo"),),
        ),
        SOON,
        "HuggingFaceDownloadFailed",
        FailureClass.CONFIGURATION,
        True,
        "gated repo",
    ),
    (
        "ca-download",
        serving_facts(
            registration=RegistrationFacts(
                True,
                "CreationFailed",
                conditions=(
                    condition(
                        "CreationCompleted", "False", "Failed", "Error downloading CA certificate: Connect timeout"
                    ),
                ),
            )
        ),
        SOON,
        "CertificateUnreachable",
        FailureClass.CONFIGURATION,
        True,
        "Connect timeout",
    ),
    (
        "execution-role",
        serving_facts(
            sagemaker=SageMakerFacts(
                True,
                "Failed",
                "Please ensure that the execution role for variant AllTraffic has sufficient permissions",
            )
        ),
        SOON,
        "ExecutionRoleDenied",
        FailureClass.CONFIGURATION,
        True,
        "AllTraffic",
    ),
    (
        "web-identity",
        starting_facts(resource=resource(message="AssumeRoleWithWebIdentity: StatusCode 403, AccessDenied")),
        SOON,
        "OperatorRoleDenied",
        FailureClass.CONFIGURATION,
        True,
        "403",
    ),
    (
        "tls-bucket",
        starting_facts(resource=resource(message="TLS certificate output: PutObject to hyperpod-tls-x: AccessDenied")),
        SOON,
        "TlsBucketNotWritable",
        FailureClass.CONFIGURATION,
        True,
        "hyperpod-tls-x",
    ),
    (
        "balancer-503",
        serving_facts(targets=TargetFacts(1, 0, ("Target.FailedHealthChecks",))),
        LATER,
        "LoadBalancerUnhealthy",
        FailureClass.TRANSIENT,
        True,
        "FailedHealthChecks",
    ),
    (
        "balancer-503",
        serving_facts(probe=ProbeFacts(False, SOON, 503, "HTTP 503: Service Unavailable")),
        START + dt.timedelta(seconds=150),
        "LoadBalancerUnhealthy",
        FailureClass.TRANSIENT,
        False,
        "503",
    ),
    (
        "registration-stuck",
        serving_facts(
            routing=True,
            sagemaker=SageMakerFacts(False),
            registration=RegistrationFacts(True, "CreationInProgress", created_at=START),
        ),
        START + dt.timedelta(seconds=1600),
        "RegistrationStuck",
        FailureClass.TRANSIENT,
        True,
        "CreationInProgress",
    ),
    (
        "registration-failed",
        serving_facts(
            registration=RegistrationFacts(
                True,
                "CreationFailed",
                conditions=(condition("CreationCompleted", "False", "Failed", "quota for endpoints reached"),),
            )
        ),
        SOON,
        "RegistrationFailed",
        FailureClass.CONFIGURATION,
        True,
        "quota for endpoints",
    ),
    (
        "kv-transfer",
        starting_facts(crashed(), logs=logs("WARNING Retrieved 0 of 4096 tokens from prefill")),
        SOON,
        "KvTransferFailed",
        FailureClass.CONFIGURATION,
        True,
        "4096",
    ),
    (
        "certificate",
        serving_facts(
            resource=dataclasses.replace(serving_facts().resource, certificate_health="Expired"),
            events=(
                event("CertificateExpired", "certificate expired yesterday", kind="InferenceEndpointConfig", name="ep"),
            ),
        ),
        SOON,
        "CertificateExpired",
        FailureClass.CONFIGURATION,
        True,
        "yesterday",
    ),
    (
        "certificate",
        serving_facts(resource=dataclasses.replace(serving_facts().resource, certificate_health="Expiring")),
        SOON,
        "CertificateExpiring",
        FailureClass.CONFIGURATION,
        False,
        "expiring",
    ),
    (
        "dns",
        serving_facts(
            resource=dataclasses.replace(
                serving_facts().resource, dns_health="Error", dns_message="hosted zone Z1 not found"
            )
        ),
        SOON,
        "DnsFailed",
        FailureClass.CONFIGURATION,
        True,
        "Z1",
    ),
    (
        "deadline",
        starting_facts(pod(), max_deploy_seconds=600, wants_registration=False),
        LATER,
        "DeployTimeExceeded",
        FailureClass.TRANSIENT,
        True,
        "600",
    ),
    (
        "queue",
        starting_facts(
            queue=QueueFacts(True, False, "couldn't assign flavors: insufficient quota"), queued_by="ml-localqueue"
        ),
        SOON,
        "WaitingForQuota",
        FailureClass.CAPACITY,
        False,
        "ml-localqueue",
    ),
    (
        "node-replaced",
        starting_facts(pod(), nodes=(NodeFacts("hyperpod-i-1", True, "UnschedulablePendingReplacement"),)),
        SOON,
        "NodeLost",
        FailureClass.TRANSIENT,
        False,
        "UnschedulablePendingReplacement",
    ),
    (
        "node-replaced",
        starting_facts(pod(reason="NodeLost", message="node is gone")),
        SOON,
        "PodLost",
        FailureClass.TRANSIENT,
        False,
        "node is gone",
    ),
    (
        "operator-down",
        starting_facts(
            resource=ResourceFacts(exists=True, uid="u1", generation=1),
            workloads=(),
            operator=OperatorFacts(True, 0, "hyperpod-inference-controller-manager"),
        ),
        LATER,
        "OperatorDown",
        FailureClass.TRANSIENT,
        True,
        "no available replica",
    ),
    (
        "operator-down",
        starting_facts(
            resource=ResourceFacts(exists=True, uid="u1", generation=1),
            workloads=(),
            operator=OperatorFacts(True, 1, "x"),
        ),
        LATER,
        "OperatorSilent",
        FailureClass.TRANSIENT,
        True,
        "has not looked",
    ),
    (
        "crash-loop",
        starting_facts(
            pod(containers=(container(restarts=3, exit_code=2, waiting_reason="CrashLoopBackOff"),)),
            logs=logs("usage: serve [-h]", "serve: error: unrecognized arguments: --foo"),
        ),
        SOON,
        "CrashLoopBackOff",
        FailureClass.CONFIGURATION,
        True,
        "--foo",
    ),
    (
        "container-config",
        starting_facts(
            pod(
                scheduled_at=START,
                containers=(
                    container(waiting_reason="CreateContainerConfigError", waiting_message='secret "hf" not found'),
                ),
            )
        ),
        LATER,
        "CreateContainerConfigError",
        FailureClass.CONFIGURATION,
        True,
        'secret "hf"',
    ),
    (
        "pods-refused",
        starting_facts(events=(event("FailedCreate", "exceeded quota: gpu-quota", kind="ReplicaSet", name="ep-abc"),)),
        LATER,
        "QuotaExceeded",
        FailureClass.CAPACITY,
        True,
        "gpu-quota",
    ),
    (
        "vanished",
        serving_facts(resource=ResourceFacts(exists=False)),
        SOON,
        "EndpointDeleted",
        FailureClass.INTERNAL,
        True,
        "default/ep",
    ),
    ("vanished", serving_facts(uid="another"), SOON, "EndpointReplaced", FailureClass.INTERNAL, True, "another"),
    (
        "vanished",
        serving_facts(resource=dataclasses.replace(serving_facts().resource, deleting_since=START)),
        SOON,
        "EndpointDeleting",
        FailureClass.INTERNAL,
        True,
        "being deleted",
    ),
    (
        "budget",
        serving_facts(spent_usd=2.5, budget_usd=2.0),
        SOON,
        "BudgetExceeded",
        FailureClass.CONFIGURATION,
        True,
        "2.5",
    ),
    ("budget", serving_facts(expires_at=START), SOON, "Expired", FailureClass.CONFIGURATION, True, "2026-11-23 12:00"),
    (
        "no-answer",
        serving_facts(probe=ProbeFacts(False, SOON, 404, "HTTP 404: no such model")),
        LATER,
        "CompletionRefused",
        FailureClass.CONFIGURATION,
        True,
        "no such model",
    ),
    (
        "deployment-failed",
        starting_facts(
            resource=resource(
                state="DeploymentFailed", conditions=(condition("DeploymentFailed", message="something odd"),)
            )
        ),
        SOON,
        "DeploymentFailed",
        FailureClass.CONFIGURATION,
        True,
        "something odd",
    ),
    (
        "data-capture",
        serving_facts(
            resource=dataclasses.replace(
                serving_facts().resource, capture_health="Unhealthy", capture_message="AccessDenied to s3://c"
            )
        ),
        SOON,
        "DataCaptureUnhealthy",
        FailureClass.CONFIGURATION,
        False,
        "s3://c",
    ),
]


@pytest.mark.parametrize(
    ("row", "facts", "now", "reason", "kind", "terminal", "said"), CASES, ids=[f"{c[0]}-{c[3]}" for c in CASES]
)
def test_row(
    row: str, facts: Facts, now: dt.datetime, reason: str, kind: FailureClass, terminal: bool, said: str
) -> None:
    found = {item.row: item for item in diagnose(facts, now)}
    assert row in found, list(found)
    diagnosis = found[row]
    assert (diagnosis.reason, diagnosis.failure_class, diagnosis.terminal) == (reason, kind, terminal)
    assert said in diagnosis.message
    assert diagnosis.fix
    assert "\n" not in diagnosis.message
    told = explain(facts, now)
    assert told is not None
    assert told.row == row, f"the user is told {told.message}"


KILLED = (container(restarts=1, exit_code=137, terminated_reason="Error"),)


@pytest.mark.parametrize(
    ("facts", "row"),
    [
        (starting_facts(pod(containers=KILLED), nodes=(NodeFacts("hyperpod-i-1", True, "Schedulable"),)), "oom"),
        (starting_facts(pod(containers=KILLED), nodes=(NodeFacts("hyperpod-i-1", False),)), "node-replaced"),
        (starting_facts(pod(containers=KILLED, deleting=True)), None),
    ],
)
def test_a_kill_is_for_memory_unless_its_node_or_its_pod_goes(facts: Facts, row: str | None) -> None:
    told = explain(facts, SOON)
    assert (told and told.row) == row


def test_every_row_of_the_catalogue_has_a_case() -> None:
    assert {case[0] for case in CASES} == set(ROWS)


def test_a_healthy_endpoint_has_no_diagnosis() -> None:
    healthy = serving_facts(
        probe=ProbeFacts(True, SOON), targets=TargetFacts(1, 1), nodes=(NodeFacts("n", True, "Schedulable", "Passed"),)
    )
    assert list(diagnose(healthy, LATER)) == []


def test_when_the_operator_gives_up_the_specific_cause_is_told_with_its_evidence() -> None:
    facts = starting_facts(
        pod(node="", unschedulable="0/4 nodes are available: 4 Insufficient cpu."),
        resource=resource(state="DeploymentFailed", message="Deployment exceeded maxDeployTime"),
        events=(event("FailedScheduling", "0/4 nodes are available: 4 Insufficient cpu."),),
    )
    told = explain(facts, SOON)
    assert told is not None
    assert (told.row, told.terminal) == ("unschedulable", True)
    assert any("exceeded maxDeployTime" in line for line in told.evidence)
    assert any("FailedScheduling" in line for line in told.evidence)


@pytest.mark.parametrize("field", ["unschedulable_s", "queue_s", "registration_s"])
def test_patience_is_configurable(field: str) -> None:
    makers: dict[str, Callable[[], Facts]] = {
        "unschedulable_s": lambda: starting_facts(pod(node="", unschedulable="Insufficient cpu")),
        "queue_s": lambda: starting_facts(queue=QueueFacts(True)),
        "registration_s": lambda: serving_facts(
            sagemaker=SageMakerFacts(False),
            registration=RegistrationFacts(True, "CreationInProgress", created_at=START),
        ),
    }
    told = explain(makers[field](), SOON, Limits(**{field: 1}))
    assert told is not None
    assert told.terminal


def test_a_dead_conversion_webhook_is_told_as_the_operator_being_down() -> None:
    said = 'conversion webhook failed: no endpoints available for service "hyperpod-inference-conversion-webhook"'
    refused = ApiException(status=500, reason="Internal Server Error")
    refused.body = json.dumps({"kind": "Status", "message": said, "reason": "InternalError", "code": 500})
    refusal = translate(refused, "POST /apis/x")
    assert refusal.error.reason == "OperatorUnavailable"
    assert refusal.error.failure_class is FailureClass.TRANSIENT
    assert not refusal.retry_call
    assert "conversion-webhook" in refusal.error.message
