"""llm-d benchmark report v0.2 and v0.2.1: strict, and with our superset record beside it."""

from __future__ import annotations

import datetime as dt
from typing import Any

from include.results.exchange.llmd_model import Parallelism, check
from include.results.exchange.normal import JsonObject, imported, percentiles, source
from include.results.exchange.reading import Document
from include.results.schema import BenchmarkResult, Percentiles, Statistics

FORM = "llm-d"
VERSIONS = ("0.2", "0.2.1")
EXTENSION = "hyperpod"
_AGGREGATE = "results.request_performance.aggregate"
_LOAD = "scenario.load.standardized"
_SCALES = {"s": 1e3, "ms": 1.0, "s/token": 1e3, "ms/token": 1.0}
_RATES = ("tokens/s", "queries/s")
_LATENCIES = {
    "time_to_first_token": ("ttft_ms", "ms"),
    "time_per_output_token": ("tpot_ms", "ms/token"),
    "inter_token_latency": ("chunk_gap_ms", "ms/token"),
    "request_latency": ("e2e_ms", "ms"),
}
_POINTS = ("mean", "p50", "p90", "p95", "p99", "max")
_TOP = {"version", "run", "scenario", "results", EXTENSION}


def read(document: Document) -> BenchmarkResult:
    """Return the result in a report.

    :raises IntegrityError: another version, an unknown top-level field, a missing or wrong field, an unknown unit.
    """
    version = str(document.content.get("version", ""))
    if version not in VERSIONS:
        raise document.bad("version", f"is {version!r}; read are {', '.join(VERSIONS)}", "convert the report to v0.2")
    for name in sorted(set(document.content) - _TOP):
        raise document.bad(name, "is not a field of a report", "remove it; reports of v0.2 allow no other fields")
    kept = document.content.get(EXTENSION)
    if isinstance(kept, dict) and "result" in kept:
        return _ours(document, kept["result"])
    document.get("run.uid", str)
    document.get("scenario", dict, required=False)
    count = document.count(f"{_AGGREGATE}.requests.total")
    failures = document.count(f"{_AGGREGATE}.requests.failures", required=False)
    ok = count - failures
    if ok < 0:
        raise document.bad(f"{_AGGREGATE}.requests.failures", f"is {failures} of {count} requests")
    duration = _duration(document)
    tokens = {
        way: (_mean(document, f"{_AGGREGATE}.requests.{way}_length", ("count",)) or 0.0) for way in ("input", "output")
    }
    load = document.get(_LOAD, dict, required=False) or {}
    statistics = Statistics(
        **{ours: _latency(document, name, ok) for name, (ours, _) in _LATENCIES.items()},
        requests_ok=ok,
        requests_failed=failures,
        input_tokens=round(tokens["input"] * ok),
        output_tokens=round(tokens["output"] * ok),
        output_tokens_per_s=_mean(document, f"{_AGGREGATE}.throughput.output_token_rate", _RATES) or 0.0,
        requests_per_s=_mean(document, f"{_AGGREGATE}.throughput.request_rate", _RATES) or 0.0,
        duration_s=duration,
    )
    return imported(
        form=FORM, version=version, document=document.content, model=_model(document),
        workload=str(document.content["run"].get("eid") or load.get("source") or ""),
        load_spec=_load(document), statistics=statistics,
        started_at=document.moment("run.time.start"),
        tool=str(load.get("tool", "")) or FORM, tool_version=str(load.get("tool_version", "")),
    )  # fmt: skip


def write(result: BenchmarkResult, *, strict: bool = True) -> JsonObject:
    """Return a result as a report.

    :param strict: only what v0.2 allows; else our whole record is added under ``hyperpod``.
    :raises IntegrityError: strict, and the result holds what v0.2 does not allow.
    """
    content = source(result, FORM)
    if content is None:
        content = _report(result)
        check(content)
    if not strict:
        content = content | {EXTENSION: {"result": result.model_dump(mode="json")}}
    return content


