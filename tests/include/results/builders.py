"""Small, valid results and records; a test states only what it is about."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path
from typing import Any

from include.catalog.plan import RunIdentity
from include.results.schema import BenchmarkResult, Percentiles, Provenance, RunRecord, Statistics, Validity

START = dt.datetime(2026, 10, 1, 2, 0, tzinfo=dt.UTC)


def run_of(
    night: int = 0, *, cell: str = "", dag_id: str = "nightly_benchmark", run_id: str | None = None
) -> RunIdentity:
    started = START + dt.timedelta(days=night)
    return RunIdentity(dag_id=dag_id, run_id=run_id or f"scheduled__{started:%Y-%m-%d}", cell=cell, started_at=started)


def percentiles(p50: float | None, *, count: int = 400) -> Percentiles:
    if p50 is None:
        return Percentiles()
    return Percentiles(count=count, mean=p50 * 1.02, p50=p50, p90=p50 * 1.2, p95=p50 * 1.3, p99=p50 * 1.6, max=p50 * 2)


def statistics(ttft: float | None = 100.0, *, tokens_per_s: float = 500.0, ok: int = 400, **changes: Any) -> Statistics:
    base = ttft or 0.0
    fields: dict[str, Any] = {
        "ttft_ms": percentiles(ttft),
        "chunk_gap_ms": percentiles(base / 10 if ttft else None),
        "tpot_ms": percentiles(base / 10 if ttft else None),
        "e2e_ms": percentiles(base * 4 if ttft else None),
        "requests_ok": ok,
        "input_tokens": ok * 64,
        "output_tokens": ok * 32,
        "output_tokens_per_s": tokens_per_s,
        "requests_per_s": tokens_per_s / 32,
        "goodput_rps": tokens_per_s / 40,
        "goodput_share": 0.9,
        "duration_s": 60.0,
    }
    return Statistics(**(fields | changes))


def provenance(**changes: Any) -> Provenance:
    fields: dict[str, Any] = {
        "model": "llama",
        "revision": "a" * 40,
        "manifest_digest": "sha256:" + "1" * 64,
        "plan_digest": "sha256:" + "2" * 64,
        "spec_digest": "sha256:" + "3" * 64,
        "image": "repo/vllm:1",
        "image_digest": "sha256:" + "4" * 64,
        "engine": "vllm",
        "engine_version": "0.11.1",
        "cluster": "local",
        "instance_type": "ml.g5.8xlarge",
        "accelerators": 1,
        "harness_version": "1.0",
    }
    return Provenance(**(fields | changes))


def result(
    night: int = 0, *, workload: str = "chat", load: str = "c=4", ttft: float | None = 100.0, **changes: Any
) -> BenchmarkResult:
    run = changes.pop("run", None) or run_of(night)
    started = run.started_at + dt.timedelta(minutes=10)
    fields: dict[str, Any] = {
        "result_id": f"{run.owner}-{workload}-{load.replace('=', '')}-cold",
        "run": run,
        "workload": workload,
        "load": load,
        "load_spec": {"mode": "closed", "concurrency": 4},
        "workload_digest": "sha256:" + "5" * 64,
        "started_at": started,
        "ended_at": started + dt.timedelta(minutes=1),
        "statistics": statistics(ttft),
        "validity": Validity(valid=True, lease_id="lease-1"),
        "provenance": provenance(),
        "slo": {"ttft_ms": 300.0},
        "cost_usd": Decimal("0.0510"),
        "usd_per_million_output_tokens": 1.7,
    }
    return BenchmarkResult(**(fields | changes))


def record(night: int = 0, *, state: str = "success", **changes: Any) -> RunRecord:
    run = changes.pop("run", None) or run_of(night)
    fields: dict[str, Any] = {
        "run": run,
        "state": state,
        "started_at": run.started_at,
        "ended_at": run.started_at + dt.timedelta(minutes=20),
        "model": {"name": "llama", "revision": "a" * 40, "workloads": ["chat"]},
        "endpoint": {"name": "llama-20261001-abc", "cold_start": {"total": 90.0, "weights": 40.0, "load": 50.0}},
        "cost_usd": Decimal("1.02"),
    }
    return RunRecord(**(fields | changes))


def requests_file(path: Path, count: int = 50, *, ttft_ms: float = 100.0, seed: int = 1) -> Path:
    """Write per-request records with the columns that the results package reads."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    rng = np.random.default_rng(seed)
    scheduled = np.arange(count, dtype=np.int64) * 10_000_000 + 1_700_000_000_000_000_000
    ttft = (ttft_ms * np.exp(rng.normal(0, 0.1, count)) * 1e6).astype(np.int64)
    decode = (ttft_ms * 3 * np.exp(rng.normal(0, 0.1, count)) * 1e6).astype(np.int64)
    failed = rng.random(count) < 0.02
    columns = {
        "request_id": [f"r{n}" for n in range(count)],
        "phase": ["measure"] * count,
        "scheduled_ns": scheduled,
        "sent_ns": scheduled,
        "first_token_ns": scheduled + ttft,
        "last_token_ns": scheduled + ttft + decode,
        "end_ns": scheduled + ttft + decode,
        "output_tokens": np.full(count, 32),
        "input_tokens": np.full(count, 64),
        "ok": ~failed,
        "error_class": np.where(failed, "http-500", ""),
    }
    pq.write_table(pa.table(columns), path)
    return path
