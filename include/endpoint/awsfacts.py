"""The AWS side of an endpoint: SageMaker's word and the load balancer's targets."""

from __future__ import annotations

import logging
from typing import Any

from include.endpoint.clients import Clients
from include.endpoint.facts import Facts, SageMakerFacts, TargetFacts

log = logging.getLogger(__name__)

NO_BALANCER = "no load balancer with the endpoint's host name is visible to this identity"


def is_absent(error: BaseException) -> bool:
    """True when SageMaker says that something does not exist; it uses ValidationException for that."""
    answer = getattr(error, "response", None) or {}
    failure = answer.get("Error", {})
    text = str(failure.get("Message", "")).lower()
    return failure.get("Code") == "ValidationException" and ("could not find" in text or "does not exist" in text)


def sagemaker_facts(name: str, clients: Clients) -> SageMakerFacts | None:
    """Ask DescribeEndpoint; ``None`` when this identity may not."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        found = clients.sagemaker.describe_endpoint(EndpointName=name)
    except ClientError as error:
        if is_absent(error):
            return SageMakerFacts(exists=False)
        log.warning("DescribeEndpoint %s: %s", name, error)
        return None
    except BotoCoreError as error:
        log.warning("DescribeEndpoint %s: %s", name, error)
        return None
    serving = found["EndpointStatus"] == "InService"
    return SageMakerFacts(
        exists=True,
        status=str(found["EndpointStatus"]),
        failure_reason=str(found.get("FailureReason") or ""),
        in_service_at=found.get("LastModifiedTime") if serving else None,
    )


def balancer_host(facts: Facts) -> str:
    """Return the load balancer's host name, empty when it is not known yet."""
    if facts.registration and facts.registration.alb_host:
        return facts.registration.alb_host
    return next((host for host in facts.resource.domain_names if ".elb." in host), "")


def target_facts(host: str, clients: Clients) -> TargetFacts:
    """Ask for the health of the targets behind a load balancer's host name; says why when it cannot."""
    from botocore.exceptions import BotoCoreError, ClientError

    if not host:
        return TargetFacts(skipped="the endpoint has no load balancer host yet")
    try:
        arn = balancer_arn(host, clients)
        if arn is None:
            return TargetFacts(skipped=f"{NO_BALANCER}: {host}")
        groups = clients.elbv2.describe_target_groups(LoadBalancerArn=arn)["TargetGroups"]
        health: list[Any] = []
        for group in groups:
            answer = clients.elbv2.describe_target_health(TargetGroupArn=group["TargetGroupArn"])
            health += [entry["TargetHealth"] for entry in answer["TargetHealthDescriptions"]]
    except (ClientError, BotoCoreError) as error:
        return TargetFacts(skipped=f"the load balancer cannot be asked: {error}")
    healthy = sum(entry["State"] == "healthy" for entry in health)
    reasons = {str(entry.get("Reason") or entry["State"]) for entry in health if entry["State"] != "healthy"}
    return TargetFacts(total=len(health), healthy=healthy, reasons=tuple(sorted(reasons)))


def balancer_arn(host: str, clients: Clients) -> str | None:
    """Return the ARN of the load balancer with this host name, ``None`` when there is none."""
    for page in clients.elbv2.get_paginator("describe_load_balancers").paginate():
        for balancer in page["LoadBalancers"]:
            if balancer["DNSName"].lower() == host.lower():
                return str(balancer["LoadBalancerArn"])
    return None