def _report(result: BenchmarkResult) -> JsonObject:
    s, p, load = result.statistics, result.provenance, result.load_spec
    duration = result.ended_at - result.started_at
    standard: JsonObject = {
        "metadata": {"schema_version": "0.0.1", "cfg_id": result.workload_digest, "description": result.workload},
        "standardized": {
            "tool": p.harness,
            "tool_version": p.harness_version,
            "source": "unknown",
            "input_seq_len": {"distribution": "other", "value": s.input_tokens / s.requests_ok if s.requests_ok else 0},
        },
        "native": {"args": {}, "config": {key: value for key, value in load.items() if value is not None}},
    }
    numbers = {"rate_qps": load.get("rate"), "concurrency": load.get("concurrency")}
    standard["standardized"] |= {k: v for k, v in numbers.items() if isinstance(v, (int, float)) and v > 0}
    latency = {
        name: {"units": unit, **_points(getattr(s, ours))}
        for name, (ours, unit) in _LATENCIES.items()
        if getattr(s, ours).mean is not None
    }
    requests: JsonObject = {"total": s.requests_ok + s.requests_failed, "failures": s.requests_failed}
    if s.requests_ok:
        requests |= {
            "input_length": {"units": "count", "mean": s.input_tokens / s.requests_ok},
            "output_length": {"units": "count", "mean": s.output_tokens / s.requests_ok},
        }
    return {
        "version": "0.2",
        "run": {
            "uid": result.result_id,
            "eid": result.workload,
            **({"cid": p.cluster} if p.cluster else {}),
            "time": {
                "start": result.started_at.astimezone(dt.UTC).isoformat(),
                "end": result.ended_at.astimezone(dt.UTC).isoformat(),
                "duration": f"PT{duration.total_seconds():.3f}S",
            },
            "description": f"{result.workload} {result.load} {result.arm}",
        },
        "scenario": {"stack": [_stack(result)], "load": standard},
        "results": {
            "request_performance": {
                "aggregate": {
                    "latency": latency,
                    "throughput": {
                        "output_token_rate": {"units": "tokens/s", "mean": s.output_tokens_per_s},
                        "request_rate": {"units": "queries/s", "mean": s.requests_per_s},
                    },
                    "requests": requests,
                }
            }
        },
    }


def _stack(result: BenchmarkResult) -> JsonObject:
    p = result.provenance
    return {
        "metadata": {
            "schema_version": "0.0.1",
            "label": p.endpoint_uid or "endpoint",
            "cfg_id": p.spec_digest or p.plan_digest or "unknown",
        },
        "standardized": {
            "kind": "inference_engine",
            "tool": p.engine or "unknown",
            "tool_version": p.image_digest or p.image or p.engine_version or "unknown",
            "role": "replica",
            "replicas": max(1, p.replicas),
            "model": {"name": p.model},
            "accelerator": {
                "model": p.instance_type or "unknown",
                "count": p.accelerators,
                "parallelism": {
                    name: p.parallelism[name] for name in Parallelism.model_fields if name in p.parallelism
                },
            },
        },
        "native": {"args": {}, "envars": {}},
    }


def _points(values: Percentiles) -> dict[str, float]:
    return {name: value for name in _POINTS if (value := getattr(values, name)) is not None}


def _ours(document: Document, record: Any) -> BenchmarkResult:
    try:
        return BenchmarkResult.model_validate(record)
    except ValueError as error:
        said = str(error).splitlines()
        raise document.bad(f"{EXTENSION}.result", "; ".join(line.strip() for line in said[1:3])) from error


def _mean(document: Document, field: str, units: tuple[str, ...]) -> float | None:
    if document.get(field, dict, required=False) is None:
        return None
    unit = document.get(f"{field}.units", str)
    if unit not in units:
        raise document.bad(f"{field}.units", f"is {unit!r}, not one of {', '.join(units)}")
    return document.number(f"{field}.mean")


def _latency(document: Document, name: str, count: int) -> Percentiles:
    field = f"{_AGGREGATE}.latency.{name}"
    if _mean(document, field, tuple(_SCALES)) is None:
        return Percentiles()
    scale = _SCALES[document.get(f"{field}.units", str)]
    values = {point: document.number(f"{field}.{point}", required=False) for point in _POINTS}
    return percentiles(count, values, scale=scale)


def _duration(document: Document) -> float:
    """Seconds of the run, from its two times."""
    begin, end = (document.moment(f"run.time.{name}") for name in ("start", "end"))
    if begin is None or end is None:
        return 0.0
    if end < begin:
        raise document.bad("run.time.end", "is before run.time.start")
    return (end - begin).total_seconds()


def _model(document: Document) -> str:
    for part in document.get("scenario.stack", list, required=False) or []:
        try:
            return str(part["standardized"]["model"]["name"])
        except KeyError:
            continue
        except TypeError as error:
            raise document.bad("scenario.stack", f"holds {str(part)[:40]!r}, not a component") from error
    return "unknown"


def _load(document: Document) -> JsonObject:
    if rate := document.number(f"{_LOAD}.rate_qps", required=False):
        return {"mode": "open", "rate": rate}
    limit = document.number(f"{_LOAD}.concurrency", required=False)
    return {"mode": "closed", "concurrency": int(limit)} if limit else {}
