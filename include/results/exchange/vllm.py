"""vLLM's ``bench serve`` JSON: flat, milliseconds in names, no environment."""

from __future__ import annotations

from typing import Any

from include.results.exchange.normal import JsonObject, imported, percentiles, source
from include.results.exchange.reading import Document
from include.results.schema import BenchmarkResult, Percentiles, Statistics

FORM = "vllm-bench"
_LATENCIES = {"ttft": "ttft_ms", "tpot": "tpot_ms", "itl": "chunk_gap_ms", "e2el": "e2e_ms"}
_STATISTICS = {"mean": "mean", "median": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
_SERIES = ("input_lens", "output_lens", "ttfts", "itls", "errors")


def read(document: Document) -> BenchmarkResult:
    """Return the result in a file.

    :raises IntegrityError: a field is missing or not what it must be; series that disagree in length.
    """
    completed = document.count("completed")
    duration = document.number("duration") or 0.0
    failed = document.count("failed", required=False)
    if completed and not duration:
        raise document.bad("duration", f"is 0 with {completed} completed requests")
    if not (model := document.get("model_id", str).strip()):
        raise document.bad("model_id", "is empty")
    lengths = {n: len(found) for n in _SERIES if (found := document.get(n, list, required=False)) is not None}
    if len(set(lengths.values())) > 1:
        short = min(lengths, key=lambda name: lengths[name])
        raise document.bad(short, f"has {lengths[short]} entries, others have {max(lengths.values())}")
    latencies = {
        ours: percentiles(
            completed,
            {to: document.number(f"{name}_{theirs}_ms", required=False) for name, to in _STATISTICS.items()},
        )
        for theirs, ours in _LATENCIES.items()
    }
    statistics = Statistics(
        **latencies,
        requests_ok=completed,
        requests_failed=failed,
        input_tokens=document.count("total_input_tokens"),
        output_tokens=document.count("total_output_tokens"),
        output_tokens_per_s=document.number("output_throughput") or 0.0,
        requests_per_s=document.number("request_throughput") or 0.0,
        goodput_rps=document.number("request_goodput", required=False),
        duration_s=duration,
    )
    return imported(
        form=FORM,
        version=str(document.content.get("vllm_version", "")),
        document=document.content,
        model=model,
        workload=str(document.content.get("dataset_name") or document.content.get("label") or ""),
        load_spec=_load(document),
        statistics=statistics,
        started_at=document.moment("date"),
        tool=FORM,
        provenance={"engine": str(document.content.get("backend") or document.content.get("endpoint_type") or "")},
    )


def write(result: BenchmarkResult) -> JsonObject:
    """Return a result in vLLM's shape."""
    if (known := source(result, FORM)) is not None:
        return known
    s, load = result.statistics, result.load_spec
    rate: Any = load.get("rate")
    content: JsonObject = {
        "date": f"{result.started_at:%Y%m%d-%H%M%S}",
        "backend": result.provenance.engine or result.provenance.harness,
        "model_id": result.provenance.model,
        "dataset_name": result.workload,
        "num_prompts": s.requests_ok + s.requests_failed,
        "request_rate": rate if rate is not None else "inf",
        "max_concurrency": load.get("concurrency"),
        "duration": s.duration_s,
        "completed": s.requests_ok,
        "failed": s.requests_failed,
        "total_input_tokens": s.input_tokens,
        "total_output_tokens": s.output_tokens,
        "request_throughput": s.requests_per_s,
        "request_goodput": s.goodput_rps,
        "output_throughput": s.output_tokens_per_s,
        "total_token_throughput": (s.input_tokens + s.output_tokens) / s.duration_s if s.duration_s else 0.0,
    }
    for theirs, ours in _LATENCIES.items():
        values: Percentiles = getattr(s, ours)
        content |= {
            f"{name}_{theirs}_ms": value
            for name, attribute in _STATISTICS.items()
            if (value := getattr(values, attribute)) is not None
        }
    return content


def _load(document: Document) -> JsonObject:
    limit = document.number("max_concurrency", required=False)
    if limit:
        return {"mode": "closed", "concurrency": int(limit)}
    rate = document.content.get("request_rate")
    if isinstance(rate, (int, float)) and rate > 0:
        return {"mode": "open", "rate": float(rate)}
    if rate not in ("inf", None):
        raise document.bad("request_rate", f"is {rate!r}, neither a rate nor inf")
    return {"mode": "open", "rate": "inf"}
