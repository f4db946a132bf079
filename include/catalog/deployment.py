"""How a model is served on HyperPod, as a person writes it; include.endpoint renders it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class DeploymentPart(BaseModel):
    """Base of the parts of a deployment: frozen, strict about unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class SecretRef(DeploymentPart):
    """A key of a Kubernetes Secret; the value never passes through the pipeline."""

    secret: str
    key: str


class KvCache(DeploymentPart):
    """Managed tiered KV cache."""

    l1: bool = True
    l2: Literal["redis", "tieredstorage"] | None = None
    l2_url: str | None = None


class DeploymentSpec(DeploymentPart):
    """The serving side of a model."""

    kind: Literal["InferenceEndpointConfig", "JumpStartModel", "direct"] = "InferenceEndpointConfig"
    engine: str = "vllm"
    image: str | None = None
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()
    env: dict[str, str | SecretRef] = Field(default_factory=dict)
    port: int = Field(8080, ge=1, le=65535)
    served_model_name: str | None = None
    invocation_path: str = "v1/chat/completions"
    health_path: str = "/ping"
    instance_type: str | None = None
    instance_types: tuple[str, ...] = ()
    node_affinity: dict[str, Any] | None = None
    replicas: int = Field(1, ge=0)
    resources: dict[str, dict[str, str]] = Field(default_factory=dict)
    model_source: Literal["s3", "fsx", "huggingface", "kubernetesVolume"] = "s3"
    prefetch: bool = False
    kv_cache: KvCache | None = None
    routing: Literal["prefixaware", "kvaware", "session", "roundrobin"] | None = None
    sagemaker_endpoint: bool = True
    max_deploy_seconds: int = Field(3600, gt=0)
    tags: dict[str, str] = Field(default_factory=dict)
    extra_spec: dict[str, Any] = Field(default_factory=dict)
