"""Two results side by side: their distributions, from the requests themselves."""

from __future__ import annotations

import io
from typing import Any

from include.results.key import FIELDS, differences
from include.results.pages.board import Board
from include.results.pages.chart import Chart, spread
from include.results.pages.html import Html, el, figure, link, page, percent, table
from include.results.verdict.attribution import changes

SHARES = (1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99)
LATENCIES = {
    "TTFT": ("scheduled_ns", "first_token_ns"),
    "End to end": ("scheduled_ns", "end_ns"),
}


def compare(board: Board, a: dict[str, Any], b: dict[str, Any]) -> str:
    """Return the page that sets B against A."""
    differ = differences({k: str(a[k]) for k in FIELDS}, {k: str(b[k]) for k in FIELDS})
    warning = el("div", el("p", "Not comparable: ", "; ".join(differ)), class_="notice") if differ else None
    quantiles = [_quantiles(board, row) for row in (a, b)]
    plots = [_plot(name, quantiles[0].get(name, {}), quantiles[1].get(name, {})) for name in LATENCIES]
    named = [link(f"{side}: {row['run_id']}", "run", path=row["run_path"]) for side, row in (("A", a), ("B", b))]
    rows = [
        (name, figure(a[column]), figure(b[column]), percent(_over(a[column], b[column])))
        for name, column in (
            ("TTFT p50, ms", "ttft_ms_p50"), ("TTFT p99, ms", "ttft_ms_p99"), ("TPOT p50, ms", "tpot_ms_p50"),
            ("End to end p50, ms", "e2e_ms_p50"), ("Output tokens/s", "output_tokens_per_s"),
            ("Good requests/s", "goodput_rps"), ("$/M tokens", "usd_per_million"),
        )
    ]  # fmt: skip
    found = [(change.factor, change.before, change.after) for change in changes(a, b)]
    note = "Requests of one run share its deployment and minute: a difference between two runs is no verdict."
    return page(
        f"{b['model']} · {b['workload']} · {b['load']}: A and B",
        "verdicts",
        el("p", named[0], " (", a["night"], ") and ", named[1], " (", b["night"], "). ", note),
        warning,
        el("div", plots, class_="plots"),
        table("Figures", ("Figure", "A", "B", "B over A"), rows),
        table("What differs between the runs", ("What", "A", "B"), found, empty="Nothing that is recorded."),
    )


def _over(a: float | None, b: float | None) -> float | None:
    return b / a - 1 if a and b is not None else None


def _quantiles(board: Board, row: dict[str, Any]) -> dict[str, dict[int, float]]:
    """Quantiles of each latency in ms, from the result's requests; empty when they are not kept."""
    root = board.index.store.objects.uri + "/"
    uri = str(row["requests_uri"] or "")
    data = board.file(uri.removeprefix(root)) if uri.startswith(root) else None
    if data is None:
        return {}
    import numpy as np
    import pyarrow.parquet as pq

    columns = sorted({name for pair in LATENCIES.values() for name in pair})
    frame = pq.read_table(io.BytesIO(data), columns=[*columns, "ok", "phase"])
    kept = np.array(frame["ok"].to_pylist(), dtype=bool) & (np.array(frame["phase"].to_pylist()) == "measure")
    found = {}
    for name, (start, stop) in LATENCIES.items():
        first, last = (frame[column].to_numpy().astype(float) for column in (start, stop))
        values = (last - first)[kept] / 1e6
        values = values[~np.isnan(values)]
        if len(values):
            found[name] = {share: float(np.percentile(values, share)) for share in SHARES}
    return found


def _plot(name: str, a: dict[int, float], b: dict[int, float]) -> Html:
    if not a or not b:
        return el("p", f"{name}: the requests of both results are not kept in this store.", class_="soft")
    label = f"{name} by share of requests: A median {figure(a[50])} ms, B median {figure(b[50])} ms"
    chart = Chart(label, spread([*a.values(), *b.values()]), (0, 100), f"{name}, ms", "% of requests at most")
    for side, values, row in (("A", a, 20), ("B", b, 10)):
        kind = side.lower()
        chart.line([(value, float(share)) for share, value in values.items()], f"line {kind}")
        for share, value in values.items():
            chart.dot(value, share, f"{side}: {share} % within {figure(value)} ms", f"dot {kind}", 3)
        chart.text(chart.x[1], row, f"{side} {'solid' if side == 'A' else 'dashed'}", kind, anchor="end")
    return el("figure", chart.svg())
