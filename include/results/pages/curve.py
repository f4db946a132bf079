"""Throughput against latency over the load levels, with the SLO and the knee."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from include.results.pages.chart import Chart, spread
from include.results.pages.html import Html, el, figure, link, table


def knee(points: Sequence[tuple[float, float]]) -> int | None:
    """Return the place of the knee, ``None`` with fewer than three points or without a bend.

    The point farthest below the chord from the lowest to the highest load, both axes scaled to 1 (Satopää et al.
    2011, *Finding a "Kneedle" in a Haystack*): beyond it, latency buys little throughput.
    """
    if len(points) < 3:
        return None
    (x0, x1), (y0, y1) = ((min(v), max(v)) for v in zip(*points, strict=True))
    if x1 == x0 or y1 == y0:
        return None
    below = [(x - x0) / (x1 - x0) - (y - y0) / (y1 - y0) for x, y in points]
    best = max(range(len(points)), key=lambda place: below[place])
    return best if below[best] > 0.05 else None


def curve(rows: Sequence[dict[str, Any]]) -> Html:
    """Return chart and table of the newest result at each load level."""
    known = [row for row in rows if row["output_tokens_per_s"] and row["ttft_ms_p50"]]
    if not known:
        return el("p", "No load level has both throughput and TTFT.", class_="soft")
    known.sort(key=lambda row: (row["ttft_ms_p50"], row["output_tokens_per_s"]))
    points = [(float(row["output_tokens_per_s"]), float(row["ttft_ms_p50"])) for row in known]
    limit = json.loads(known[-1]["slo"] or "{}").get("ttft_ms")
    bend = knee(points)
    highest = [y for _, y in points] + ([float(limit)] if limit else [])
    chart = Chart(
        f"Throughput and TTFT p50 at {len(points)} load levels",
        spread([x for x, _ in points], zero=True),
        spread(highest, zero=True),
        "output tokens/s",
        "TTFT p50, ms",
    )
    if limit:
        chart.across(float(limit), f"SLO: TTFT {limit:g} ms", "slo")
    chart.line(points)
    for place, (row, point) in enumerate(zip(known, points, strict=True)):
        chart.dot(*point, f"{row['load']}: {figure(point[0])} tokens/s, {figure(point[1])} ms")
        if place != bend:
            chart.text(*point, str(row["load"]), "", lift=10)
    if bend is not None:
        chart.dot(*points[bend], f"knee at {known[bend]['load']}", "knee", 10)
        chart.text(*points[bend], f"{known[bend]['load']}, knee", "knee", lift=-26)
    cells = [
        (link(str(row["load"]), "run", path=row["run_path"]), figure(row["output_tokens_per_s"]),
         figure(row["ttft_ms_p50"]), figure(row["tpot_ms_p50"]), figure(row["goodput_rps"]),
         "–" if row["goodput_share"] is None else f"{row['goodput_share']:.1%}", row["night"],
         figure(row["usd_per_million"]), figure(row["usd_per_million_good"]))
        for row in known
    ]  # fmt: skip
    header = ("Load", "Tokens/s", "TTFT p50, ms", "TPOT p50, ms", "Good req/s", "Met the SLO", "Night", "$/M tokens",
              "$/M good tokens")  # fmt: skip
    return el("div", el("figure", chart.svg()), table("Load levels", header, cells))
