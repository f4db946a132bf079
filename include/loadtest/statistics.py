"""Statistics of a load level, computed from its per-request records and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import JsonObject, Slo
from include.loadtest.latencies import BLOCK, chunk_gaps, good, latencies, longest_gaps
from include.loadtest.quantiles import histogram, summary
from include.loadtest.records import Records, load
from include.loadtest.window import Window, steady_window
from include.results.schema import Percentiles, Statistics

if TYPE_CHECKING:
    import numpy as np

# What statistics are made of.
COLUMNS = (
    "phase", "scheduled_ns", "sent_ns", "first_token_ns", "last_token_ns", "end_ns", "chunk_offsets_ns", "chunks",
    "input_tokens", "output_tokens", "ok", "error_class",
)  # fmt: skip


def summarise(source: Path | Sequence[Path] | Records, slo: Slo | None = None) -> Statistics:
    """Return the statistics of the measured requests.

    Counts are of all measured requests; latencies are of those scheduled in the steady window; rates count what
    arrived within it.

    :param source: record file(s), a run's folder, or records in memory.
    :param slo: what a good request must meet; without any limit, goodput is not stated.
    """
    import numpy as np

    measured = (source if isinstance(source, Records) else load(source, COLUMNS)).phase("measure")
    if not measured.table.num_rows:
        return Statistics()
    window = steady_window(measured)
    scheduled = measured.times("scheduled_ns")
    inside = (scheduled >= window.start) & (scheduled <= window.end)
    kept = measured.where(inside)
    found = latencies(kept)
    ok = measured.succeeded()
    limit = slo or Slo()
    longest = longest_gaps(kept) if limit.chunk_gap_ms is not None else None
    met = good(found, limit, longest) if limit.of_latency else None
    end = measured.times("end_ns")
    return Statistics(
        ttft_ms=Percentiles(**summary(found.ttft)),
        chunk_gap_ms=Percentiles(**summary(chunk_gaps(kept))),
        tpot_ms=Percentiles(**summary(found.tpot)),
        e2e_ms=Percentiles(**summary(found.e2e)),
        ttft_sent_ms=Percentiles(**summary(found.ttft_sent)),
        e2e_sent_ms=Percentiles(**summary(found.e2e_sent)),
        requests_ok=int(ok.sum()),
        requests_failed=int((~ok).sum()),
        failures=_failures(measured),
        input_tokens=_total(measured, "input_tokens", ok),
        output_tokens=_total(measured, "output_tokens", ok),
        output_tokens_per_s=_tokens_in(measured, window, ok) / window.seconds,
        requests_per_s=float(((end >= window.start) & (end <= window.end) & ok).sum()) / window.seconds,
        goodput_rps=None if met is None else float(met.sum()) / window.seconds,
        goodput_share=None if met is None else float(met.mean()) if len(met) else None,
        duration_s=0.0 if np.isnan(end).all() else float(np.nanmax(end)),
        window=_window_facts(window, inside),
    )


def _failures(records: Records) -> dict[str, int]:
    import pyarrow.compute as pc

    counts = pc.value_counts(records.table["error_class"]).to_pylist()
    return {item["values"]: item["counts"] for item in sorted(counts, key=lambda one: one["values"] or "")
            if item["values"]}  # fmt: skip


def _window_facts(window: Window, inside: np.ndarray[Any, Any]) -> JsonObject:
    return {
        "rule": window.rule,
        "start_s": round(window.start, 6),
        "end_s": round(window.end, 6),
        "requests": int(inside.sum()),
        "left_out": int((~inside).sum()),
    }


def _total(records: Records, column: str, ok: np.ndarray[Any, Any]) -> int:
    import numpy as np

    return int(np.nansum(records.column(column)[ok]))


def _tokens_in(records: Records, window: Window, ok: np.ndarray[Any, Any]) -> float:
    """Tokens that arrived in the window: each chunk carries its request's tokens per chunk."""
    import numpy as np
    import pyarrow.compute as pc

    tokens, chunks = records.column("output_tokens"), records.column("chunks")
    sent, end = np.nan_to_num(records.times("sent_ns")), records.times("end_ns")
    with np.errstate(invalid="ignore", divide="ignore"):
        each = np.where(ok & (chunks > 0) & ~np.isnan(tokens), tokens / chunks, 0.0)
    streamed, offsets = 0.0, records.table["chunk_offsets_ns"]
    for first in range(0, len(offsets), BLOCK):
        part = offsets.slice(first, BLOCK).combine_chunks()
        lengths = pc.list_value_length(part).fill_null(0).to_numpy(zero_copy_only=False)
        arrived = np.repeat(sent[first : first + BLOCK], lengths)
        arrived += pc.list_flatten(part).to_numpy() / 1e9
        inside = (arrived >= window.start) & (arrived <= window.end)
        streamed += float(np.repeat(each[first : first + BLOCK], lengths)[inside].sum())
    whole = ok & (chunks == 0) & (end >= window.start) & (end <= window.end)
    return streamed + float(np.nansum(tokens[whole]))


def histograms(records: Records) -> JsonObject:
    """Return log-bucket histograms (ms) of the measured requests; those of several runs add up key by key."""
    measured = records.phase("measure")
    if not measured.table.num_rows:
        return {}
    found = latencies(measured)
    return {
        "gamma": 1.01,
        "ttft_ms": histogram(found.ttft),
        "chunk_gap_ms": histogram(chunk_gaps(measured)),
        "tpot_ms": histogram(found.tpot),
        "e2e_ms": histogram(found.e2e),
    }
