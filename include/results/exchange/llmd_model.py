"""What a report of llm-d's benchmark format v0.2 may hold: fields, units and limits; nothing else is allowed.

Written from the published format (v0.2 and v0.2.1). Blocks that we never write are taken as they are.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.errors import IntegrityError

Latency = Literal["ms", "s", "ms/token", "s/token"]
Free = dict[str, Any]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Statistics(_Strict):
    mean: float
    mode: float | None = None
    stddev: float | None = Field(None, ge=0)
    min: float | None = None
    p0p1: float | None = None
    p1: float | None = None
    p5: float | None = None
    p10: float | None = None
    p25: float | None = None
    p50: float | None = None
    p75: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    p99p9: float | None = None
    max: float | None = None


class Seconds(_Statistics):
    """A latency."""

    units: Latency


class Tokens(_Statistics):
    """A length."""

    units: Literal["count"]


class TokenRate(_Statistics):
    """Tokens per second."""

    units: Literal["tokens/s"]


class RequestRate(_Statistics):
    """Requests per second."""

    units: Literal["queries/s"]


class Time(_Strict):
    """When a run was; its duration in ISO 8601."""

    start: dt.datetime | None = None
    end: dt.datetime | None = None
    duration: Annotated[str, Field(pattern=r"^P")] | None = None


class Run(_Strict):
    """Which run."""

    uid: str
    eid: str | None = None
    cid: str | None = None
    pid: str | None = None
    time: Time | None = None
    user: str | None = None
    description: str | None = None
    keywords: list[str] | None = None


class Native(_Strict):
    """A tool's own configuration."""

    args: Free | None = None
    envars: Free | None = None
    config: Any = None


class ComponentMetadata(_Strict):
    """A component's unique label, and a digest of its configuration."""

    schema_version: str = "0.0.1"
    label: str
    cfg_id: str
    description: str | None = None


class Generic(BaseModel):
    """Any component that is no inference engine; may hold more."""

    kind: Literal["generic"]
    tool: str
    tool_version: str


class ModelName(_Strict):
    """A served model."""

    name: str


class Parallelism(_Strict):
    """Degrees of parallelism."""

    tp: int = Field(1, ge=0)
    dp: int = Field(1, ge=0)
    dp_local: int = Field(1, ge=0)
    workers: int = Field(1, ge=0)
    ep: int = Field(1, ge=1)
    pp: int = Field(1, ge=1)


class Accelerator(_Strict):
    """What it runs on."""

    model: str
    count: int = Field(ge=0)
    parallelism: Parallelism


class InferenceEngine(_Strict):
    """An engine and its place."""

    kind: Literal["inference_engine"]
    tool: str
    tool_version: str
    role: Literal["replica", "prefill", "decode"]
    replicas: int = Field(ge=1)
    model: ModelName
    accelerator: Accelerator


class Component(_Strict):
    """One part of the stack."""

    metadata: ComponentMetadata
    standardized: Annotated[Generic | InferenceEngine, Field(discriminator="kind")]
    native: Native


class SequenceLength(_Strict):
    """A length in tokens and how it is distributed."""

    distribution: Literal["fixed", "gaussian", "uniform", "other"]
    value: float = Field(ge=0)
    std_dev: float | None = Field(None, ge=0)
    min: int | None = Field(None, ge=0)
    max: int | None = Field(None, ge=1)


class LoadStandard(_Strict):
    """The load in common terms."""

    tool: str
    tool_version: str
    parallelism: int = Field(1, ge=1)
    source: Literal["random", "sampled", "unknown"]
    stage: int = Field(0, ge=0)
    input_seq_len: SequenceLength
    output_seq_len: SequenceLength | None = None
    prefix: Free | None = None
    multi_turn: Free | None = None
    rate_qps: float | None = Field(None, gt=0)
    concurrency: float | None = Field(None, ge=1)


class LoadMetadata(_Strict):
    """A digest of the load's configuration."""

    schema_version: str = "0.0.1"
    cfg_id: str | None = None
    description: str | None = None


class Load(_Strict):
    """The load."""

    metadata: LoadMetadata
    standardized: LoadStandard
    native: Native


class Scenario(_Strict):
    """What was measured under which load."""

    stack: list[Component] | None = None
    load: Load | None = None


class Latencies(_Strict):
    """Latencies of requests."""

    time_to_first_token: Seconds | None = None
    normalized_time_per_output_token: Seconds | None = None
    time_per_output_token: Seconds | None = None
    inter_token_latency: Seconds | None = None
    request_latency: Seconds | None = None


class Throughput(_Strict):
    """Rates."""

    input_token_rate: TokenRate | None = None
    output_token_rate: TokenRate | None = None
    total_token_rate: TokenRate | None = None
    request_rate: RequestRate | None = None


class Requests(_Strict):
    """Counts and lengths of requests."""

    total: int = Field(ge=0)
    failures: int | None = Field(None, ge=0)
    incomplete: int | None = Field(None, ge=0)
    input_length: Tokens | None = None
    output_length: Tokens | None = None


class Aggregate(_Strict):
    """All requests of a run."""

    requests: Requests | None = None
    latency: Latencies | None = None
    throughput: Throughput | None = None


class RequestPerformance(_Strict):
    """Performance of requests."""

    aggregate: Aggregate | None = None
    time_series: Free | None = None


class Results(_Strict):
    """Results; there is no place for anything else, so our own fields go beside the report."""

    request_performance: RequestPerformance | None = None
    session_performance: Free | None = None
    observability: Free | None = None
    profiling: Any = None
    component_health: list[Free] | None = None


class Report(_Strict):
    """A whole report."""

    version: Literal["0.2", "0.2.1"]
    run: Run
    scenario: Scenario | None = None
    results: Results


def check(content: Free) -> None:
    """Refuse a report that the format does not allow.

    :raises IntegrityError: naming every wrong field.
    """
    try:
        Report.model_validate(content)
    except ValidationError as error:
        lines = tuple(
            f"{'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors(include_url=False)
        )
        raise IntegrityError(
            "ReportInvalid", "; ".join(lines), fix="export as llm-d-superset, which keeps it", evidence=lines
        ) from error
