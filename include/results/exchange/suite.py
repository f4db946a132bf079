"""CSV suites: one row per endpoint, use case and concurrency, milliseconds and tokens per second."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from include.errors import IntegrityError
from include.results.exchange.normal import imported, percentiles, source
from include.results.exchange.reading import moment, refused
from include.results.schema import BenchmarkResult, Percentiles, Statistics

FORM = "csv"
COLUMNS = (
    "endpoint", "use_case", "concurrency", "total_requests", "successful", "failed", "output_validation_rate",
    "latency_p50", "latency_p90", "latency_p99", "latency_avg", "latency_min", "latency_max", "tok_per_sec_avg",
    "tok_per_sec_p50", "avg_input_tokens", "avg_output_tokens", "rps", "aggregate_output_tok_sec", "model",
    "optimization", "instance_type", "region", "timestamp",
)  # fmt: skip
TTFT = ("ttft_p50", "ttft_p90", "ttft_avg")
_NEEDED = ("use_case", "concurrency", "successful", "model", "timestamp", "aggregate_output_tok_sec")


def read(path: Path) -> list[BenchmarkResult]:
    """Return a result for each row.

    :raises IntegrityError: naming line and column: no header, a needed column is missing, a row is cut short, a value
        is not a number.
    """
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise refused(path, line, "(row)", f"cannot be read: {error.reason}", "save it as UTF-8") from error
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        found = list(_results(path, reader))
    except csv.Error as error:
        raise refused(path, reader.line_num, "(row)", f"cannot be read: {error}", "correct the row") from error
    if not found:
        raise refused(path, 1, "(file)", "has a header and no rows", "give the file of a run that ended")
    return found


def write(results: Sequence[BenchmarkResult]) -> str:
    """Return results as CSV, columns of the suite first."""
    rows = [source(result, FORM) or _row(result) for result in results]
    extra = dict.fromkeys(name for row in rows for name in row if name not in COLUMNS)
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [*COLUMNS, *extra], restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _results(path: Path, reader: Any) -> Iterator[BenchmarkResult]:
    header: list[str] = next(reader, [])
    for name in _NEEDED:
        if name not in header:
            raise refused(path, 1, name, "is not in the header", "export with the suite's 24 or 27 columns")
    for cells in reader:
        if len(cells) != len(header):
            problem = f"the row has {len(cells)} of {len(header)} columns"
            raise refused(path, reader.line_num, header[min(len(cells), len(header) - 1)], problem, "complete it")
        yield _result(path, reader.line_num, dict(zip(header, cells, strict=True)))


def _result(path: Path, line: int, row: dict[str, str]) -> BenchmarkResult:
    def number(name: str) -> float | None:
        text = row.get(name, "").strip()
        if not text:
            return None
        try:
            found = float(text)
        except ValueError:
            found = float("nan")
        if not 0 <= found < float("inf"):
            raise refused(path, line, name, f"is {text!r}, not a number of at least 0", "correct the value")
        return found

    ok = int(number("successful") or 0)
    if not row["model"].strip():
        raise refused(path, line, "model", "is empty", "name the model")
    begun = moment(row["timestamp"])
    if begun is None:
        raise _no_time(path, line, row["timestamp"])
    latency = {to: number(f"latency_{name}") for name, to in
               (("avg", "mean"), ("p50", "p50"), ("p90", "p90"), ("p99", "p99"), ("max", "max"))}  # fmt: skip
    ttft = {to: number(f"ttft_{name}") for name, to in (("avg", "mean"), ("p50", "p50"), ("p90", "p90"))}
    rate = number("rps") or 0.0
    statistics = Statistics(
        e2e_ms=percentiles(ok, latency),
        ttft_ms=percentiles(ok, ttft),
        requests_ok=ok,
        requests_failed=int(number("failed") or 0),
        input_tokens=round((number("avg_input_tokens") or 0) * ok),
        output_tokens=round((number("avg_output_tokens") or 0) * ok),
        output_tokens_per_s=number("aggregate_output_tok_sec") or 0.0,
        requests_per_s=rate,
        duration_s=ok / rate if rate else 0.0,
    )
    return imported(
        form=FORM, version=str(len(row)), document=dict(row), model=row["model"], workload=row["use_case"],
        load_spec={"mode": "closed", "concurrency": int(number("concurrency") or 0)}, statistics=statistics,
        started_at=begun, tool="csv-suite",
        provenance={"instance_type": row.get("instance_type", ""), "engine": row.get("optimization", "")},
    )  # fmt: skip


def _no_time(path: Path, line: int, text: str) -> IntegrityError:
    return refused(path, line, "timestamp", f"is {text!r}, not a time", "write it as 2026-03-31T10:15:00Z")


def _row(result: BenchmarkResult) -> dict[str, str]:
    s, p = result.statistics, result.provenance
    ok = s.requests_ok
    values: dict[str, object] = {
        "endpoint": p.endpoint_uid, "use_case": result.workload, "concurrency": result.load_spec.get("concurrency", 0),
        "total_requests": ok + s.requests_failed, "successful": ok, "failed": s.requests_failed,
        "avg_input_tokens": s.input_tokens / ok if ok else None, "rps": s.requests_per_s,
        "avg_output_tokens": s.output_tokens / ok if ok else None, "aggregate_output_tok_sec": s.output_tokens_per_s,
        "model": p.model, "optimization": p.engine, "instance_type": p.instance_type,
        "timestamp": result.started_at.isoformat(),
    }  # fmt: skip
    for prefix, points in (("latency", s.e2e_ms), ("ttft", s.ttft_ms)):
        values |= _points(prefix, points)
    return {name: "" if value is None else str(value) for name, value in values.items()}


def _points(prefix: str, values: Percentiles) -> dict[str, object]:
    found: dict[str, object] = {f"{prefix}_p50": values.p50, f"{prefix}_p90": values.p90, f"{prefix}_avg": values.mean}
    return found | ({"latency_p99": values.p99, "latency_max": values.max} if prefix == "latency" else {})
