"""The raw Kubernetes objects of one endpoint, however they were gathered, and the facts that they say."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from include.catalog.plan import ReleasePlan
from include.endpoint import assemble, names
from include.endpoint.facts import EventFacts, Facts, PodFacts
from include.endpoint.lifecycle import sagemaker_name
from include.endpoint.model import EndpointRef

Object = dict[str, Any]
MOST_EVENTS = 60


@dataclass(frozen=True)
class Snapshot:
    """Raw objects of one endpoint; lists may hold objects of other endpoints, which are sorted out here."""

    resource: Object | None = None
    deployments: tuple[Object, ...] = ()
    pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()
    registration: Object | None = None
    queue: tuple[Object, ...] = ()
    operator: tuple[Object, ...] | None = None
    nodes: tuple[Object, ...] = ()

    @property
    def without_objects(self) -> bool:
        """True when nothing of the endpoint itself was seen; its events may outlive it."""
        return self.resource is None and not (self.deployments or self.pods or self.registration)


@dataclass(frozen=True)
class Expectation:
    """What the plan says about an endpoint, as far as judging it needs."""

    wants_registration: bool
    routing: bool
    instance_type: str
    image: str
    max_deploy_seconds: int
    queued_by: str
    budget_usd: float | None

    @classmethod
    def of(cls, plan: ReleasePlan) -> Expectation:
        """Read the plan."""
        deployment = plan.model.deployment
        return cls(
            wants_registration=sagemaker_name(plan) is not None,
            routing=deployment.routing is not None,
            instance_type=deployment.instance_type or "/".join(deployment.instance_types),
            image=deployment.image or "",
            max_deploy_seconds=deployment.max_deploy_seconds,
            queued_by=plan.cluster.queue_name or "",
            budget_usd=float(plan.budget_usd) if plan.budget_usd is not None else None,
        )


def pod_belongs(item: Mapping[str, Any], name: str) -> bool:
    """True for a pod of the endpoint's own Deployments (the router's pods are not)."""
    return names.label(item, "app") in names.workload_names(name)


def decoding(pod: PodFacts) -> bool:
    """True for a decode pod of a disaggregated endpoint."""
    return pod.labels.get(names.DPD_ROLE) == "decode"


def facts_from(ref: EndpointRef, plan: ReleasePlan, snapshot: Snapshot, now: dt.datetime) -> Facts:
    """Return what a snapshot says about one endpoint; the AWS side, logs and the probe are added by others."""
    expected = Expectation.of(plan)
    workloads = [item for item in snapshot.deployments if item["metadata"]["name"] in names.workload_names(ref.name)]
    pods = [assemble.pod_facts(item) for item in snapshot.pods if pod_belongs(item, ref.name)]
    own_nodes = {pod.node for pod in pods if pod.node}
    uids = [ref.uid, *(item["metadata"].get("uid", "") for item in workloads), *(pod.uid for pod in pods)]
    return Facts(
        name=ref.name,
        namespace=ref.namespace,
        kind=ref.kind,
        uid=ref.uid,
        at=now,
        created_at=ref.created_at,
        expires_at=ref.expires_at,
        resource=assemble.resource_facts(snapshot.resource),
        workloads=tuple(assemble.workload_facts(item) for item in workloads),
        pods=tuple(sorted(pods, key=lambda pod: pod.name)),
        events=_events(snapshot.events, ref, pods),
        registration=assemble.registration_facts(snapshot.registration) if expected.wants_registration else None,
        queue=assemble.queue_facts(snapshot.queue, ref.name, uids) if expected.queued_by else None,
        operator=None if snapshot.operator is None else assemble.operator_facts(snapshot.operator),
        nodes=tuple(assemble.node_facts(item) for item in snapshot.nodes if item["metadata"].get("name") in own_nodes),
        spent_usd=spent_usd(ref, now),
        **dataclasses.asdict(expected),
    )


def spent_usd(ref: EndpointRef, now: dt.datetime) -> float:
    """Return what an endpoint has cost since its creation, in USD."""
    return float(ref.hourly_price) * max((now - ref.created_at).total_seconds(), 0.0) / 3600


def _events(items: Iterable[Object], ref: EndpointRef, pods: list[PodFacts]) -> tuple[EventFacts, ...]:
    pod_names = {pod.name for pod in pods}
    found = [assemble.event_facts(item) for item in items]
    # An endpoint of the same name may have lived before: its events are older than this one.
    mine = [
        event
        for event in found
        if assemble.about_endpoint(event, ref.name, pod_names)
        and (event.last_at is None or event.last_at >= ref.created_at - dt.timedelta(seconds=2))
    ]
    unset = dt.datetime.min.replace(tzinfo=dt.UTC)
    return tuple(sorted(mine, key=lambda event: event.last_at or unset)[-MOST_EVENTS:])


LogReader = Callable[[str, str, bool], tuple[str, ...]]


@dataclass(frozen=True)
class LogWish:
    """A container whose log would help to explain a failure."""

    pod: str
    container: str
    previous: bool = field(default=False)


def wished_logs(facts: Facts, limit: int = 3) -> tuple[LogWish, ...]:
    """Return the containers whose last lines matter, at most ``limit``.

    Those that ended or restarted; and those of decode pods that serve: that no KV block arrives is told nowhere else.
    """
    wishes = []
    for pod in facts.pods:
        decodes = decoding(pod)
        for container in pod.containers:
            ended = container.exit_code not in (None, 0)
            if container.restarts or ended or (decodes and container.ready and not container.init):
                wishes.append(LogWish(pod.name, container.name, previous=bool(container.restarts)))
    return tuple(wishes[:limit])
