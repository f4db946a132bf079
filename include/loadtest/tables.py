"""Results as lines of text, for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.results.schema import Percentiles, Statistics, Validity

METRICS = ("ttft_ms", "chunk_gap_ms", "tpot_ms", "e2e_ms", "ttft_sent_ms", "e2e_sent_ms")
_COLUMNS = ("mean", "p50", "p90", "p95", "p99", "max")
_WIDTH = 16


def result_lines(statistics: Statistics, validity: Validity) -> Iterator[str]:
    """Yield a table of the latencies with 95 % intervals of the percentiles, the rates, and the verdict."""
    yield f"{'':16}{'count':>8}" + "".join(f"{name:>{_WIDTH}}" for name in _COLUMNS)
    for metric in METRICS:
        yield from _metric_lines(metric, getattr(statistics, metric))
    yield (
        f"{statistics.requests_ok} ok, {statistics.requests_failed} failed {statistics.failures or ''}; "
        f"{statistics.output_tokens_per_s:.1f} output tokens/s, {statistics.requests_per_s:.2f} requests/s"
    )
    if statistics.goodput_share is not None:
        yield f"goodput {statistics.goodput_rps:.2f} requests/s, {statistics.goodput_share:.1%} of requests"
    yield f"verdict: {validity.details['verdict']}"
    for reason in validity.reasons:
        yield f"  {reason}"


def _metric_lines(metric: str, values: Percentiles) -> Iterator[str]:
    cells = (getattr(values, name) for name in _COLUMNS)
    shown = "".join(f"{'-' if value is None else format(value, '.2f'):>{_WIDTH}}" for value in cells)
    yield f"{metric:16}{values.count:8d}{shown}"
    if values.ci95:
        bounds = (values.ci95.get(name) for name in _COLUMNS)
        spans = (f"{pair[0]:.2f}..{pair[1]:.2f}" if pair else "" for pair in bounds)
        yield (f"{'  95 %':24}" + "".join(f"{span:>{_WIDTH}}" for span in spans)).rstrip()


def comparison_lines(first: Statistics, second: Statistics) -> Iterator[str]:
    """Yield two runs side by side, with ratios."""
    yield f"{'':22}{'before':>12}{'after':>12}{'ratio':>9}"
    for metric in METRICS:
        for name in ("p50", "p95", "p99"):
            a, b = getattr(getattr(first, metric), name), getattr(getattr(second, metric), name)
            if a is not None and b is not None:
                yield _pair(f"{metric} {name}", a, b)
    for metric in ("output_tokens_per_s", "requests_per_s", "goodput_rps"):
        a, b = getattr(first, metric), getattr(second, metric)
        if a is not None and b is not None:
            yield _pair(metric, a, b)


def _pair(name: str, a: float, b: float) -> str:
    return f"{name:22}{a:12.2f}{b:12.2f}{b / a if a else float('nan'):9.3f}"


def scrape_problems(server_metrics: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line for each page of server metrics that could not be read."""
    for url, problem in (server_metrics.get("errors") or {}).items():
        yield f"no metrics of {url}: {problem}"
