"""What a person writes in the catalog: models, clusters, workloads, the nightly matrix and prices.

Every class is frozen and refuses unknown fields; the loader turns each violation into one line with file,
field, value and fix.
"""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from include.catalog.base import JsonObject as JsonObject
from include.catalog.base import Spec as Spec
from include.catalog.deployment import DeploymentSpec
from include.catalog.weights import FolderSource as FolderSource
from include.catalog.weights import HuggingFaceSource as HuggingFaceSource
from include.catalog.weights import JumpStartSource as JumpStartSource
from include.catalog.weights import Name as Name
from include.catalog.weights import S3Source as S3Source
from include.catalog.weights import Source as Source
from include.catalog.weights import WeightsSpec as WeightsSpec
from include.catalog.weights import WheelSource as WheelSource

Day = Annotated[str, Field(pattern=r"^\d{4}-\d{2}-\d{2}$"), AfterValidator(lambda day: str(dt.date.fromisoformat(day)))]


class Slo(Spec):
    """What a request must meet to count as good; ``None`` means not asked."""

    ttft_ms: float | None = Field(None, gt=0)
    tpot_ms: float | None = Field(None, gt=0)
    e2e_ms: float | None = Field(None, gt=0)
    chunk_gap_ms: float | None = Field(None, gt=0, description="The longest pause between two chunks of an answer.")
    error_rate: float | None = Field(None, ge=0, le=1)

    @property
    def of_latency(self) -> bool:
        """True when a limit tells good answers from others; the error rate is of all requests together."""
        return any(limit is not None for limit in (self.ttft_ms, self.tpot_ms, self.e2e_ms, self.chunk_gap_ms))


class ModelSpec(WeightsSpec):
    """One model: where its weights come from, what is staged, how it is served."""

    description: str = ""
    owner: str = "ml-platform"
    deployment: DeploymentSpec
    slo: Slo = Slo()


# What S3 takes in a tag (S3 user guide, "Categorizing your objects using tags").
TagText = Annotated[str, Field(pattern=r"^[\w .:/=+\-@]*$", max_length=256)]


# Those of S3 whose objects are read without a restore.
StorageClass = Literal[
    "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR", "REDUCED_REDUNDANCY"
]


class BucketOptions(Spec):
    """What is asked of the bucket of the models, and said of each staged object."""

    kms_key: str | None = Field(None, description="ARN or id; none: as the bucket says.")
    storage_class: StorageClass | None = Field(None, description="One that is read at once; none: the bucket's.")
    tags: dict[TagText, TagText] = Field(default_factory=dict, max_length=10)
    owner: str | None = Field(None, pattern=r"^\d{12}$", description="Account that must own the bucket.")


