"""The parts of a deployment as a person writes them: scaling, caching, TLS, capture, probes, placement.

Field names are the custom resource's in snake case; a part left out is not rendered, so that the operator's
own default applies. Facts: the CustomResourceDefinitions below include/endpoint/crds.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasGenerator, BaseModel, ConfigDict, Discriminator, Field, Tag
from pydantic.alias_generators import to_camel

from include.catalog.base import JsonObject as JsonObject

AMP_WORKSPACE = r"^https://aps-workspaces\.[a-zA-Z0-9-]+(\.[a-zA-Z0-9-]+)*\.amazonaws\.com/workspaces/ws-[a-zA-Z0-9-]+$"
ROLE_ARN = r"^arn:aws[a-z-]*:iam::\d{12}:role/[a-zA-Z0-9+=,.@_/-]+$"


class DeploymentPart(BaseModel):
    """Base of the parts of a deployment: frozen, strict about unknown fields."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=AliasGenerator(serialization_alias=to_camel), defer_build=True
    )

    def rendered(self) -> JsonObject:
        """Return the custom resource's names and the values that were written."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class SecretRef(DeploymentPart):
    """A key of a Kubernetes Secret; the value never passes through the pipeline."""

    secret: str
    key: str
    optional: bool | None = None


class ConfigMapRef(DeploymentPart):
    """A key of a ConfigMap."""

    config_map: str
    key: str
    optional: bool | None = None


class FieldRef(DeploymentPart):
    """A field of the pod itself, such as ``status.podIP``."""

    field: str


class ResourceRef(DeploymentPart):
    """A resource of the container itself, such as ``limits.memory``."""

    resource: str
    container: str | None = None
    divisor: str | None = None


class FileRef(DeploymentPart):
    """A key of an env file in one of the pod's volumes."""

    volume: str
    path: str
    key: str
    optional: bool | None = None


def _env_kind(value: Any) -> str:
    if not isinstance(value, dict | DeploymentPart):
        return "value"
    names = value if isinstance(value, dict) else type(value).model_fields
    marks = {"config_map": "config_map", "field": "field", "resource": "resource", "volume": "file"}
    return next((tag for mark, tag in marks.items() if mark in names), "secret")


EnvValue = Annotated[
    Annotated[str, Tag("value")]
    | Annotated[SecretRef, Tag("secret")]
    | Annotated[ConfigMapRef, Tag("config_map")]
    | Annotated[FieldRef, Tag("field")]
    | Annotated[ResourceRef, Tag("resource")]
    | Annotated[FileRef, Tag("file")],
    Discriminator(_env_kind),
]


class KvCache(DeploymentPart):
    """Managed tiered KV cache: CPU memory (L1) and a shared second tier (L2)."""

    l1: bool = True
    l2: Literal["redis", "tieredstorage"] | None = None
    l2_url: str | None = None
    config_file: str | None = Field(None, description="Replaces everything else in this part.")


class CloudWatchTrigger(DeploymentPart):
    """Scale on a CloudWatch metric."""

    name: str | None = None
    namespace: str
    metric_name: str
    dimensions: dict[str, str] = Field(min_length=1)
    target_value: float
    activation_target_value: float | None = None
    min_value: float | None = None
    metric_stat: str | None = None
    metric_type: Literal["Value", "Average"] | None = None
    metric_collection_period: int | None = None
    metric_collection_start_time: int | None = None
    use_cached_metrics: bool | None = None


class PrometheusTrigger(DeploymentPart):
    """Scale on a query of Amazon Managed Prometheus; the operator takes no other server."""

    name: str | None = None
    namespace: str | None = None
    server_address: str = Field(pattern=AMP_WORKSPACE)
    query: str
    target_value: float
    activation_target_value: float | None = None
    custom_headers: str | None = None
    metric_type: Literal["Value", "Average"] | None = None
    use_cached_metrics: bool | None = None


class Autoscaling(DeploymentPart):
    """KEDA autoscaling; left out of a rendered benchmark, which needs a fixed number of replicas."""

    min_replica_count: int | None = Field(None, ge=0)
    max_replica_count: int | None = Field(None, ge=0)
    polling_interval: int | None = Field(None, ge=0)
    cooldown_period: int | None = Field(None, ge=0)
    initial_cooldown_period: int | None = Field(None, ge=0)
    scale_down_stabilization_time: int | None = Field(None, ge=0)
    scale_up_stabilization_time: int | None = Field(None, ge=0)
    cloudwatch: tuple[CloudWatchTrigger, ...] = Field((), max_length=100)
    prometheus: tuple[PrometheusTrigger, ...] = Field((), max_length=100)


class PhasePool(DeploymentPart):
    """The prefill or the decode side of a disaggregated deployment."""

    args: tuple[str, ...] = ()
    replicas: int = Field(1, ge=1)
    node_selector: dict[str, str] = Field(default_factory=dict)
    resources: dict[str, dict[str, str]] = Field(default_factory=dict)
    resource_claims: tuple[JsonObject, ...] = ()


class Topology(DeploymentPart):
    """Where prefill and decode pods run relative to each other."""

    same_az: bool | None = Field(None, serialization_alias="sameAZ")
    availability_zone: str | None = None
    placement_group: str | None = None


class Disaggregation(DeploymentPart):
    """Separate prefill and decode pods (``pdSpec``)."""

    prefill: PhasePool
    decode: PhasePool
    routing_threshold: int | None = Field(None, ge=0, description="Tokens; 0: always disaggregate.")
    topology: Topology | None = None
    prefill_autoscaling: Autoscaling | None = None
    decode_autoscaling: Autoscaling | None = None


