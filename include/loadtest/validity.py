"""May a result be compared? Every reason that it may not, each with its number and its limit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import msgspec

from include.catalog.specs import JsonObject, Slo
from include.loadtest.delivered import rates, requests_made, send_lag, streams
from include.loadtest.latencies import latencies
from include.loadtest.quantiles import minimum_sample
from include.loadtest.records import Records
from include.loadtest.serverside import count_of
from include.loadtest.window import steady_window, trend
from include.results.schema import Validity

if TYPE_CHECKING:
    import numpy as np

VALID = "VALID"
END_SLACK_NS = 50_000_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Where a number becomes a reason.

    :param lag_ms: lateness of the client's own work (p99); a larger share of the latency measured is allowed.
    :param lag_share: that share of the median TTFT (E2E when nothing is streamed).
    :param mean_lag_ms: mean lateness; allowed up to ``mean_lag_share`` of the same median.
    :param cpu_share: of one core, by the busiest generator.
    :param wait_share: of the window that a generator was ready to run and had no core.
    :param undelivered: share of the rate or number of requests asked for, most that may be missing.
    :param output_share: received / asked output tokens, least.
    :param output_requests: share of the answers, most that may be shorter, longer, empty or unstreamed.
    :param usage_error: of the tokenizer's count, most that the usage field may differ.
    """

    lag_ms: float = 5.0
    lag_share: float = 0.05
    mean_lag_ms: float = 1.0
    mean_lag_share: float = 0.02
    cpu_share: float = 0.9
    wait_share: float = 0.25
    error_rate: float = 0.01
    undelivered: float = 0.01
    output_share: float = 0.95
    output_requests: float = 0.01
    usage_error: float = 0.10
    late_start_ms: float = 1000.0
    percentile: float = 50


class _Facts(msgspec.Struct, kw_only=True):
    """Numbers that the rules look at."""

    in_window: int
    ok: int
    failed: int
    median_ms: float | None
    lag_p99_ms: float | None
    lag_mean_ms: float | None
    send_lag_p99_ms: float | None
    cpu_share: float | None
    wait_share: float | None
    asked_streams: int | None
    peak_streams: int | None
    asked_rate: float | None
    delivered_rate: float | None
    rate_by_chance: float
    asked_requests: int | None
    made_requests: int | None
    output_share: float | None
    short: int
    long: int
    empty: int
    unstreamed: int
    tokens_unknown: int
    usage_below_chunks: int
    usage_error: float | None
    unfinished_workers: int
    stops: list[str]
    late_start_ms: float
    trend_change: float | None
    trend_p: float | None
    unsteady: bool


def judge(
    records: Records,
    slo: Slo | None = None,
    *,
    server_side_requests: int | None = None,
    lease_id: str | None = None,
    limits: Limits | None = None,
) -> Validity:
    """Return the verdict on a run's records.

    :param server_side_requests: requests that the server counted from before the first warm-up request to after the
        last answer; ``None``: as the records say, which may be that it is not known.
    :param lease_id: proof that the endpoint was reserved for this run.
    """
    bounds = limits or Limits()
    if slo is not None and slo.error_rate is not None:
        bounds = msgspec.structs.replace(bounds, error_rate=slo.error_rate)
    facts = _facts(records)
    client_side, answered = _client_side(records)
    if server_side_requests is None:
        server_side_requests = count_of(records)
    reasons = [f"{code}: {text}" for code, text in _reasons(facts, bounds)]
    # Which of those that failed here a server counts is its own affair; all others it must have counted.
    if server_side_requests is not None and not answered <= server_side_requests <= client_side:
        sent = f"{client_side} and had {answered} answers" if answered != client_side else str(client_side)
        reasons.append(f"CONTAMINATED: the server counted {server_side_requests} requests, we sent {sent}")
    numbers: JsonObject = msgspec.to_builtins(facts)
    lags = [lag for lag in (facts.lag_p99_ms, facts.send_lag_p99_ms) if lag is not None]
    return Validity(
        valid=not reasons,
        reasons=tuple(reasons),
        client_lag_ms_p99=max(lags) if lags else None,
        client_cpu_share=facts.cpu_share,
        server_side_requests=server_side_requests,
        client_side_requests=client_side,
        lease_id=lease_id,
        details={
            "verdict": reasons[0].partition(":")[0] if reasons else VALID,
            "numbers": numbers,
            "limits": msgspec.to_builtins(bounds),
        },
    )