class FsxDelivery(Spec):
    """How staged weights get onto the cluster's FSx for Lustre file system."""

    way: Literal["copy", "import"] = Field(
        "copy", description="copy: a Job writes them to the claim; import: a data repository association brings them."
    )
    claim: str = Field(
        pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        description="PersistentVolumeClaim of the file system's root, in the cluster's namespace.",
    )
    image: str = Field(description="Has this repository's include/ and its lock; runs python -m include.staging.")
    service_account: str | None = Field(None, description="Its role (Pod Identity, IRSA) may read models_uri.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    cpu: str = "2"
    memory: str = "2Gi"
    max_seconds: int = Field(6 * 3600, gt=0)


EngineName = Literal["ours", "vllm-bench", "guidellm", "aiperf", "inference-perf", "sagemaker-benchmark"]


class LoadPods(Spec):
    """Pods that generate load which is too much for the worker; never on the nodes of the model servers."""

    image: str = Field(description="Has this repository's include/ and its lock; runs python -m include.loadtest.")
    service_account: str | None = Field(None, description="Its role (Pod Identity, IRSA) may write results_uri.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    invocation: Literal["service", "endpoints"] = Field("service", description="How the pods reach the endpoint.")
    worker_processes: int = Field(2, ge=0, description="Loads that need more generator processes go to pods.")
    max_pods: int = Field(16, gt=0)
    ready_seconds: int = Field(600, gt=0, description="Until every pod must be ready to start.")
    cpu: str = "1"
    memory: str = "1Gi"


class LoadEngine(Spec):
    """Where another project's load engine is installed; the worker's own environment never has it."""

    venv: str | None = Field(None, description="Virtual environment, of the worker or, with image, in the image.")
    image: str | None = Field(None, description="Runs python -m include.loadtest, and has the engine in its venv.")
    tokenizer: str = Field("", description="Name or folder that the engine is told; empty: the served model.")
    timeout_seconds: int = Field(3600, gt=0)
    role_arn: str | None = Field(None, description="sagemaker-benchmark: the role that SageMaker runs the job with.")
    parameters: JsonObject = Field(default_factory=dict, description="sagemaker-benchmark: more, in its own terms.")


class ClusterSpec(Spec):
    """One HyperPod EKS cluster and the places that belong to it."""

    name: Name
    description: str = ""
    kubernetes_conn_id: str = Field("kubernetes_default", description="Airflow connection to its API.")
    aws_conn_id: str | None = Field("aws_default", description="Airflow connection for S3, SageMaker, FSx.")
    region: str = "us-west-2"
    hyperpod_cluster: str | None = Field(None, description="SageMaker name of the HyperPod cluster.")
    eks_cluster: str | None = Field(None, description="Set: the API's token is made from aws_conn_id.")
    namespace: str = "default"
    models_uri: str = Field(description="s3://bucket[/prefix]: models/<name>/<revision>/ are kept below.")
    results_uri: str = Field(description="s3://… or a folder: run records, results and reports.")
    tls_output_uri: str | None = None
    invocation: Literal["service", "endpoints", "alb", "sagemaker", "port-forward", "proxy"] = "service"
    models_bucket: BucketOptions = BucketOptions()
    max_staged_gb: float | None = Field(None, gt=0, description="Largest revision that is staged, in 10^9 bytes.")
    fsx_file_system_id: str | None = None
    fsx_delivery: FsxDelivery | None = Field(None, description="Needed by models whose model_source is fsx.")
    load_pods: LoadPods | None = Field(None, description="None: every load comes from the worker.")
    load_engines: dict[EngineName, LoadEngine] = Field(default_factory=dict)
    queue_name: str | None = Field(None, description="Kueue local queue.")
    max_hourly_price: Decimal | None = None

    @property
    def max_staged_bytes(self) -> int | None:
        """``max_staged_gb`` in bytes."""
        return None if self.max_staged_gb is None else int(self.max_staged_gb * 10**9)


class PromptSpec(Spec):
    """What one request asks; token counts are exact for synthetic prompts."""

    kind: Literal["synthetic", "shared-prefix", "multi-turn", "dataset"] = "synthetic"
    input_tokens: int = Field(64, gt=0)
    output_tokens: int = Field(32, gt=0)
    input_tokens_stddev: float = Field(0, ge=0)
    output_tokens_stddev: float = Field(0, ge=0)
    prefix_tokens: int = Field(0, ge=0)
    prefix_groups: int = Field(1, gt=0)
    turns: int = Field(1, gt=0)
    think_time_s: float = Field(0, ge=0)
    followup_tokens: int | None = Field(None, gt=0, description="Tokens of later turns; none: input_tokens.")
    followup_role: Literal["user", "tool"] = Field("user", description="Who speaks in the later turns.")
    tools: int = Field(0, ge=0, le=256, description="Function definitions that each request carries.")
    dataset: str | None = Field(None, description="JSONL, Parquet or ShareGPT file: path or s3:// URI.")

    @model_validator(mode="after")
    def _dataset_is_named(self) -> PromptSpec:
        if self.kind == "dataset" and not self.dataset:
            raise ValueError("kind dataset needs dataset: the file's path or s3:// URI")
        return self


class LoadSpec(Spec):
    """One load level: closed loop (``concurrency``) or open loop (``rate``)."""

    mode: Literal["closed", "open"]
    concurrency: int | None = Field(None, gt=0)
    rate: float | None = Field(None, gt=0, description="Requests per second.")
    arrivals: Literal["constant", "poisson", "gamma", "ramp", "replay"] = "poisson"
    burstiness: float = Field(1.0, gt=0, description="Shape of the gamma arrivals; 1 is Poisson.")
    end_rate: float | None = Field(None, gt=0, description="Rate at the end of a ramp.")
    trace: str | None = Field(None, description="Recorded trace to replay, with its own timestamps.")
    requests: int | None = Field(None, gt=0)
    duration_s: float | None = Field(None, gt=0)
    stop_error_rate: float | None = Field(None, gt=0, le=1)
    ramp_s: float | None = Field(
        None, ge=0, description="Closed loop: spread of the first wave; none: one measured TTFT."
    )
    workers: int | None = Field(None, gt=0, le=64, description="Generator processes; none: by the target rate.")

    @property
    def label(self) -> str:
        """Short name of the level: ``c=4`` or ``rate=2``."""
        if self.mode == "closed":
            return f"c={self.concurrency}"
        return f"rate={self.rate:g}" if self.rate is not None else self.arrivals


class SearchSpec(Spec):
    """How the highest load that still meets the SLO is looked for, or the knee beyond which more load brings no more.

    A probe needs about 110 requests to prove an attainment of 0.95, 55 for 0.9: choose its duration accordingly.
    """

    by: Literal["rate", "concurrency"] = "rate"
    start: float = Field(1, gt=0, description="First level: requests per second, or users.")
    limit: float = Field(1024, gt=0, description="Highest level that is tried.")
    duration_s: float = Field(30, gt=0, description="Of one probe.")
    attainment: float = Field(0.95, gt=0, lt=1, description="Share of requests that must meet the SLO.")
    precision: float = Field(0.1, gt=0, le=1, description="Width of the final bracket, as a share of its lower end.")
    max_probes: int = Field(16, ge=2, le=64)
    knee: bool = Field(False, description="Look for the saturation knee instead; needs no SLO.")

    @field_validator("start", "limit")
    @classmethod
    def _level(cls, value: float, info: ValidationInfo) -> float:
        if info.data.get("by") == "concurrency" and value != int(value):
            raise PydanticCustomError("users", "users are whole numbers: give one, or search by rate")
        if info.field_name == "limit" and value < info.data.get("start", value):
            raise PydanticCustomError(
                "limit", "the limit is below the first level, start {start}", {"start": f"{info.data['start']:g}"}
            )
        return value


class WorkloadSpec(Spec):
    """A named workload: prompts, protocol, load levels and what counts as good."""

    name: Name
    description: str = ""
    protocol: Literal["openai-chat", "openai-completions", "invocations", "sagemaker", "embeddings"] = "openai-chat"
    stream: bool = True
    prompts: tuple[PromptSpec, ...] = Field((PromptSpec(),), min_length=1)
    weights: tuple[float, ...] = Field((), description="Share of each prompt spec; empty: equal shares.")
    loads: tuple[LoadSpec, ...] = Field(min_length=1)
    warmup_requests: int = Field(2, ge=0)
    arms: tuple[Literal["cold", "warm"], ...] = ("cold",)
    request_timeout_s: float = Field(120, gt=0)
    seed: int = 7
    slo: Slo = Slo()
    engine: EngineName = Field("ours", description="Another one must be in the cluster's load_engines.")
    search: SearchSpec | None = Field(None, description="After the levels: the highest load that meets the SLO.")

    @field_validator("loads")
    @classmethod
    def _one_of_each(cls, loads: tuple[LoadSpec, ...]) -> tuple[LoadSpec, ...]:
        labels = [load.label for load in loads]
        if twice := sorted({label for label in labels if labels.count(label) > 1}):
            raise PydanticCustomError(
                "levels",
                "two levels are {labels}, and a result is known by that alone: put one into a workload of its own",
                {"labels": ", ".join(twice)},
            )
        return loads

    @property
    def content(self) -> JsonObject:
        """What the workload's digest is of; our own engine goes without saying, a search changes no level.

        Nor does a limit that is not asked for, when it is younger than the first results.
        """
        found = self.model_dump(mode="json", exclude={"search"} | ({"engine"} if self.engine == "ours" else set()))
        if self.slo.chunk_gap_ms is None:
            del found["slo"]["chunk_gap_ms"]
        return found


class Quarantine(Spec):
    """A cell that scheduled nights leave out, with a reason, until the end of a day."""

    until: Day
    reason: str = Field(min_length=3)


class NightlyCell(Spec):
    """One cell of the nightly matrix.

    :param every_days: how often it is due although nothing changed; changed or failed cells are due every night.
    """

    model: str
    workloads: tuple[str, ...] = Field(min_length=1)
    cluster: str
    every_days: int = Field(1, ge=1, le=90)
    quarantine: Quarantine | None = None


class ConfirmationLimits(Spec):
    """What the re-runs of one night's suspicions may take, all cells together; 0 turns them off.

    One suspicion takes a single run when that refutes it, else 13 or 17.
    """

    runs: int = Field(26, ge=0)
    budget_usd: Decimal = Field(Decimal(100), ge=0)


class NightlySpec(Spec):
    """The nightly matrix, and what confirming its suspicions may cost.

    :param capacity_wait_hours: how long after the night's start a cell may wait for accelerators; then it is recorded
        as skipped.
    """

    cells: tuple[NightlyCell, ...] = ()
    capacity_wait_hours: float = Field(3.0, ge=0, le=24)
    confirm: ConfirmationLimits = ConfirmationLimits()


class Price(Spec):
    """Hourly price of an instance type from a date on."""

    instance_type: str
    hourly_usd: Decimal = Field(ge=0)
    since: Day
    kind: Literal["on-demand", "capacity-block", "training-plan", "local"] = "on-demand"
    source: str = ""


class PriceBook(Spec):
    """Dated prices; a run is costed by the entry in force on its day."""

    id: str
    currency: Literal["USD"] = "USD"
    prices: tuple[Price, ...] = ()
