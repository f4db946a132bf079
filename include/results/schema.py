"""The records of a run: stage outcomes, one result per workload and load level, the run's record."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Literal

from pydantic import Field

from include.catalog.plan import RunIdentity
from include.catalog.specs import JsonObject, Spec

SCHEMA_VERSION = 1
STAGES = ("plan", "preflight", "stage", "create_endpoint", "wait_until_ready", "validate", "benchmark")
NO_CAPACITY = "NoAcceleratorsInTime"
RERUN_DAG = "confirm_suspicion"

StageState = Literal["success", "failed", "skipped", "running"]


class Rerun(Spec):
    """One deployment of an earlier run's plan, asked for by a case; one run of the Dag ``confirm_suspicion``."""

    run_id: str

    @property
    def run_path(self) -> str:
        """Folder of the run below the results store."""
        return RunIdentity(dag_id=RERUN_DAG, run_id=self.run_id, started_at=dt.datetime.fromtimestamp(0, dt.UTC)).path


class StageOutcome(Spec):
    """What happened in one stage, as the stage itself wrote it."""

    stage: str
    state: StageState
    attempt: int = 1
    started_at: dt.datetime
    ended_at: dt.datetime | None = None
    seconds: float = 0.0
    work_seconds: float = Field(0.0, description="Time in the work itself, without our and Airflow's overhead.")
    reason: str = ""
    message: str = ""
    fix: str = ""
    failure_class: str = ""
    evidence: tuple[str, ...] = ()
    data: JsonObject = Field(default_factory=dict)


class Percentiles(Spec):
    """A latency in milliseconds; ``None`` where too few requests make the figure meaningless."""

    count: int = 0
    mean: float | None = None
    p50: float | None = None
    p90: float | None = None
    p95: float | None = None
    p99: float | None = None
    max: float | None = None
    ci95: dict[str, tuple[float, float]] = Field(
        default_factory=dict, description="Order-statistic interval of each percentile within this run."
    )


class Statistics(Spec):
    """Statistics of one load level, from the per-request records alone.

    Latencies count from the scheduled send time; ``*_sent_ms`` from the actual one.
    """

    ttft_ms: Percentiles = Percentiles()
    chunk_gap_ms: Percentiles = Percentiles()
    tpot_ms: Percentiles = Percentiles()
    e2e_ms: Percentiles = Percentiles()
    ttft_sent_ms: Percentiles = Percentiles()
    e2e_sent_ms: Percentiles = Percentiles()
    requests_ok: int = 0
    requests_failed: int = 0
    failures: dict[str, int] = Field(default_factory=dict, description="Failed requests by error class.")
    input_tokens: int = 0
    output_tokens: int = 0
    output_tokens_per_s: float = 0.0
    requests_per_s: float = 0.0
    goodput_rps: float | None = Field(None, description="Requests per second that met the SLO.")
    goodput_share: float | None = Field(None, description="Share of all requests that met the SLO.")
    duration_s: float = 0.0
    window: JsonObject = Field(default_factory=dict, description="Steady-state window and the rule that cut it.")


class Validity(Spec):
    """May this result be compared? An invalid one is kept and never ranked."""

    valid: bool
    reasons: tuple[str, ...] = ()
    client_lag_ms_p99: float | None = None
    client_cpu_share: float | None = None
    server_side_requests: int | None = None
    client_side_requests: int | None = None
    lease_id: str | None = None
    details: JsonObject = Field(default_factory=dict)


class Provenance(Spec):
    """From weights to run: what exactly was measured, by what."""

    model: str
    revision: str
    manifest_digest: str
    plan_digest: str
    spec_digest: str
    image: str = ""
    image_digest: str = ""
    engine: str = ""
    engine_version: str = ""
    endpoint_uid: str = ""
    cluster: str = ""
    instance_type: str = ""
    accelerators: int = 0
    replicas: int = 1
    node_names: tuple[str, ...] = ()
    operator_version: str = ""
    driver_version: str = ""
    harness: str = "hyperpod-loadtest"
    harness_version: str = ""
    parallelism: JsonObject = Field(default_factory=dict)
    dtype: str = ""
    price_id: str = ""


class BenchmarkResult(Spec):
    """One workload at one load level in one run."""

    schema_version: int = SCHEMA_VERSION
    result_id: str
    run: RunIdentity
    workload: str
    load: str
    arm: str = "cold"
    load_spec: JsonObject
    workload_digest: str
    started_at: dt.datetime
    ended_at: dt.datetime
    statistics: Statistics
    validity: Validity
    provenance: Provenance
    slo: JsonObject = Field(default_factory=dict)
    cost_usd: Decimal = Decimal(0)
    usd_per_million_output_tokens: float | None = None
    usd_per_million_good_tokens: float | None = None
    requests_uri: str = ""
    extension: JsonObject = Field(default_factory=dict)


class RunRecord(Spec):
    """What a run came to; written whatever happened, before the teardown."""

    schema_version: int = SCHEMA_VERSION
    run: RunIdentity
    state: Literal["success", "failed", "skipped"]
    failed_stage: str | None = None
    reason: str = ""
    message: str = ""
    fix: str = ""
    evidence: tuple[str, ...] = ()
    started_at: dt.datetime
    ended_at: dt.datetime
    stages: dict[str, StageOutcome] = Field(default_factory=dict)
    plan_digest: str = ""
    model: JsonObject = Field(default_factory=dict, description="name, revision, manifest_digest, bytes")
    endpoint: JsonObject = Field(default_factory=dict, description="name, uid, cold_start")
    results: tuple[str, ...] = Field((), description="result_id of every result of the run.")
    cost_usd: Decimal = Decimal(0)
    report_uri: str = ""
