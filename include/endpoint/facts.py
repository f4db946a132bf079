"""What was observed of an endpoint at one moment: frozen, complete, without judgement.

``None`` means "not looked at"; an object that was looked for and is not there says so itself (``exists``).
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Condition:
    """A Kubernetes condition."""

    type: str
    status: str
    reason: str = ""
    message: str = ""
    since: dt.datetime | None = None


@dataclass(frozen=True)
class ResourceFacts:
    """The endpoint's main object: the custom resource, or the Deployment of a direct one.

    :param state: the operator's word, free text; see the definition's enum.
    :param deployment_state: the operator's view of the Deployment, free text.
    :param registration_state: the operator's view of the SageMaker side, free text.
    """

    exists: bool = False
    uid: str = ""
    generation: int = 0
    observed_generation: int = 0
    created_at: dt.datetime | None = None
    deleting_since: dt.datetime | None = None
    finalizers: tuple[str, ...] = ()
    state: str = ""
    deployment_state: str = ""
    reason: str = ""
    message: str = ""
    conditions: tuple[Condition, ...] = ()
    registration_state: str = ""
    arns: tuple[str, ...] = ()
    certificate_health: str = ""
    certificate_arn: str = ""
    domain_names: tuple[str, ...] = ()
    dns_health: str = ""
    dns_message: str = ""
    capture_health: str = ""
    capture_message: str = ""
    spec: dict[str, Any] = field(default_factory=dict, hash=False)
    annotations: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class ContainerFacts:
    """One container of a pod, init or not."""

    name: str
    init: bool
    ready: bool
    restarts: int
    image: str = ""
    image_id: str = ""
    waiting_reason: str = ""
    waiting_message: str = ""
    terminated_reason: str = ""
    terminated_message: str = ""
    exit_code: int | None = None
    started_at: dt.datetime | None = None
    finished_at: dt.datetime | None = None


@dataclass(frozen=True)
class PodFacts:
    """One pod of the endpoint."""

    name: str
    uid: str
    phase: str
    node: str = ""
    created_at: dt.datetime | None = None
    scheduled_at: dt.datetime | None = None
    initialized_at: dt.datetime | None = None
    ready_at: dt.datetime | None = None
    deleting: bool = False
    ready: bool = False
    reason: str = ""
    message: str = ""
    unschedulable: str = ""
    containers: tuple[ContainerFacts, ...] = ()
    labels: dict[str, str] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class EventFacts:
    """One event about an object of the endpoint."""

    reason: str
    message: str
    kind: str
    name: str
    type: str = "Normal"
    count: int = 1
    first_at: dt.datetime | None = None
    last_at: dt.datetime | None = None

    @property
    def line(self) -> str:
        """``<kind>/<name> <reason>: <message>``."""
        times = f" (x{self.count})" if self.count > 1 else ""
        return f"{self.kind}/{self.name} {self.reason}{times}: {self.message}"


@dataclass(frozen=True)
class WorkloadFacts:
    """One Deployment of the endpoint."""

    name: str
    replicas: int
    ready: int
    available: int
    updated: int
    generation: int
    observed_generation: int
    conditions: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class RegistrationFacts:
    """The operator's registration of the endpoint with SageMaker."""

    exists: bool
    state: str = ""
    alb_host: str = ""
    conditions: tuple[Condition, ...] = ()
    created_at: dt.datetime | None = None


@dataclass(frozen=True)
class SageMakerFacts:
    """What DescribeEndpoint says."""

    exists: bool
    status: str = ""
    failure_reason: str = ""
    in_service_at: dt.datetime | None = None


@dataclass(frozen=True)
class TargetFacts:
    """Health of the load balancer's targets; ``skipped`` says why it was not asked."""

    total: int = 0
    healthy: int = 0
    reasons: tuple[str, ...] = ()
    skipped: str = ""


@dataclass(frozen=True)
class QueueFacts:
    """The Kueue Workload of the endpoint."""

    exists: bool
    admitted: bool = False
    message: str = ""


@dataclass(frozen=True)
class OperatorFacts:
    """The operator's own Deployment."""

    found: bool
    available: int = 0
    name: str = ""
    version: str = ""


@dataclass(frozen=True)
class NodeFacts:
    """A node that runs a pod of the endpoint."""

    name: str
    ready: bool
    health: str = ""
    deep_check: str = ""


@dataclass(frozen=True)
class ProbeFacts:
    """One real request to the endpoint."""

    ok: bool
    at: dt.datetime
    status: int = 0
    detail: str = ""
    seconds: float = 0.0


@dataclass(frozen=True)
class LogFacts:
    """Last lines of a container's log."""

    pod: str
    container: str
    lines: tuple[str, ...]
    previous: bool = False


@dataclass(frozen=True)
class Facts:
    """Everything observed of one endpoint at ``at``.

    :param uid: the UID that the endpoint should have.
    :param wants_registration: the plan asks for a SageMaker endpoint.
    :param routing: the plan asks for intelligent routing.
    """

    name: str
    namespace: str
    kind: str
    uid: str
    at: dt.datetime
    created_at: dt.datetime
    wants_registration: bool = False
    routing: bool = False
    instance_type: str = ""
    image: str = ""
    max_deploy_seconds: int = 3600
    expires_at: dt.datetime | None = None
    queued_by: str = ""
    resource: ResourceFacts = ResourceFacts()
    workloads: tuple[WorkloadFacts, ...] = ()
    pods: tuple[PodFacts, ...] = ()
    events: tuple[EventFacts, ...] = ()
    registration: RegistrationFacts | None = None
    sagemaker: SageMakerFacts | None = None
    targets: TargetFacts | None = None
    queue: QueueFacts | None = None
    operator: OperatorFacts | None = None
    nodes: tuple[NodeFacts, ...] = ()
    probe: ProbeFacts | None = None
    logs: tuple[LogFacts, ...] = ()
    spent_usd: float | None = None
    budget_usd: float | None = None

    def log_lines(self) -> tuple[str, ...]:
        """Every log line that was read."""
        return tuple(line for log in self.logs for line in log.lines)