class LoadBalancer(DeploymentPart):
    """The endpoint's Application Load Balancer."""

    health_check_path: str | None = Field(None, pattern=r"^/.*")
    routing_algorithm: Literal["least_outstanding_requests", "round_robin"] | None = None
    idle_timeout_seconds: int | None = Field(None, ge=1, le=4000, description="Operator v3.3 or newer.")


class Metrics(DeploymentPart):
    """What the operator's collector scrapes."""

    enabled: bool | None = None
    scrape_interval_seconds: int | None = Field(None, ge=5, le=300, serialization_alias="metricsScrapeIntervalSeconds")
    path: str | None = Field(None, pattern=r"^/[a-zA-Z0-9\-_./]*$")
    port: int | None = Field(None, ge=1024, le=65535)


class Tls(DeploymentPart):
    """Certificates: the operator's own (written to S3), or one of yours in ACM."""

    output_uri: str | None = Field(None, pattern=r"^s3://[^/]+/?.*$", description="Else the cluster's.")
    acm_arn: str | None = Field(None, pattern=r"^arn:aws:acm:[a-z0-9-]+:[0-9]{12}:certificate/[a-fA-F0-9-]+$")
    domain_name: str | None = Field(None, max_length=253)


class CaptureTarget(DeploymentPart):
    """Capture at the SageMaker endpoint."""

    enabled: bool
    modes: tuple[Literal["Input", "Output"], ...] = ("Input", "Output")
    csv_content_types: tuple[str, ...] = ()
    json_content_types: tuple[str, ...] = ()
    sampling_percentage: int | None = Field(None, ge=0, le=100)
    kms_key_id: str | None = Field(None, max_length=2048)


class PodCapture(CaptureTarget):
    """Capture in the model's pod."""

    batch_size: int | None = Field(None, ge=1, le=1000)
    flush_interval_seconds: int | None = Field(None, ge=10, le=300)
    max_payload_size_kb: int | None = Field(None, ge=0, le=10240)


class DataCapture(DeploymentPart):
    """Requests and answers kept in S3."""

    s3_uri: str | None = Field(None, max_length=512, pattern=r"^s3://([^/]+)(/[^,=]*)?$")
    load_balancer: bool | None = None
    sagemaker_endpoint: CaptureTarget | None = None
    model_pod: PodCapture | None = None


class RequestLimits(DeploymentPart):
    """Admission in front of the model server."""

    max_concurrent_requests: int | None = Field(None, ge=1)
    max_queue_size: int | None = Field(None, ge=0)
    overflow_status_code: int | None = Field(None, ge=400, le=599)


class Probes(DeploymentPart):
    """Kubernetes probes of the model's container, as in a pod."""

    liveness_probe: JsonObject | None = None
    readiness_probe: JsonObject | None = None
    startup_probe: JsonObject | None = None


class ModelVolume(DeploymentPart):
    """Where the weights appear in the container."""

    name: str = "model-weights"
    mount_path: str = "/opt/ml/model"


class FsxStorage(DeploymentPart):
    """The FSx for Lustre file system that holds the weights; the id defaults to the cluster's."""

    file_system_id: str | None = None
    dns_name: str | None = None
    mount_name: str | None = None


class HubModel(DeploymentPart):
    """A Hugging Face repository that the pod downloads itself; id and commit default to the source's."""

    model_id: str | None = Field(None, pattern=r"^[a-zA-Z0-9_.-]+/[a-zA-Z0-9_.-]+$")
    commit_sha: str | None = Field(None, pattern=r"^[0-9a-f]{40}$", serialization_alias="commitSHA")
    token: SecretRef | None = None


class KubernetesOptions(DeploymentPart):
    """What goes into the pod besides the model's container."""

    init_containers: tuple[JsonObject, ...] = ()
    volumes: tuple[JsonObject, ...] = ()
    scheduler_name: str | None = None
    service_account_name: str | None = None


class JumpStartOptions(DeploymentPart):
    """What only a JumpStart model has."""

    accept_eula: bool = False
    hub_name: str | None = None
    gated_model_download_role: str | None = Field(None, pattern=ROLE_ARN)
    additional_configs: dict[str, str] = Field(default_factory=dict, max_length=10)
    execution_role: str | None = Field(None, pattern=ROLE_ARN)
    accelerator_partition_type: str | None = Field(None, pattern=r"^mig-.*$")
    validate_accelerator_partition: bool | None = None


class WeightsCache(DeploymentPart):
    """Weights kept on the node's disk."""

    enabled: bool | None = None
    host_path: str | None = None


class ModelCache(DeploymentPart):
    """Node-level caches; operator v3.3 or newer."""

    weights: WeightsCache | None = None
    images: bool | None = None


class InferenceGateway(DeploymentPart):
    """Serve behind the managed gateway; gateway add-on."""

    enabled: bool = True
    name: str | None = None


class SidecarResources(DeploymentPart):
    """Resources of the operator's sidecars; operator v3.4 or newer."""

    metrics_sidecar: JsonObject | None = Field(None, serialization_alias="metricsSidecarResources")
    metrics_collector: JsonObject | None = Field(None, serialization_alias="metricsCollectorResources")
    s3_uploader: JsonObject | None = Field(None, serialization_alias="s3UploaderResources")
