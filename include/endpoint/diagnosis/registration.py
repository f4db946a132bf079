"""Rows about AWS: registration with SageMaker, certificates, DNS, load balancer, data capture."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from include.endpoint.diagnosis.model import Diagnosis, Limits, age, cut, events_with, evidence_of, first_line_with
from include.endpoint.facts import Facts
from include.errors import FailureClass

STUCK = ("CreationInProgress", "")


def said_about_aws(facts: Facts) -> Iterator[str]:
    """Yield every text about the AWS side: registration, SageMaker, conditions, events, operator messages."""
    if facts.registration:
        yield from (item.message for item in facts.registration.conditions)
    if facts.sagemaker:
        yield facts.sagemaker.failure_reason
    yield from (item.message for item in facts.resource.conditions)
    yield facts.resource.message
    yield from (event.message for event in facts.events)
    yield from facts.log_lines()


def ca_download(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """SageMaker cannot read the endpoint's CA from S3."""
    line = first_line_with(said_about_aws(facts), "error downloading ca certificate")
    if line is None:
        return None
    return Diagnosis(
        "ca-download",
        "CertificateUnreachable",
        f"SageMaker cannot read the endpoint's CA certificate: {cut(line)}",
        "add an S3 VPC endpoint to the cluster's VPC, and let its subnets reach the TLS bucket",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def execution_role(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The operator's execution role lacks a right."""
    line = first_line_with(said_about_aws(facts), "please ensure that the execution role", "execution role for variant")
    if line is None:
        return None
    return Diagnosis(
        "execution-role",
        "ExecutionRoleDenied",
        f"SageMaker refuses the operator's execution role: {cut(line)}",
        "give the role the rights of AmazonSageMakerHyperPodInferenceAccess (ec2:CreateNetworkInterface*, ECR, S3)",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def web_identity(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The operator cannot assume its role."""
    line = first_line_with(said_about_aws(facts), "assumerolewithwebidentity")
    if line is None:
        return None
    return Diagnosis(
        "web-identity",
        "OperatorRoleDenied",
        f"the operator cannot assume its IAM role: {cut(line)}",
        "correct the role's trust policy: the cluster's OIDC provider and the operator's service account",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def tls_bucket(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The operator cannot write certificates to S3."""
    for text in said_about_aws(facts):
        low = text.lower()
        about_tls = "tls" in low or "certificate" in low
        if about_tls and any(
            mark in low for mark in ("putobject", "not writable", "accessdenied", "access denied", "nosuchbucket")
        ):
            return Diagnosis(
                "tls-bucket",
                "TlsBucketNotWritable",
                f"the operator cannot write the certificate to S3: {cut(text)}",
                "create the bucket of tls_output_uri and let the operator's role write to it",
                FailureClass.CONFIGURATION,
                terminal=True,
                evidence=evidence_of(facts),
            )
    return None


def registration_failed(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The registration or the SageMaker endpoint itself failed."""
    registered, endpoint = facts.registration, facts.sagemaker
    failed = registered is not None and registered.state == "CreationFailed"
    broken = endpoint is not None and endpoint.status == "Failed"
    if not failed and not broken:
        return None
    messages = [item.message for item in registered.conditions if item.message] if registered else []
    said = (endpoint.failure_reason if endpoint else "") or (messages[-1] if messages else "no reason given")
    return Diagnosis(
        "registration-failed",
        "RegistrationFailed",
        f"SageMaker endpoint {facts.name} could not be created: {cut(said)}",
        "read the reason; correct role, network or quota, then start a new run",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=(*messages, *evidence_of(facts)),
    )


def registration_stuck(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The pods serve, and the registration does not move."""
    registered = facts.registration
    if registered is None or not facts.wants_registration or not registered.exists:
        return None
    if registered.state not in STUCK or not serving(facts):
        return None
    waited = age(registered.created_at or facts.created_at, now)
    if waited < limits.registration_s / 10:
        return None
    hint = (
        "upgrade the operator: before v3.3 it hangs with intelligent routing"
        if facts.routing
        else ("read the operator's log; delete the endpoint and try again")
    )
    return Diagnosis(
        "registration-stuck",
        "RegistrationStuck",
        f"the pods serve, but the registration with SageMaker is {registered.state or 'empty'} after {waited:.0f} s",
        hint,
        FailureClass.TRANSIENT,
        terminal=waited > limits.registration_s,
        evidence=evidence_of(facts),
    )


def balancer_503(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """Everything is healthy but the load balancer answers 503, or its targets never turn healthy."""
    targets, probe = facts.targets, facts.probe
    unhealthy = targets is not None and not targets.skipped and targets.healthy < max(targets.total, 1)
    refused = probe is not None and probe.status == 503
    if not serving(facts) or not (unhealthy or refused):
        return None
    ready_since = max((pod.ready_at for pod in facts.pods if pod.ready_at), default=None)
    waited = age(ready_since or facts.created_at, now)
    if waited < limits.targets_s / 10:
        return None
    why = ", ".join(targets.reasons) if targets and targets.reasons else (probe.detail if probe else "")
    return Diagnosis(
        "balancer-503",
        "LoadBalancerUnhealthy",
        f"pods and registration are healthy, but the load balancer does not reach them: {cut(why) or 'no reason'}",
        "wait for target health; if it stays, check health path and routing Service (missing before operator v3.3)",
        FailureClass.TRANSIENT,
        terminal=waited > limits.targets_s,
        evidence=evidence_of(facts),
    )


def certificate(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The endpoint's certificate is expiring, expired or was renewed."""
    events = events_with(facts, reasons=("CertificateExpiring", "CertificateExpired", "CertificateRenewed"))
    health = facts.resource.certificate_health
    if health not in ("Expiring", "Expired"):
        return None
    expired = health == "Expired"
    return Diagnosis(
        "certificate",
        f"Certificate{health}",
        f"the certificate of {facts.name} is {health.lower()}"
        + (f": {cut(events[-1].message)}" if events else " (the operator looks once a day)"),
        "let the operator renew it: check cert-manager and the TLS bucket"
        if expired
        else "renewal is due within 60 days",
        FailureClass.CONFIGURATION,
        terminal=expired,
        evidence=evidence_of(facts, events),
    )


def dns(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The DNS record could not be made."""
    if facts.resource.dns_health != "Error":
        return None
    return Diagnosis(
        "dns",
        "DnsFailed",
        f"the DNS record of {facts.name} could not be made: {cut(facts.resource.dns_message or 'no message')}",
        "check hosted_zone_id, the domain of the certificate, and the operator's Route 53 rights",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def data_capture(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """Captured data does not reach S3; the endpoint serves all the same."""
    if facts.resource.capture_health != "Unhealthy":
        return None
    return Diagnosis(
        "data-capture",
        "DataCaptureUnhealthy",
        f"data capture of {facts.name} is unhealthy: {cut(facts.resource.capture_message or 'no message')}",
        "check data_capture.s3_uri and the pod's rights to write there",
        FailureClass.CONFIGURATION,
        terminal=False,
        evidence=evidence_of(facts),
    )


def serving(facts: Facts) -> bool:
    """True when every Deployment of the endpoint has all its replicas ready."""
    return bool(facts.workloads) and all(
        item.ready >= item.replicas and item.updated >= item.replicas for item in facts.workloads
    )


ROWS = {
    "ca-download": ca_download,
    "execution-role": execution_role,
    "web-identity": web_identity,
    "tls-bucket": tls_bucket,
    "registration-failed": registration_failed,
    "dns": dns,
    "certificate": certificate,
    "balancer-503": balancer_503,
    "registration-stuck": registration_stuck,
    "data-capture": data_capture,
}
