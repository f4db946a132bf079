"""AIPerf and GuideLLM write a line or an object per request: their statistics are computed by us, from that."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.results.exchange.normal import imported
from include.results.exchange.reading import line_of, refused
from include.results.schema import BenchmarkResult

if TYPE_CHECKING:
    import pyarrow as pa

_NEEDED = {
    "aiperf": ("metadata.request_start_ns", "metadata.request_end_ns", "metadata.benchmark_phase"),
    "guidellm": ("request_id", "info.timings", "input_metrics", "output_metrics"),
}
_NUMBERS = {
    "aiperf": (
        "metadata.request_start_ns", "metadata.request_end_ns", "metadata.credit_issued_ns",
        *(f"metrics.{name}.value" for name in (
            "time_to_first_token", "inter_chunk_latency", "usage_prompt_tokens", "usage_completion_tokens",
            "input_sequence_length", "output_sequence_length",
        )),
    ),
    "guidellm": (
        *(f"info.timings.{name}" for name in (
            "request_start", "dequeued", "first_token_iteration", "last_token_iteration", "token_iterations",
            "targeted_start", "scheduled_at", "request_end",
        )),
        "input_metrics.total_tokens", "output_metrics.total_tokens",
    ),
}  # fmt: skip
_FIX = "export it again with the version that the importer knows (AIPerf 0.13, GuideLLM 0.8)"


def read(path: Path, tool: str, model: str, workload: str) -> tuple[BenchmarkResult, pa.Table]:
    """Return the result and its requests; the file itself has neither the model's nor the workload's name.

    :param tool: ``aiperf`` or ``guidellm``.
    :raises IntegrityError: naming line and field.
    """
    check_aiperf(path) if tool == "aiperf" else check_guidellm(path)
    from include.loadtest.foreign.registry import engine
    from include.loadtest.records import Records
    from include.loadtest.statistics import summarise

    table = engine(tool).collect(path)
    records = Records(table, [])
    statistics = summarise(records)
    begun = dt.datetime.fromtimestamp(records.origin_ns / 1e9, dt.UTC)
    content = {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    result = imported(
        form=tool, version="", document=content, model=model, workload=workload, load_spec={}, statistics=statistics,
        started_at=begun, tool=tool,
    )  # fmt: skip
    return result, table


def check_aiperf(path: Path) -> None:
    """Refuse a line that is cut short or lacks a field."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    if not any(line.strip() for line in lines):
        raise refused(path, 1, "(file)", "is empty", "give profile_export.jsonl")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise refused(path, number, "(line)", "is cut short or not JSON", "copy the whole file again") from error
        for name in _NEEDED["aiperf"]:
            if _at(content, name) is None:
                raise refused(path, number, name, "is missing", _FIX)
        for name, value in _wrong_numbers(content, "aiperf"):
            raise refused(path, number, name, f"is {str(value)[:40]!r}, not a number", _FIX)


def check_guidellm(path: Path) -> None:
    """Refuse a file without the requests that statistics are computed from."""
    from include.results.exchange.reading import read_document

    document = read_document(path)
    version = str(_at(document.content, "metadata.guidellm_version") or "")
    if not version:
        raise document.bad("metadata.guidellm_version", "is missing", _FIX)
    benchmarks = document.get("benchmarks", list)
    if not benchmarks:
        raise document.bad("benchmarks", "is empty", _FIX)
    for place, benchmark in enumerate(benchmarks):
        groups = _at(benchmark, "requests")
        if not isinstance(groups, dict) or not {"successful", "errored", "incomplete"} <= set(groups):
            line = line_of(document.text, "benchmarks")
            raise refused(path, line, f"benchmarks[{place}].requests", "lacks the requests", _FIX)
        for group, requests in groups.items():
            where = f"benchmarks[{place}].requests.{group}"
            if not isinstance(requests, list):
                raise refused(path, line_of(document.text, "benchmarks"), where, "is no list", _FIX)
            for request in requests:
                missing = [name for name in _NEEDED["guidellm"] if _at(request, name) is None]
                for name in missing if group == "successful" else ():
                    line = line_of(document.text, "benchmarks")
                    raise refused(path, line, f"{where}[].{name}", "is missing", _FIX)
                for name, value in _wrong_numbers(request, "guidellm"):
                    line = line_of(document.text, "benchmarks")
                    raise refused(path, line, f"{where}[].{name}", f"is {str(value)[:40]!r}, not a number", _FIX)


def _wrong_numbers(content: Any, tool: str) -> Iterator[tuple[str, Any]]:
    for name in _NUMBERS[tool]:
        value = _at(content, name)
        for one in value if isinstance(value, list) and name.startswith("metrics.") else [value]:
            if one is not None and (type(one) not in (int, float) or not math.isfinite(one)):
                yield name, one


def _at(content: Any, field: str) -> Any:
    for part in field.split("."):
        content = content.get(part) if isinstance(content, Mapping) else None
    return content
