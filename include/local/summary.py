"""The summary of one release: from the run's own records, as JSON for machines and as a table for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from include.results.schema import BenchmarkResult, Percentiles, RunRecord

LATENCIES = ("ttft_ms", "chunk_gap_ms", "tpot_ms", "e2e_ms")


def read_run(folder: Path) -> tuple[RunRecord, dict[str, Any]]:
    """Read a run's record and teardown report from its folder in the results store.

    :raises FileNotFoundError: when the run wrote no record, which it must whatever happened.
    """
    record = RunRecord.model_validate_json((folder / "record.json").read_text())
    teardown = folder / "teardown.json"
    return record, json.loads(teardown.read_text()) if teardown.exists() else {"absent": False}


def summarise(
    record: RunRecord,
    results: Sequence[BenchmarkResult],
    teardown: Mapping[str, Any],
    *,
    wall_seconds: float,
    leftovers: Sequence[str],
) -> dict[str, Any]:
    """Return the machine-readable summary.

    ``overhead_seconds`` is the wall time without the work inside staging, model load, validation and load
    phases: Airflow's share and ours.
    """
    stages = {
        name: {"state": outcome.state, "seconds": round(outcome.seconds, 3)} for name, outcome in record.stages.items()
    }
    cold_start = dict(record.endpoint.get("cold_start") or {})
    worked = sum(
        outcome.work_seconds for name, outcome in record.stages.items() if name in ("stage", "validate", "benchmark")
    )
    return {
        "run_id": record.run.run_id,
        "state": record.state,
        "reason": record.reason,
        "stages": stages,
        "model": {
            "name": record.model.get("name"),
            "revision": record.model.get("revision"),
            "manifest_digest": record.model.get("manifest_digest"),
            "bytes": record.model.get("bytes"),
            "moved_bytes": record.model.get("moved_bytes"),
        },
        "endpoint": {"name": record.endpoint.get("name"), "cold_start": cold_start},
        "benchmark": [_level(result) for result in results],
        "cost_usd": float(record.cost_usd),
        "report": record.report_uri,
        "teardown": {**teardown, "leftovers": list(leftovers)},
        "wall_seconds": round(wall_seconds, 2),
        "overhead_seconds": round(wall_seconds - worked - float(cold_start.get("total") or 0), 2),
    }


def _level(result: BenchmarkResult) -> dict[str, Any]:
    statistics = result.statistics
    return {
        "workload": result.workload,
        "load": result.load,
        **{name: _percentiles(getattr(statistics, name)) for name in LATENCIES},
        "output_tokens_per_s": round(statistics.output_tokens_per_s, 2),
        "requests": {"ok": statistics.requests_ok, "failed": statistics.requests_failed},
        "failures": statistics.failures,
        "goodput": statistics.goodput_rps,
        "valid": result.validity.valid,
        "validity_reasons": list(result.validity.reasons),
    }


def _percentiles(values: Percentiles) -> dict[str, Any]:
    """p50, p95, p99; where too few requests make one inestimable, the maximum as its bound, and named."""
    wanted = ("p50", "p95", "p99")
    bounded = [name for name in wanted if getattr(values, name) is None and values.max is not None]
    found = {name: values.max if name in bounded else getattr(values, name) for name in wanted}
    return {**found, "upper_bounds": bounded}


def render(summary: Mapping[str, Any]) -> str:
    """Return the summary as text for a terminal, at most 110 columns wide."""
    lines = [
        "",
        f"Run {summary['run_id']}: {summary['state']}" + (f" ({summary['reason']})" if summary["reason"] else ""),
        _staged(summary),
        _cold_start(summary["endpoint"]),
        "",
        _row("load", *(f"{name} ms p50/p95/p99" for name in ("TTFT", "TPOT", "E2E")), "tok/s", "good/s", "ok", "bad"),
    ]
    for level in summary["benchmark"]:
        requests = level["requests"]
        lines.append(
            _row(
                f"{level['workload']} {level['load']}",
                *(_triple(level[name]) for name in ("ttft_ms", "tpot_ms", "e2e_ms")),
                f"{level['output_tokens_per_s']:.1f}",
                "-" if level["goodput"] is None else f"{level['goodput']:.2f}",
                str(requests["ok"]),
                str(requests["failed"]),
            )
        )
    lines += ["", *_ending(summary)]
    return "\n".join(lines)


def _staged(summary: Mapping[str, Any]) -> str:
    model, stage = summary["model"], summary["stages"].get("stage", {})
    size, moved = model["bytes"] or 0, model.get("moved_bytes") or 0
    rate = moved / 1e6 / stage["seconds"] if moved and stage.get("seconds") else 0
    how = f"moved at {rate:.0f} MB/s" if moved else "already there, verified, nothing moved"
    return f"Staged    {size / 1e6:.1f} MB, {how}; manifest {str(model['manifest_digest'])[:19]}…"


def _cold_start(endpoint: Mapping[str, Any]) -> str:
    phases = endpoint.get("cold_start") or {}
    parts = ", ".join(f"{name} {value:.1f}" for name, value in phases.items() if name != "total")
    return f"Cold start {phases.get('total', 0):.1f} s ({parts})  endpoint {endpoint.get('name')}"


def _triple(values: Mapping[str, float | None]) -> str:
    return " / ".join("-" if values[name] is None else f"{values[name]:.0f}" for name in ("p50", "p95", "p99"))


def _row(*cells: str) -> str:
    widths = (16, 20, 20, 21, 7, 7, 5, 4)
    return " ".join(
        cell.ljust(width) if index < 4 else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )


def _ending(summary: Mapping[str, Any]) -> list[str]:
    teardown = summary["teardown"]
    gone = [item for item in teardown.get("objects", ()) if item.get("existed") and item.get("absent")]
    proof = f"{len(gone)} objects proven absent" if teardown.get("absent") else "NOT proven absent"
    names = ", ".join(f"{item['kind']}/{item['name']}" for item in gone[:4])
    left = teardown["leftovers"]
    return [
        f"Teardown  {proof}{': ' + names if names else ''}{', …' if len(gone) > 4 else ''}",
        f"Left over {'nothing' if not left else '; '.join(left)}",
        f"Cost      ${summary['cost_usd']:.4f}   wall {summary['wall_seconds']:.0f} s, of it Airflow and we "
        f"{summary['overhead_seconds']:.0f} s",
        f"Report    {summary['report']}",
    ]
