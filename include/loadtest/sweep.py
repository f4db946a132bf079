"""Search on a live endpoint: each probe is a load level of its own, with its own records."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

from include.catalog.specs import LoadSpec, Slo, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.api import LoadOutcome, Target, run_load
from include.loadtest.search import Found, Probe, highest_load


def probe_of(level: float, outcome: LoadOutcome) -> Probe:
    """Return what a search needs of an outcome; a lack of steadiness is what an overload looks like, so it counts."""
    found = outcome.statistics
    share = found.goodput_share or 0.0
    total = int(found.window.get("requests", 0))
    fatal = ("CLIENT_BOUND", "LOAD_NOT_DELIVERED", "CONTAMINATED", "INCOMPLETE", "LATE_START")
    return Probe(
        level=level,
        good=round(share * total),
        total=total,
        throughput=found.output_tokens_per_s or found.requests_per_s,
        latency_ms=found.e2e_ms.p50 or 0.0,
        valid=not any(reason.startswith(fatal) for reason in outcome.validity.reasons),
    )


def search_goodput(
    target: Target,
    workload: WorkloadSpec,
    slo: Slo,
    *,
    by: Literal["rate", "concurrency"],
    start: float,
    limit: float,
    duration_s: float,
    out_dir: Path,
    salt: str,
    precision: float = 0.1,
    max_probes: int = 16,
    on_probe: Callable[[Probe], None] | None = None,
) -> Found:
    """Return the highest rate (or number of users) at which 95 % of requests meet the SLO.

    :param duration_s: of each probe; records of probe *n* are kept in ``out_dir/probe-<n>``.
    :raises ConfigurationError: the SLO sets no latency limit.
    """
    if slo.ttft_ms is None and slo.tpot_ms is None and slo.e2e_ms is None:
        raise ConfigurationError("NoSlo", "a search needs a limit for TTFT, TPOT or E2E", fix="Set one.")
    number = 0

    def run(level: float, attempt: int) -> Probe:
        nonlocal number
        load = (
            LoadSpec(mode="open", rate=level, duration_s=duration_s)
            if by == "rate"
            else LoadSpec(mode="closed", concurrency=int(level), duration_s=duration_s)
        )
        outcome = run_load(
            target,
            workload,
            load,
            out_dir=out_dir / f"probe-{number}",
            salt=f"{salt}{number}",
            seed=workload.seed + attempt,
            slo=slo,
        )
        number += 1
        probe = probe_of(level, outcome)
        if on_probe is not None:
            on_probe(probe)
        return probe

    return highest_load(
        run, start=start, limit=limit, precision=precision, integer=by == "concurrency", max_probes=max_probes
    )
