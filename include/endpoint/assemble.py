"""From raw Kubernetes objects to facts: pure, tolerant of fields that are missing or new."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import Any

from include.endpoint import names
from include.endpoint.facts import (
    Condition,
    ContainerFacts,
    EventFacts,
    NodeFacts,
    OperatorFacts,
    PodFacts,
    QueueFacts,
    RegistrationFacts,
    ResourceFacts,
    WorkloadFacts,
)

Object = Mapping[str, Any]
HEALTH_LABEL = "sagemaker.amazonaws.com/node-health-status"
DEEP_CHECK_LABEL = "sagemaker.amazonaws.com/deep-health-check-status"


def conditions(status: Object) -> tuple[Condition, ...]:
    """Return the conditions of a status."""
    return tuple(
        Condition(
            str(item.get("type", "")),
            str(item.get("status", "")),
            str(item.get("reason") or ""),
            str(item.get("message") or ""),
            names.parse_time(item.get("lastTransitionTime")),
        )
        for item in status.get("conditions") or []
    )


def resource_facts(item: Object | None) -> ResourceFacts:
    """Read a custom resource (or the Deployment of a direct endpoint)."""
    if not item:
        return ResourceFacts(exists=False)
    metadata, status = names.metadata_of(item), item.get("status") or {}
    deployed = status.get("deploymentStatus") or {}
    sagemaker = (status.get("endpoints") or {}).get("sagemaker") or {}
    tls, dns = status.get("tlsCertificate") or {}, status.get("dnsStatus") or {}
    capture = (status.get("dataCaptureStatus") or {}).get("modelPod") or {}
    return ResourceFacts(
        exists=True,
        uid=str(metadata.get("uid", "")),
        generation=int(metadata.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        created_at=names.parse_time(metadata.get("creationTimestamp")),
        deleting_since=names.parse_time(metadata.get("deletionTimestamp")),
        finalizers=tuple(metadata.get("finalizers") or ()),
        state=str(status.get("state") or ""),
        deployment_state=str(deployed.get("deploymentObjectOverallState") or ""),
        reason=str(deployed.get("reason") or ""),
        message=str(deployed.get("message") or ""),
        conditions=conditions(status),
        registration_state=str(sagemaker.get("state") or ""),
        arns=tuple(str(sagemaker[key]) for key in ("endpointArn", "configArn", "modelArn") if sagemaker.get(key)),
        certificate_health=str(tls.get("certificateHealth") or ""),
        certificate_arn=str(tls.get("certificateARN") or ""),
        domain_names=tuple(tls.get("certificateDomainNames") or ()),
        dns_health=str(dns.get("dnsHealth") or ""),
        dns_message=str(dns.get("message") or ""),
        capture_health=str(capture.get("status") or ""),
        capture_message=str(capture.get("message") or ""),
        spec=dict(item.get("spec") or {}),
        annotations=dict(metadata.get("annotations") or {}),
    )


def workload_facts(item: Object) -> WorkloadFacts:
    """Read a Deployment."""
    metadata, status = names.metadata_of(item), item.get("status") or {}
    return WorkloadFacts(
        name=str(metadata.get("name", "")),
        replicas=int((item.get("spec") or {}).get("replicas", 1)),
        ready=int(status.get("readyReplicas") or 0),
        available=int(status.get("availableReplicas") or 0),
        updated=int(status.get("updatedReplicas") or 0),
        generation=int(metadata.get("generation") or 0),
        observed_generation=int(status.get("observedGeneration") or 0),
        conditions=conditions(status),
    )


def pod_facts(item: Object) -> PodFacts:
    """Read a pod."""
    metadata, spec, status = names.metadata_of(item), item.get("spec") or {}, item.get("status") or {}
    known = {condition.type: condition for condition in conditions(status)}
    scheduled, ready = known.get("PodScheduled"), known.get("Ready")
    waiting = scheduled is not None and scheduled.status == "False"
    return PodFacts(
        name=str(metadata.get("name", "")),
        uid=str(metadata.get("uid", "")),
        phase=str(status.get("phase") or "Pending"),
        node=str(spec.get("nodeName") or ""),
        created_at=names.parse_time(metadata.get("creationTimestamp")),
        scheduled_at=_since(scheduled),
        initialized_at=_since(known.get("Initialized")),
        ready_at=_since(ready),
        deleting=bool(metadata.get("deletionTimestamp")),
        ready=ready is not None and ready.status == "True",
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        unschedulable=scheduled.message if scheduled and waiting else "",
        containers=tuple(
            [_container(entry, init=True) for entry in status.get("initContainerStatuses") or []]
            + [_container(entry, init=False) for entry in status.get("containerStatuses") or []]
        ),
        labels=dict(metadata.get("labels") or {}),
    )


def _since(condition: Condition | None) -> dt.datetime | None:
    return condition.since if condition is not None and condition.status == "True" else None


def _container(entry: Object, *, init: bool) -> ContainerFacts:
    state, last = entry.get("state") or {}, entry.get("lastState") or {}
    waiting, running = state.get("waiting") or {}, state.get("running") or {}
    ended = state.get("terminated") or last.get("terminated") or {}
    return ContainerFacts(
        name=str(entry.get("name", "")),
        init=init,
        ready=bool(entry.get("ready")),
        restarts=int(entry.get("restartCount") or 0),
        image=str(entry.get("image") or ""),
        image_id=str(entry.get("imageID") or ""),
        waiting_reason=str(waiting.get("reason") or ""),
        waiting_message=str(waiting.get("message") or ""),
        terminated_reason=str(ended.get("reason") or ""),
        terminated_message=str(ended.get("message") or ""),
        exit_code=ended.get("exitCode"),
        started_at=names.parse_time(running.get("startedAt") or ended.get("startedAt")),
        finished_at=names.parse_time(ended.get("finishedAt")),
    )


def event_facts(item: Object) -> EventFacts:
    """Read an event."""
    about = item.get("involvedObject") or item.get("regarding") or {}
    created = names.metadata_of(item).get("creationTimestamp")
    series = item.get("series") or {}
    first = item.get("firstTimestamp") or item.get("eventTime") or created
    last = item.get("lastTimestamp") or series.get("lastObservedTime") or first
    return EventFacts(
        reason=str(item.get("reason") or ""),
        message=" ".join(str(item.get("message") or item.get("note") or "").split()),
        kind=str(about.get("kind") or ""),
        name=str(about.get("name") or ""),
        type=str(item.get("type") or "Normal"),
        count=int(item.get("count") or series.get("count") or 1),
        first_at=names.parse_time(first),
        last_at=names.parse_time(last),
    )


def about_endpoint(event: EventFacts, name: str, pods: Iterable[str]) -> bool:
    """True for an event about the endpoint's own objects, and for no other endpoint's."""
    if event.kind == "Pod":
        return event.name in set(pods)
    if event.name in (name, f"alb-{name}", names.service_name(name), names.scaled_object_name(name)):
        return True
    # ReplicaSets are named <deployment>-<hash>; claims and others carry the name as it is.
    return event.kind == "ReplicaSet" and event.name.rpartition("-")[0] in names.workload_names(name)


def registration_facts(item: Object | None) -> RegistrationFacts:
    """Read a SageMakerEndpointRegistration."""
    if not item:
        return RegistrationFacts(exists=False)
    status = item.get("status") or {}
    host = (status.get("loadBalancer") or {}).get("hostName") or (item.get("spec") or {}).get("loadBalancerHostName")
    return RegistrationFacts(
        exists=True,
        state=str(status.get("state") or ""),
        alb_host=str(host or ""),
        conditions=conditions(status),
        created_at=names.parse_time(names.metadata_of(item).get("creationTimestamp")),
    )


def queue_facts(items: Iterable[Object], name: str, uids: Iterable[str]) -> QueueFacts:
    """Read the Kueue Workload that stands for one of the endpoint's objects."""
    owners = set(uids)
    for item in items:
        metadata = names.metadata_of(item)
        held = {str(owner.get("uid")) for owner in metadata.get("ownerReferences") or []}
        if not held & owners and name not in str(metadata.get("name", "")):
            continue
        known = {condition.type: condition for condition in conditions(item.get("status") or {})}
        admitted, reserved = known.get("Admitted"), known.get("QuotaReserved")
        waiting = next((entry for entry in (reserved, admitted) if entry and entry.status == "False"), None)
        return QueueFacts(
            exists=True,
            admitted=admitted is not None and admitted.status == "True",
            message=waiting.message if waiting else "",
        )
    return QueueFacts(exists=False)


def operator_facts(items: Iterable[Object]) -> OperatorFacts:
    """Read the operator's Deployment, under either of its names."""
    for item in items:
        name = str(names.metadata_of(item).get("name", ""))
        if name not in names.OPERATOR_DEPLOYMENTS:
            continue
        containers = ((item.get("spec") or {}).get("template") or {}).get("spec", {}).get("containers") or [{}]
        image = str(containers[0].get("image") or "")
        return OperatorFacts(
            found=True,
            available=int((item.get("status") or {}).get("availableReplicas") or 0),
            name=name,
            version=image.rpartition(":")[2] if ":" in image else "",
        )
    return OperatorFacts(found=False)


def node_facts(item: Object) -> NodeFacts:
    """Read a node's readiness and HyperPod's health labels."""
    ready = any(entry.type == "Ready" and entry.status == "True" for entry in conditions(item.get("status") or {}))
    return NodeFacts(
        name=str(names.metadata_of(item).get("name", "")),
        ready=ready,
        health=names.label(item, HEALTH_LABEL),
        deep_check=names.label(item, DEEP_CHECK_LABEL),
    )
