"""What each kind of deployment can and cannot have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from include.catalog.deployment import DeploymentSpec
from include.catalog.specs import JumpStartSource
from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

NOT_FOR_JUMPSTART = (
    "image", "command", "args", "working_dir", "port_name", "model_version", "instance_types", "node_affinity",
    "resources", "resource_claims", "model_location", "fsx", "huggingface", "probes", "request_limits",
    "kubernetes", "disaggregation", "tags", "prefetch",
)  # fmt: skip
NOT_FOR_DIRECT = (
    "autoscaling", "router_autoscaling", "routing", "kv_cache", "disaggregation", "data_capture", "tls",
    "hosted_zone_id", "load_balancer", "request_limits", "model_cache", "inference_gateway",
    "sidecar_resources", "metrics", "jumpstart", "tags", "extra_spec", "prefetch",
)  # fmt: skip


def _written(deployment: DeploymentSpec, field: str) -> Any:
    value = getattr(deployment, field)
    return None if value == type(deployment).model_fields[field].get_default(call_default_factory=True) else value


def jumpstart(context: RenderContext) -> Iterator[Problem]:
    """A JumpStart model brings its own container; much of the spec does not exist for it."""
    deployment, source = context.model.deployment, context.model.source
    is_jumpstart = deployment.kind == "JumpStartModel"
    if isinstance(source, JumpStartSource) != is_jumpstart:
        yield problem("deployment.kind", deployment.kind, "kind JumpStartModel and source.type jumpstart go together")
    if not is_jumpstart:
        if deployment.jumpstart is not None:
            yield problem("deployment.jumpstart", "present", "only for kind JumpStartModel; remove it")
        return
    for field in NOT_FOR_JUMPSTART:
        value = _written(deployment, field)
        if value is not None:
            yield problem(f"deployment.{field}", value, "a JumpStartModel has no such field; remove it")
    for name, value in deployment.env.items():
        if not isinstance(value, str):
            yield problem(f"deployment.env.{name}", value, "a JumpStartModel takes plain values only")
    if len(deployment.env) > 100:
        yield problem("deployment.env", len(deployment.env), "a JumpStartModel takes at most 100 variables")


def jumpstart_terms(context: RenderContext) -> Iterator[Problem]:
    """A gated model is downloaded only after its licence was accepted."""
    options = context.model.deployment.jumpstart
    if options and options.gated_model_download_role and not options.accept_eula:
        yield problem(
            "deployment.jumpstart.accept_eula", False, "a gated model needs true: read its licence, then set it"
        )


def direct(context: RenderContext) -> Iterator[Problem]:
    """Without the operator there is only a Deployment, a Service and a volume."""
    deployment = context.model.deployment
    if deployment.kind != "direct":
        return
    for field in NOT_FOR_DIRECT:
        value = _written(deployment, field)
        if value is not None:
            yield problem(
                f"deployment.{field}", value, "the operator does this; remove it, or use InferenceEndpointConfig"
            )
    if deployment.sagemaker_endpoint:
        yield problem("deployment.sagemaker_endpoint", True, "only the operator registers one; set it to false")
    if deployment.model_source == "huggingface":
        yield problem("deployment.model_source", "huggingface", "use s3, fsx or kubernetesVolume")


def container_given(context: RenderContext) -> Iterator[Problem]:
    """Everything but a JumpStart model needs an image."""
    deployment = context.model.deployment
    if deployment.kind != "JumpStartModel" and not deployment.image:
        yield problem("deployment.image", "absent", "this field is required; add the model server's image")


RULES = (jumpstart, jumpstart_terms, direct, container_given)
