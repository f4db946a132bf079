"""Data capture, time limits and the passage for other fields."""

from __future__ import annotations

from collections.abc import Iterator

from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext
from include.endpoint.render.endpointconfig import endpoint_config_spec
from include.endpoint.render.extra import collisions
from include.endpoint.render.jumpstart import jumpstart_spec


def capture(context: RenderContext) -> Iterator[Problem]:
    """Captured data needs a place, and its source must exist."""
    deployment = context.model.deployment
    part = deployment.data_capture
    if part is None:
        return
    output = (deployment.tls and deployment.tls.output_uri) or context.cluster.tls_output_uri
    if part.s3_uri is None and not output:
        yield problem("deployment.data_capture.s3_uri", "absent", "set it; there is no TLS bucket to fall back to")
    targets = {"sagemaker_endpoint": part.sagemaker_endpoint, "model_pod": part.model_pod}
    for name, target in targets.items():
        if target is not None and target.enabled and not target.modes:
            yield problem(f"deployment.data_capture.{name}.modes", "[]", "name Input, Output or both")
    endpoint = part.sagemaker_endpoint
    if endpoint is not None and endpoint.enabled and not deployment.sagemaker_endpoint:
        yield problem(
            "deployment.data_capture.sagemaker_endpoint.enabled", True, "there is no SageMaker endpoint to capture at"
        )
    if endpoint is not None and endpoint.enabled and endpoint.sampling_percentage is None:
        yield problem(
            "deployment.data_capture.sagemaker_endpoint.sampling_percentage",
            "absent",
            "SageMaker requires it: 0 to 100",
        )


def extra_spec(context: RenderContext) -> Iterator[Problem]:
    """``extra_spec`` adds fields; it never replaces what an option sets."""
    deployment = context.model.deployment
    if not deployment.extra_spec or deployment.kind == "direct":
        return
    render = jumpstart_spec if deployment.kind == "JumpStartModel" else endpoint_config_spec
    for path in collisions(render(context), deployment.extra_spec):
        yield problem(f"deployment.extra_spec.{path}", "set twice", "an option of the deployment sets it; use that")


RULES = (capture, extra_spec)
