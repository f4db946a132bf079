"""Certificates, DNS and the way requests take."""

from __future__ import annotations

from collections.abc import Iterator

from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

SIDECAR_PORT = 9113


def custom_certificate(context: RenderContext) -> Iterator[Problem]:
    """A certificate of yours has both an ARN and a domain; DNS records need one."""
    deployment = context.model.deployment
    tls = deployment.tls
    arn, domain = (tls.acm_arn, tls.domain_name) if tls else (None, None)
    if arn and not domain:
        yield problem("deployment.tls.domain_name", "absent", "a custom certificate needs its domain")
    if domain and not arn:
        yield problem("deployment.tls.acm_arn", "absent", "a domain needs the ARN of its ACM certificate")
    if deployment.hosted_zone_id and not arn:
        yield problem(
            "deployment.hosted_zone_id", deployment.hosted_zone_id, "DNS needs a custom certificate: set tls.acm_arn"
        )
    if arn and arn.split(":")[3] != context.cluster.region:
        yield problem("deployment.tls.acm_arn", arn, f"must be in the cluster's region, {context.cluster.region}")


def reachable(context: RenderContext) -> Iterator[Problem]:
    """The cluster's way of invoking must exist for this deployment."""
    deployment, cluster = context.model.deployment, context.cluster
    if cluster.invocation == "sagemaker" and not deployment.sagemaker_endpoint:
        yield problem("deployment.sagemaker_endpoint", False, "the cluster invokes through SageMaker; set it to true")
    if cluster.invocation == "alb" and deployment.kind == "direct":
        yield problem("deployment.kind", "direct", "has no load balancer; use invocation service or proxy")
    output = deployment.tls.output_uri if deployment.tls else None
    if cluster.invocation == "alb" and not (output or cluster.tls_output_uri):
        yield problem(
            "deployment.tls.output_uri", "absent", "the load balancer's CA is read from there; set it or tls_output_uri"
        )


def free_port(context: RenderContext) -> Iterator[Problem]:
    """The operator's sidecar has a port of its own."""
    deployment = context.model.deployment
    if deployment.port == SIDECAR_PORT and deployment.kind == "InferenceEndpointConfig":
        yield problem("deployment.port", SIDECAR_PORT, "is the operator's metrics sidecar; use another")


RULES = (custom_certificate, reachable, free_port)
