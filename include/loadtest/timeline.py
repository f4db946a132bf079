"""Client and server on one axis: what the generators saw and what the server said of itself, bin by bin."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import JsonObject
from include.loadtest.latencies import latencies
from include.loadtest.records import Records
from include.loadtest.series import Observed, Points, Series

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]

MOST_BINS = 120
# What servers call the same thing; the first that a page has is taken. Gauges are averaged over a bin.
GAUGES = {
    "running": (
        "vllm:num_requests_running",
        "sglang:num_running_reqs",
        "llamacpp:requests_processing",
        "tgi_batch_current_size",
        "model_concurrent_requests",
    ),
    "waiting": (
        "vllm:num_requests_waiting",
        "sglang:num_queue_reqs",
        "llamacpp:requests_deferred",
        "tgi_queue_size",
    ),
    "kv_usage": ("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage"),
    "gpu_usage": ("DCGM_FI_DEV_GPU_UTIL",),
    "gpu_watts": ("DCGM_FI_DEV_POWER_USAGE",),
}
# Pairs of counters whose growth is divided; the unit in which the quotient is given.
RATIOS = {
    "ttft_ms": (
        ("vllm:time_to_first_token_seconds_sum", "vllm:time_to_first_token_seconds_count", 1e3),
        ("sglang:time_to_first_token_seconds_sum", "sglang:time_to_first_token_seconds_count", 1e3),
        ("model_time_to_first_token_seconds_sum", "model_time_to_first_token_seconds_count", 1e3),
    ),
    "prefix_hits": (("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total", 1.0),),
}


def timeline(records: Records, metrics: Path | None = None) -> JsonObject:
    """Return ``{"seconds": [...], "client": {...}, "server": {...}}``; ``None`` where a bin has no value.

    Seconds are the middles of the bins, counted from the first scheduled request. Client: requests in flight (mean),
    requests/s answered, median TTFT from the send (ms). Server: what its Prometheus pages have of ``GAUGES`` and
    ``RATIOS``; counts of several pods are summed, shares averaged.

    :param metrics: ``server-metrics.parquet`` of the same run.
    """
    import numpy as np

    measured = records.phase("measure")
    end = measured.times("end_ns")
    if not len(end) or np.isnan(end).all():
        return {}
    span = float(np.nanmax(end))
    edges = np.linspace(0.0, max(span, 1e-3), min(MOST_BINS, max(1, round(span))) + 1)
    return {
        "seconds": _rounded((edges[:-1] + edges[1:]) / 2),
        "client": _client(measured, edges),
        "server": _server(metrics, measured.origin_ns, edges) if metrics is not None and metrics.exists() else {},
    }


def _client(measured: Records, edges: Floats) -> JsonObject:
    import numpy as np

    sent, end = measured.times("sent_ns"), measured.times("end_ns")
    known = ~np.isnan(sent) & ~np.isnan(end)
    width = edges[1] - edges[0]
    # Requests in flight, integrated: the sum of what of each request lies before an edge.
    lived = np.array([np.clip(edge - sent[known], 0, end[known] - sent[known]).sum() for edge in edges])
    answered, _ = np.histogram(end[measured.succeeded()], edges)
    return {
        "in_flight": _rounded(np.diff(lived) / width),
        "requests_per_s": _rounded(answered / width),
        "ttft_ms": _medians(measured.times("first_token_ns"), latencies(measured).ttft_sent, edges),
    }


def _medians(at: Floats, values: Floats, edges: Floats) -> list[float | None]:
    import numpy as np

    place = np.digitize(at, edges) - 1
    found = []
    for bin_ in range(len(edges) - 1):
        chosen = values[(place == bin_) & ~np.isnan(values)]
        found.append(float(np.median(chosen)) if len(chosen) else np.nan)
    return _rounded(np.array(found))


def _server(metrics: Path, origin_ns: int, edges: Floats) -> JsonObject:
    import numpy as np

    series = read_series(metrics)
    found: JsonObject = {}
    for name, candidates in GAUGES.items():
        chosen = next((candidate for candidate in candidates if series.of(candidate)), None)
        if chosen is not None:
            found[name] = _mean(series.gauge(chosen), origin_ns, edges)
    for name, pairs in RATIOS.items():
        pair = next((pair for pair in pairs if series.of(pair[0]) and series.of(pair[1])), None)
        if pair is not None:
            top, bottom = (_growth(series.growth(counter), origin_ns, edges) for counter in pair[:2])
            with np.errstate(invalid="ignore", divide="ignore"):
                found[name] = _rounded(np.where(bottom > 0, top / bottom * pair[2], np.nan))
    return found


def read_series(metrics: Path) -> Series:
    """Return what ``server-metrics.parquet`` holds; a file of before rounds were kept has one for each time."""
    import pyarrow.parquet as pq

    table = pq.read_table(metrics)
    rounds = table["round" if "round" in table.column_names else "unix_ns"].to_pylist()
    rest = (table[name].to_pylist() for name in ("unix_ns", "url", "name", "labels", "value"))
    return Series(Observed(*values) for values in zip(rounds, *rest, strict=True))


def _mean(samples: Points, origin_ns: int, edges: Floats) -> list[float | None]:
    import numpy as np

    at = (np.array([time for time, _ in samples]) - origin_ns) / 1e9
    total, _ = np.histogram(at, edges, weights=np.array([value for _, value in samples]))
    count, _ = np.histogram(at, edges)
    with np.errstate(invalid="ignore"):
        return _rounded(total / np.where(count, count, np.nan))


def _growth(series: Iterator[Points], origin_ns: int, edges: Floats) -> Floats:
    """Return how much a counter grew in each bin: each series on its own clock, then all together."""
    import numpy as np

    total = np.zeros(len(edges) - 1)
    for points in series:
        at = (np.array([time for time, _ in points]) - origin_ns) / 1e9
        total += np.diff(np.interp(edges, at, [value for _, value in points]))
    return total


def _rounded(values: Floats) -> list[float | None]:
    import numpy as np

    return [None if np.isnan(value) else round(float(value), 4) for value in values]


def plots(found: JsonObject, of: str = "") -> list[str]:
    """Return SVG plots of a timeline, client and server on one axis; none where nobody said anything.

    :param of: what it is of, for the titles.
    """
    from include.results.svg import Line, plot

    if not found:
        return []
    client, server = found["client"], found["server"]
    wanted = [
        ("requests under way", "requests", {
            "client: in flight": client["in_flight"], "server: running": server.get("running"),
            "server: waiting": server.get("waiting"),
        }),
        ("time to first token", "ms", {"client: median": client["ttft_ms"], "server: mean": server.get("ttft_ms")}),
        ("shares", "share", {"KV cache in use": server.get("kv_usage"), "prefix hits": server.get("prefix_hits")}),
        ("GPU", "% and W", {"use": server.get("gpu_usage"), "power": server.get("gpu_watts")}),
    ]  # fmt: skip
    drawn = []
    for title, unit, series in wanted:
        lines = [Line(name, _points(found["seconds"], values)) for name, values in series.items() if values]
        if any(line.points for line in lines):
            title = f"{of}: {title}" if of else title.capitalize()
            drawn.append(plot(title, "seconds from the first request", unit, lines, dots=False))
    return drawn


def draw(found: JsonObject) -> str:
    """Return an HTML page with the plots."""
    if not found:
        return "<!doctype html><title>Timeline</title><p>no request was answered"
    style = ":root{--c1:#2563eb;--c2:#c2410c;--c3:#15803d}svg{max-width:720px;display:block}.g{stroke:#8884}"
    style += "text{font:11px sans-serif;fill:currentColor}"
    return f"<!doctype html><meta charset=utf-8><title>Timeline</title><style>{style}</style>{''.join(plots(found))}"


def _points(seconds: list[float], values: list[float | None]) -> tuple[tuple[float, float], ...]:
    return tuple((x, y) for x, y in zip(seconds, values, strict=True) if y is not None)
