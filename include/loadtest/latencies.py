"""Latencies of single requests in ms, from their records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from include.catalog.specs import Slo
from include.loadtest.records import Records

if TYPE_CHECKING:
    import numpy as np

    Floats = np.ndarray[Any, np.dtype[np.float64]]
    Bools = np.ndarray[Any, np.dtype[np.bool_]]

# Requests whose chunks are expanded at a time: bounds the memory, costs nothing.
BLOCK = 65_536


class Latencies(msgspec.Struct):
    """One value per request, NaN where it is not defined; ms.

    ``ttft`` and ``e2e`` count from the scheduled time, ``*_sent`` from the actual one. ``tpot`` is
    (last token − first token) / (tokens − 1), with tokens by the server's usage field.
    """

    ttft: Floats
    e2e: Floats
    ttft_sent: Floats
    e2e_sent: Floats
    tpot: Floats
    ok: Bools


def latencies(records: Records) -> Latencies:
    """Compute them; a failed request has none."""
    import numpy as np

    ok = records.succeeded()
    tokens = records.column("output_tokens")
    generation = records.between_ms("first_token_ns", "last_token_ns")
    with np.errstate(invalid="ignore", divide="ignore"):
        tpot = np.where(tokens >= 2, generation / (tokens - 1), np.nan)
    blank = np.where(ok, 1.0, np.nan)
    return Latencies(
        ttft=records.between_ms("scheduled_ns", "first_token_ns") * blank,
        e2e=records.between_ms("scheduled_ns", "end_ns") * blank,
        ttft_sent=records.between_ms("sent_ns", "first_token_ns") * blank,
        e2e_sent=records.between_ms("sent_ns", "end_ns") * blank,
        tpot=tpot * blank,
        ok=ok,
    )


def chunk_gaps(records: Records) -> Floats:
    """Return the times between neighbouring content chunks of each successful request, pooled; ms."""
    import numpy as np
    import pyarrow.compute as pc

    ok, lists, found = records.succeeded(), records.table["chunk_offsets_ns"], []
    for first in range(0, len(lists), BLOCK):
        part = lists.slice(first, BLOCK).combine_chunks()
        values = pc.list_flatten(part).to_numpy()
        lengths = pc.list_value_length(part).fill_null(0).to_numpy(zero_copy_only=False)
        kept = np.repeat(ok[first : first + BLOCK], lengths)
        starts = np.cumsum(lengths) - lengths
        # From one request's last chunk to the next one's first is no gap.
        kept[starts[lengths > 0]] = False
        found.append(np.diff(values)[kept[1:]] / 1e6)
    return np.concatenate(found) if found else np.empty(0)


def longest_gaps(records: Records) -> Floats:
    """Return each request's longest time between two chunks; ms, 0 for fewer than two."""
    import numpy as np
    import pyarrow.compute as pc

    lists, found = records.table["chunk_offsets_ns"], np.zeros(records.table.num_rows)
    for first in range(0, len(lists), BLOCK):
        part = lists.slice(first, BLOCK).combine_chunks()
        lengths = pc.list_value_length(part).fill_null(0).to_numpy(zero_copy_only=False)
        request = np.repeat(np.arange(first, first + len(lengths)), lengths)
        gaps = np.diff(pc.list_flatten(part).to_numpy()) / 1e6
        same = request[1:] == request[:-1]
        np.maximum.at(found, request[1:][same], gaps[same])
    return found


def good(found: Latencies, slo: Slo, longest: Floats | None = None) -> Bools:
    """Return which requests met the SLO; a failed one never does.

    An unstreamed answer shows its first token at its end, so its TTFT is its E2E; an answer of one token has no TPOT
    and meets any.

    :param longest: each request's longest gap between chunks; needed for its limit only.
    """
    import numpy as np

    met = found.ok.copy()
    if slo.ttft_ms is not None:
        met &= np.where(np.isnan(found.ttft), found.e2e, found.ttft) <= slo.ttft_ms
    if slo.tpot_ms is not None:
        met &= np.isnan(found.tpot) | (found.tpot <= slo.tpot_ms)
    if slo.e2e_ms is not None:
        met &= found.e2e <= slo.e2e_ms
    if slo.chunk_gap_ms is not None and longest is not None:
        met &= longest <= slo.chunk_gap_ms
    return met
