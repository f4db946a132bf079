"""Results and runs as flat rows for the query index; times are UTC without a zone, as DuckDB keeps them."""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any

from include.canonical import canonical_json
from include.endpoint.model import TeardownReport
from include.results.key import SeriesKey
from include.results.schema import BenchmarkResult, RunRecord

if TYPE_CHECKING:
    import pyarrow as pa

LATENCIES = ("ttft_ms", "chunk_gap_ms", "tpot_ms", "e2e_ms")
QUANTILES = ("mean", "p50", "p90", "p95", "p99", "max")
RATES = ("output_tokens_per_s", "requests_per_s", "goodput_rps", "goodput_share", "duration_s")
TOKENS = ("input_tokens", "output_tokens")
METRIC_COLUMNS = tuple(f"{name}_{q}" for name in LATENCIES for q in QUANTILES) + RATES

_RESULT_TEXT = (
    "result_id", "series", "run_path", "dag_id", "run_id", "cell", "night", "model", "workload", "workload_digest",
    "load", "arm", "cluster", "instance_type", "parallelism", "dtype", "engine", "harness", "harness_version",
    "revision", "manifest_digest", "plan_digest", "spec_digest", "image", "image_digest", "engine_version",
    "endpoint_uid", "operator_version", "driver_version", "node_names", "price_id", "slo", "reasons", "lease_id",
    "failures", "requests_uri", "path", "imported",
)  # fmt: skip
_RUN_TEXT = (
    "run_path", "dag_id", "run_id", "cell", "night", "state", "failed_stage", "reason", "message", "fix", "evidence",
    "model", "revision", "workloads", "endpoint_name", "cold_start", "report_uri", "path",
)  # fmt: skip


def result_schema() -> pa.Schema:
    """Return the columns of the results index."""
    import pyarrow as pa

    moment = pa.timestamp("us")
    return pa.schema(
        [(name, pa.string()) for name in _RESULT_TEXT]
        + [("started_at", moment), ("ended_at", moment), ("valid", pa.bool_())]
        + [(name, pa.int64()) for name in ("accelerators", "replicas", "requests_ok", "requests_failed", *TOKENS)]
        + [(name, pa.float64()) for name in (*METRIC_COLUMNS, "cost_usd", "usd_per_million", "usd_per_million_good")]
    )


def run_schema() -> pa.Schema:
    """Return the columns of the runs index."""
    import pyarrow as pa

    moment = pa.timestamp("us")
    return pa.schema(
        [(name, pa.string()) for name in _RUN_TEXT]
        + [("started_at", moment), ("ended_at", moment), ("absent", pa.bool_())]
        + [(name, pa.float64()) for name in ("cost_usd", "gpu_hours", "cold_start_s")]
    )


def result_row(result: BenchmarkResult, path: str) -> dict[str, Any]:
    """Return a result's row; metrics are ``None`` where they were inestimable, never zero."""
    key, p, s = SeriesKey.of(result), result.provenance, result.statistics
    row: dict[str, Any] = key.as_dict() | {
        "accelerators": p.accelerators,
        "replicas": p.replicas,
        "result_id": result.result_id,
        "series": key.id,
        **_run_fields(result.run.path, result.run.dag_id, result.run.run_id, result.run.cell),
        "night": f"{result.run.started_at.astimezone(dt.UTC):%Y-%m-%d}",
        "node_names": ",".join(p.node_names),
        "valid": result.validity.valid,
        "reasons": "; ".join(result.validity.reasons),
        "lease_id": result.validity.lease_id or "",
        "slo": canonical_json({k: v for k, v in result.slo.items() if v is not None}).decode(),
        "failures": json.dumps(s.failures, sort_keys=True),
        "requests_uri": result.requests_uri,
        "path": path,
        "imported": str((result.extension.get("imported") or {}).get("format", "")),
        "started_at": _utc(result.started_at),
        "ended_at": _utc(result.ended_at),
        "cost_usd": float(result.cost_usd),
        "usd_per_million": result.usd_per_million_output_tokens,
        "usd_per_million_good": result.usd_per_million_good_tokens,
    }
    for name in ("revision", "manifest_digest", "plan_digest", "spec_digest", "image", "image_digest",
                 "engine_version", "endpoint_uid", "operator_version", "driver_version", "price_id"):  # fmt: skip
        row[name] = getattr(p, name)
    for name in ("requests_ok", "requests_failed", *TOKENS, *RATES):
        row[name] = getattr(s, name)
    for name in LATENCIES:
        values = getattr(s, name)
        row |= {f"{name}_{q}": getattr(values, q) for q in QUANTILES}
    if not s.requests_ok:
        row |= dict.fromkeys(("output_tokens_per_s", "requests_per_s"))
    return row


def run_row(record: RunRecord, path: str, teardown: TeardownReport | None = None) -> dict[str, Any]:
    """Return a run's row, failed and skipped runs alike; the cost is the proven one once the teardown has ended."""
    phases = record.endpoint.get("cold_start") or {}
    return {
        **_run_fields(record.run.path, record.run.dag_id, record.run.run_id, record.run.cell),
        "night": f"{record.run.started_at.astimezone(dt.UTC):%Y-%m-%d}",
        "state": record.state,
        "failed_stage": record.failed_stage or "",
        "reason": record.reason,
        "message": record.message,
        "fix": record.fix,
        "evidence": json.dumps(list(record.evidence)),
        "model": str(record.model.get("name", "")),
        "revision": str(record.model.get("revision", "")),
        "workloads": json.dumps(list(record.model.get("workloads") or ())),
        "endpoint_name": str(record.endpoint.get("name", "")),
        "cold_start": json.dumps(phases, sort_keys=True),
        "cold_start_s": phases.get("total"),
        "report_uri": record.report_uri,
        "path": path,
        "started_at": _utc(record.started_at),
        "ended_at": _utc(record.ended_at),
        "cost_usd": float(teardown.cost_usd if teardown else record.cost_usd),
        "gpu_hours": teardown.gpu_hours if teardown else None,
        "absent": teardown.absent if teardown else None,
    }


def table(rows: list[dict[str, Any]], schema: pa.Schema) -> pa.Table:
    """Return rows as an Arrow table of exactly the schema's columns."""
    import pyarrow as pa

    names = set(schema.names)
    return pa.Table.from_pylist([{k: v for k, v in row.items() if k in names} for row in rows], schema=schema)


def _run_fields(path: str, dag_id: str, run_id: str, cell: str) -> dict[str, str]:
    return {"run_path": path, "dag_id": dag_id, "run_id": run_id, "cell": cell}


def _utc(moment: dt.datetime) -> dt.datetime:
    return moment.astimezone(dt.UTC).replace(tzinfo=None)
