"""How a model is served on HyperPod, as a person writes it; include.endpoint renders it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from include.catalog.serving import (
    Autoscaling,
    DataCapture,
    DeploymentPart,
    Disaggregation,
    EnvValue,
    FsxStorage,
    HubModel,
    InferenceGateway,
    JumpStartOptions,
    KubernetesOptions,
    KvCache,
    LoadBalancer,
    Metrics,
    ModelCache,
    ModelVolume,
    Probes,
    RequestLimits,
    SecretRef,
    SidecarResources,
    Tls,
)

__all__ = ["DeploymentPart", "DeploymentSpec", "KvCache", "SecretRef"]


class DeploymentSpec(DeploymentPart):
    """The serving side of a model.

    Exactly one of ``instance_type``, ``instance_types`` and ``node_affinity`` says where it runs. A part that is
    not written is not rendered. ``extra_spec`` reaches what has no field here: it is merged into the custom
    resource's spec, never over a field that another option sets, and is checked against the definition that
    the cluster itself serves.
    """

    kind: Literal["InferenceEndpointConfig", "JumpStartModel", "direct"] = "InferenceEndpointConfig"
    engine: str = "vllm"
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, EnvValue] = Field(default_factory=dict)
    working_dir: str | None = None
    port: int = Field(8080, ge=1, le=65535)
    port_name: Literal["http", "grpc"] | None = None
    served_model_name: str | None = None
    model_version: str | None = None
    max_model_len: int | None = Field(None, gt=0, description="Tokens; checked by validation when given.")
    invocation_path: str = "v1/chat/completions"
    health_path: str = "/ping"
    instance_type: str | None = Field(None, pattern=r"^ml\..+")
    instance_types: tuple[str, ...] = ()
    node_affinity: dict[str, Any] | None = None
    replicas: int = Field(1, ge=0)
    resources: dict[Literal["requests", "limits"], dict[str, str]] = Field(default_factory=dict)
    resource_claims: tuple[dict[str, Any], ...] = ()
    model_source: Literal["s3", "fsx", "huggingface", "kubernetesVolume"] = "s3"
    model_location: str | None = Field(None, description="Path inside the store; default: the staged revision's.")
    volume: ModelVolume = ModelVolume()
    fsx: FsxStorage | None = None
    huggingface: HubModel | None = None
    prefetch: bool = False
    probes: Probes | None = None
    request_limits: RequestLimits | None = None
    kubernetes: KubernetesOptions | None = None
    kv_cache: KvCache | None = None
    routing: Literal["prefixaware", "kvaware", "session", "roundrobin"] | None = None
    router_autoscaling: Autoscaling | None = None
    autoscaling: Autoscaling | None = None
    disaggregation: Disaggregation | None = None
    metrics: Metrics | None = None
    load_balancer: LoadBalancer | None = None
    tls: Tls | None = None
    hosted_zone_id: str | None = Field(None, pattern=r"^Z[A-Z0-9]+$")
    data_capture: DataCapture | None = None
    model_cache: ModelCache | None = None
    sidecar_resources: SidecarResources | None = None
    inference_gateway: InferenceGateway | None = None
    jumpstart: JumpStartOptions | None = None
    priority_class: str | None = Field(None, description="Kueue priority class.")
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    sagemaker_endpoint: bool = True
    max_deploy_seconds: int = Field(3600, gt=0)
    tags: dict[str, str] = Field(default_factory=dict)
    extra_spec: dict[str, Any] = Field(default_factory=dict)