def _reasons(facts: _Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    yield from _sample_reasons(facts, limits)
    yield from _client_reasons(facts, limits)
    yield from _load_reasons(facts, limits)
    yield from _output_reasons(facts, limits)
    if facts.unsteady:
        yield "UNSTEADY", f"latency changed by {facts.trend_change:+.0%} over the window (p = {facts.trend_p:.2g})"


def _sample_reasons(facts: _Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    total = facts.ok + facts.failed
    needed = minimum_sample(limits.percentile)
    if facts.unfinished_workers:
        yield "INCOMPLETE", f"{facts.unfinished_workers} generator(s) ended without their summary"
    if total and facts.failed / total > limits.error_rate:
        share = facts.failed / total
        yield "ERRORS", f"{facts.failed} of {total} requests failed ({share:.1%}, limit {limits.error_rate:.1%})"
    if facts.in_window < needed:
        yield "UNDERSAMPLED", f"{facts.in_window} answers in the window, p{limits.percentile:g} needs {needed}"


def _client_reasons(facts: _Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    median = facts.median_ms or 0.0
    most = max(limits.lag_ms, limits.lag_share * median)
    mean = max(limits.mean_lag_ms, limits.mean_lag_share * median)
    for name, value, limit in (
        ("event loop lag p99", facts.lag_p99_ms, most),
        ("send lag p99", facts.send_lag_p99_ms, most),
        ("event loop lag mean", facts.lag_mean_ms, mean),
    ):
        if value is not None and value > limit:
            yield "CLIENT_BOUND", f"{name} {value:.2f} ms (limit {limit:.2f} ms)"
    for name, value, limit in (
        ("CPU share of the busiest generator", facts.cpu_share, limits.cpu_share),
        ("share of time without a core", facts.wait_share, limits.wait_share),
    ):
        if value is not None and value > limit:
            yield "CLIENT_BOUND", f"{name} {value:.0%} (limit {limit:.0%})"


def _load_reasons(facts: _Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    for stop in facts.stops:
        yield "STOPPED", f"the run was ended early: {stop}"
    if facts.asked_streams and facts.peak_streams is not None and facts.peak_streams < facts.asked_streams:
        yield "LOAD_NOT_DELIVERED", f"{facts.peak_streams} of {facts.asked_streams} streams were reached"
    least = 1 - limits.undelivered - facts.rate_by_chance
    if facts.asked_rate and facts.delivered_rate is not None and facts.delivered_rate < least * facts.asked_rate:
        yield "LOAD_NOT_DELIVERED", f"{facts.delivered_rate:.2f} of {facts.asked_rate:.2f} requests/s were sent"
    least = 1 - limits.undelivered
    if facts.asked_requests and facts.made_requests is not None and facts.made_requests < least * facts.asked_requests:
        yield "LOAD_NOT_DELIVERED", f"{facts.made_requests} of {facts.asked_requests} requests were made"
    if facts.late_start_ms > limits.late_start_ms:
        yield "LATE_START", f"a generator began {facts.late_start_ms:.0f} ms after the appointed time"


def _output_reasons(facts: _Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    in_all = facts.output_share is not None and facts.output_share < limits.output_share
    if in_all:
        yield (
            "SHORT_OUTPUTS",
            f"{facts.output_share:.1%} of the tokens asked for came (limit {limits.output_share:.0%})",
        )
    allowed = limits.output_requests * facts.ok
    for code, count, what in (
        ("SHORT_OUTPUTS", 0 if in_all else facts.short, "are shorter than asked for"),
        ("LONG_OUTPUTS", facts.long, "are longer than asked for"),
        ("EMPTY_OUTPUTS", facts.empty, "are empty"),
        ("NOT_STREAMED", facts.unstreamed, "came whole although streams were asked for: no TTFT is known"),
    ):
        if count > allowed:
            yield code, f"{count} of {facts.ok} answers {what} (limit {limits.output_requests:.0%})"
    if facts.tokens_unknown:
        yield "NO_TOKEN_COUNT", f"{facts.tokens_unknown} answers came without a usage field"
    if facts.usage_below_chunks:
        yield "WRONG_USAGE", f"{facts.usage_below_chunks} answers state fewer tokens than the chunks that they sent"
    elif facts.usage_error is not None and facts.usage_error > limits.usage_error:
        yield "WRONG_USAGE", f"usage differs from the tokenizer's count by {facts.usage_error:.1%}"


def _client_side(records: Records) -> tuple[int, int]:
    """Requests that left this side, warm-up and repeats included, and how many of them were answered."""
    sent = records.table.num_rows - records.table["sent_ns"].null_count
    unrecorded = sum(int(worker["meta"].get("unrecorded", 0)) for worker in records.workers)
    return int(sent + sum(records.table["resent"].to_pylist())) + unrecorded, int(records.succeeded().sum())


def _facts(records: Records) -> _Facts:
    import numpy as np

    measured = records.phase("measure")
    window = steady_window(measured)
    scheduled = measured.times("scheduled_ns")
    kept = measured.where((scheduled >= window.start) & (scheduled <= window.end))
    found, whole = latencies(kept), latencies(measured)
    shown = found.ttft_sent if not np.isnan(found.ttft_sent).all() else found.e2e_sent
    drift = trend(kept.times("scheduled_ns"), np.where(np.isnan(found.ttft), found.e2e, found.ttft))
    asked_rate, delivered_rate, by_chance = rates(measured)
    asked_streams, peak = streams(measured)
    asked_requests, made = requests_made(measured)
    return _Facts(
        in_window=int(found.ok.sum()),
        ok=int(whole.ok.sum()),
        failed=int((~whole.ok).sum()),
        median_ms=_number(np.nanmedian(shown)) if (~np.isnan(shown)).any() else None,
        send_lag_p99_ms=send_lag(measured),
        asked_streams=asked_streams,
        peak_streams=peak,
        asked_rate=asked_rate,
        delivered_rate=delivered_rate,
        rate_by_chance=by_chance,
        asked_requests=asked_requests,
        made_requests=made,
        unfinished_workers=sum(worker["summary"] is None for worker in records.workers),
        stops=_stops(records),
        late_start_ms=max(((w["summary"] or {}).get("late_start_ms", 0.0) for w in records.workers), default=0.0),
        trend_change=drift.change if drift.tested else None,
        trend_p=drift.p_value if drift.tested else None,
        unsteady=drift.unsteady,
        **_client_facts(records),
        **_output_facts(measured, records, whole.ok),
    )


def _number(value: Any) -> float:
    return float(value)


def _client_facts(records: Records) -> dict[str, Any]:
    """Return lag (ms) over all generators, and CPU and waiting share of the worst one, from t0 to the load's end."""
    import numpy as np

    late: list[int] = []
    cpu: list[float] = []
    wait: list[float] = []
    for worker in records.workers:
        beats = _beats_of_the_load(worker)
        late += [value for beat in beats[1:] for value in beat["late_us"]]
        if len(beats) < 2 or beats[-1]["at"] <= beats[0]["at"]:
            continue
        span = beats[-1]["at"] - beats[0]["at"]
        cpu.append((beats[-1]["cpu_ns"] - beats[0]["cpu_ns"]) / span)
        if beats[0]["wait_ns"] >= 0:
            wait.append((beats[-1]["wait_ns"] - beats[0]["wait_ns"]) / span)
    return {
        "lag_p99_ms": float(np.quantile(late, 0.99)) / 1e3 if late else None,
        "lag_mean_ms": float(np.mean(late)) / 1e3 if late else None,
        "cpu_share": max(cpu, default=None),
        "wait_share": max(wait, default=None),
    }


def _beats_of_the_load(worker: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the beats from the last one before t0 to the first one after the load's end.

    Beats of the wait for the start, of the drain and of what is looked up afterwards would dilute those that count.
    """
    beats, summary = worker["health"], worker["summary"] or {}
    # An open loop ends once its last arrivals are sent, some milliseconds after the beat that its time brings.
    t0, end = summary.get("t0") or 0, (summary.get("stopped_at") or float("inf")) - END_SLACK_NS
    first = max((place for place, beat in enumerate(beats) if beat["at"] <= t0), default=0)
    last = next((place for place, beat in enumerate(beats) if beat["at"] >= end), len(beats) - 1)
    return list(beats[first : last + 1])


def _stops(records: Records) -> list[str]:
    normal = {"", "duration"}
    return sorted({str((worker["summary"] or {}).get("stop", "")) for worker in records.workers} - normal)


def _output_facts(measured: Records, records: Records, ok: np.ndarray[Any, Any]) -> dict[str, Any]:
    import numpy as np

    tokens, chunks = measured.column("output_tokens"), measured.column("chunks")
    asked = measured.column("asked_output")
    kinds = measured.workers[0]["meta"].get("job", {}) if measured.workers else {}
    exact = all(kind.get("kind") != "dataset" for kind in kinds.get("prompts", []))
    generates = kinds.get("endpoint", {}).get("body") != "embeddings"
    streams = generates and kinds.get("endpoint", {}).get("stream", False)
    known = ok & ~np.isnan(tokens) & (asked > 0)
    # One token more or less is a matter of counting the end-of-text token.
    off = np.where(known & exact & (abs(tokens - asked) > 1), tokens / np.where(asked > 0, asked, 1), 1.0)
    share = Limits().output_share
    counted = [pair for worker in records.workers for pair in (worker["summary"] or {}).get("text_counts", [])]
    truth = sum(pair[1] for pair in counted)
    return {
        "output_share": float(tokens[known].sum() / asked[known].sum()) if exact and known.any() else None,
        "short": int((off < share).sum()),
        "long": int((off > 1 / share).sum()),
        "empty": int((ok & (tokens == 0)).sum()),
        "unstreamed": int((ok & (chunks == 0) & (tokens != 0)).sum()) if streams else 0,
        "tokens_unknown": int((ok & np.isnan(tokens)).sum()) if generates else 0,
        "usage_below_chunks": int((ok & (tokens < chunks)).sum()),
        "usage_error": sum(abs(pair[0] - pair[1]) for pair in counted) / truth if truth else None,
    }
