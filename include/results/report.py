"""One self-contained HTML page for one run: what happened, the figures, where they come from, what was removed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import Any

from include.endpoint.model import TeardownReport
from include.loadtest.timeline import plots as timelines
from include.results.schema import BenchmarkResult, Percentiles, RunRecord
from include.results.svg import Line, bars, plot

STYLE = Path(__file__).with_name("report.css")
CSP = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def render_report(record: RunRecord, results: Sequence[BenchmarkResult], teardown: TeardownReport | None = None) -> str:
    """Return the report as HTML: no script, nothing fetched, every value escaped."""
    title = f"{record.model.get('name', 'run')} · {record.run.run_id}"
    sections = [
        _head(record),
        _stages(record),
        _cold_start(record),
        _levels(results),
        _plots(results),
        _failures(results),
        _provenance(results),
        _teardown(teardown),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{CSP}">'
        '<meta name="viewport" content="width=device-width"><meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE.read_text()}</style></head>"
        f"<body><main><h1>{escape(title)}</h1>{''.join(sections)}</main></body></html>"
    )


def _head(record: RunRecord) -> str:
    mark = {"success": "✓ success", "failed": "✗ failed", "skipped": "– skipped"}[record.state]
    said = ""
    if record.state != "success":
        evidence = "".join(f"<li><code>{escape(line)}</code></li>" for line in record.evidence)
        said = (
            f"<p><b>{escape(record.reason)}</b> in stage <b>{escape(record.failed_stage or '?')}</b>: "
            f"{escape(record.message)}</p><p>{escape(record.fix)}</p><ul>{evidence}</ul>"
        )
    took = (record.ended_at - record.started_at).total_seconds()
    facts = [
        ("Dag", record.run.dag_id),
        ("Started", f"{record.started_at:%Y-%m-%d %H:%M:%S} UTC"),
        ("Took", f"{took:.0f} s"),
        ("Model", f"{record.model.get('name', '?')} @ {record.model.get('revision', '?')}"),
        ("Endpoint", str(record.endpoint.get("name", "none"))),
        ("Cost", f"${record.cost_usd}"),
    ]
    return f'<p class="verdict {record.state}">{mark}</p>{said}{_definitions(facts)}'


def _stages(record: RunRecord) -> str:
    rows = [
        (
            name,
            outcome.state,
            f"{outcome.seconds:.1f}",
            str(outcome.attempt),
            f"{outcome.reason}: {outcome.message}" if outcome.reason else "",
        )
        for name, outcome in record.stages.items()
    ]
    return "<h2>Stages</h2>" + _table(("stage", "state", "seconds", "attempt", "reason"), rows)


def _cold_start(record: RunRecord) -> str:
    phases = record.endpoint.get("cold_start") or {}
    parts = [(name, float(value)) for name, value in phases.items() if name != "total" and float(value) > 0]
    return "<h2>Cold start</h2>" + bars("From creation to the first completion", parts, "s")


def _levels(results: Sequence[BenchmarkResult]) -> str:
    header = (
        "workload", "load", "TTFT p50/p95/p99 ms", "chunk gap p50/p95/p99 ms", "TPOT p50/p95/p99 ms",
        "E2E p50/p95/p99 ms", "output tok/s", "goodput req/s", "ok", "failed", "valid",
    )  # fmt: skip
    rows = []
    for result in results:
        s = result.statistics
        latencies = (_triple(item) for item in (s.ttft_ms, s.chunk_gap_ms, s.tpot_ms, s.e2e_ms))
        goodput = "–" if s.goodput_rps is None else f"{s.goodput_rps:.2f}"
        valid = "yes" if result.validity.valid else "no: " + ", ".join(result.validity.reasons)
        rows.append(
            (
                result.workload,
                f"{result.load} {result.arm}",
                *latencies,
                f"{s.output_tokens_per_s:.1f}",
                goodput,
                str(s.requests_ok),
                str(s.requests_failed),
                valid,
            )
        )
    note = "<p>– : too few requests for that percentile. An invalid row is kept and never ranked.</p>"
    return "<h2>Benchmark</h2>" + (_table(header, rows) + note if rows else "<p>Nothing was measured.</p>")


def _plots(results: Sequence[BenchmarkResult]) -> str:
    figures = []
    for workload in dict.fromkeys(result.workload for result in results):
        mine = [result for result in results if result.workload == workload]
        slo = next((value for item in mine if (value := item.slo.get("ttft_ms"))), None)
        curve = sorted(
            (r.statistics.output_tokens_per_s, r.statistics.e2e_ms.p50)
            for r in mine
            if r.statistics.e2e_ms.p50 is not None
        )
        percentiles = [Line(result.load, _quantiles(result.statistics.ttft_ms)) for result in mine]
        figures.append(plot(f"{workload}: TTFT by percentile", "percentile", "ms", percentiles, mark_y=slo))
        figures.append(
            plot(
                f"{workload}: throughput and latency",
                "output tokens/s",
                "E2E p50 ms",
                [Line("load levels", tuple((x, float(y)) for x, y in curve if y is not None))],
            )
        )
    for result in results:
        figures += timelines(result.extension.get("timeline") or {}, f"{result.workload} {result.load} {result.arm}")
    return f'<div class="plots">{"".join(figures)}</div>'


def _quantiles(values: Percentiles) -> tuple[tuple[float, float], ...]:
    pairs = (
        (50.0, values.p50),
        (90.0, values.p90),
        (95.0, values.p95),
        (99.0, values.p99),
        (100.0, values.max),
    )
    return tuple((x, y) for x, y in pairs if y is not None)


def _failures(results: Sequence[BenchmarkResult]) -> str:
    rows = [
        (result.workload, result.load, name, str(count))
        for result in results
        for name, count in result.statistics.failures.items()
    ]
    return "<h2>Failed requests</h2>" + (
        _table(("workload", "load", "class", "requests"), rows) if rows else "<p>None.</p>"
    )


def _provenance(results: Sequence[BenchmarkResult]) -> str:
    if not results:
        return ""
    facts = results[0].provenance.model_dump(mode="json")
    pairs = [(name.replace("_", " "), str(value)) for name, value in facts.items() if value not in ("", {}, [], 0)]
    return f"<h2>Provenance</h2>{_definitions(pairs)}"


def _teardown(report: TeardownReport | None) -> str:
    if report is None:
        return "<h2>Teardown</h2><p>Follows this report; its proof is in teardown.json beside it.</p>"
    rows = [
        (item.plane, item.kind, item.name, "absent" if item.absent else "STILL THERE", item.evidence)
        for item in report.objects
        if item.existed
    ]
    verdict = "kept as asked" if report.kept else ("proven absent" if report.absent else "NOT proven absent")
    return f"<h2>Teardown: {verdict}</h2>" + _table(("plane", "kind", "name", "state", "evidence"), rows)


def _triple(values: Percentiles) -> str:
    return " / ".join("–" if item is None else f"{item:.1f}" for item in (values.p50, values.p95, values.p99))


def _definitions(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs) + "</dl>"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll" tabindex="0"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
