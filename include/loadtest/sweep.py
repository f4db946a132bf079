"""Search on a live endpoint: each probe is a load level of its own, with its own records."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from include.catalog.specs import JsonObject, LoadSpec, SearchSpec, Slo, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.api import LoadOutcome, Target, run_load
from include.loadtest.search import Found, Probe, highest_load, knee, saturate
from include.metricspage import MetricsPage

if TYPE_CHECKING:
    import boto3


def probe_of(level: float, outcome: LoadOutcome) -> Probe:
    """Return what a search needs of an outcome; a lack of steadiness is what an overload looks like, so it counts."""
    found = outcome.statistics
    share = found.goodput_share or 0.0
    everything = found.requests_ok + found.requests_failed
    failing = found.requests_failed / everything if everything else 0.0
    total = int(found.window.get("requests", 0))
    fatal = ("CLIENT_BOUND", "LOAD_NOT_DELIVERED", "CONTAMINATED", "INCOMPLETE", "LATE_START")
    return Probe(
        level=level,
        good=round(share * total),
        total=total,
        failed=round(failing * total),
        throughput=found.output_tokens_per_s or found.requests_per_s,
        latency_ms=found.e2e_ms.p50 or 0.0,
        valid=not any(reason.startswith(fatal) for reason in outcome.validity.reasons),
    )


def search_goodput(
    target: Target,
    workload: WorkloadSpec,
    slo: Slo,
    search: SearchSpec,
    *,
    out_dir: Path,
    salt: str,
    session: boto3.Session | None = None,
    on_probe: Callable[[Probe], None] | None = None,
    metrics_urls: Sequence[str | MetricsPage] = (),
    broken: Callable[[], str] = str,
) -> Found:
    """Return the highest rate (or number of users) at which the asked share of requests meets the SLO, or the knee.

    :param out_dir: records of probe *n* are kept in ``probe-<n>`` below it.
    :param session: credentials for signed (SageMaker) requests.
    :param metrics_urls: pages of the endpoint, scraped during each probe.
    :param broken: says why the search must end at once, such as a lease that was lost; empty: it goes on.
    :raises ConfigurationError: the SLO sets no latency limit, and it is not the knee that is looked for.
    """
    if not search.knee and not slo.of_latency:
        raise ConfigurationError(
            "NoSlo", "a search needs a limit for TTFT, TPOT, E2E or chunk gaps", fix="Set one, or look for the knee."
        )
    number = 0

    def run(level: float, attempt: int) -> Probe:
        nonlocal number
        outcome = run_load(
            target,
            workload,
            level_of(search, level),
            out_dir=out_dir / f"probe-{number}",
            salt=f"{salt}{number}",
            seed=workload.seed + attempt,
            slo=slo,
            session=session,
            metrics_urls=metrics_urls,
        )
        number += 1
        probe = probe_of(level, outcome)
        if broken():
            probe = msgspec.structs.replace(probe, valid=False)
        if on_probe is not None:
            on_probe(probe)
        return probe

    integer = search.by == "concurrency"
    if search.knee:
        return saturate(
            run, start=search.start, limit=search.limit, integer=integer, max_probes=search.max_probes, broken=broken
        )
    return highest_load(
        run,
        start=search.start,
        limit=search.limit,
        attainment=search.attainment,
        error_rate=slo.error_rate,
        precision=search.precision,
        integer=integer,
        max_probes=search.max_probes,
        broken=broken,
    )


def level_of(search: SearchSpec, level: float) -> LoadSpec:
    """Return the load of a probe."""
    if search.by == "rate":
        return LoadSpec(mode="open", rate=level, duration_s=search.duration_s)
    return LoadSpec(mode="closed", concurrency=int(level), duration_s=search.duration_s)


def found_json(found: Found, search: SearchSpec, slo: Slo) -> JsonObject:
    """Return what is kept of a search: the bracket, why it ended, the knee, every probe."""
    bend = knee(found.probes)
    return {
        "by": search.by,
        "goal": "knee" if search.knee else "slo",
        "slo": slo.model_dump(mode="json", exclude_none=True),
        "attainment": search.attainment,
        "highest_met": found.highest_met,
        "lowest_missed": found.lowest_missed,
        "resolved": found.resolved,
        "stop": found.stop,
        "knee": None if bend.level is None else {"level": bend.level, "throughput": bend.throughput, "gain": bend.gain},
        "probes": probes_json(found.probes),
    }


def probes_json(probes: Sequence[Probe]) -> list[JsonObject]:
    """Return what is kept of probes."""
    return [msgspec.to_builtins(probe) for probe in probes]


def sentence(found: Found, search: SearchSpec) -> str:
    """Return the finding in words, never more exact than its bracket."""
    unit = "requests/s" if search.by == "rate" else "users"
    if search.knee:
        bend = knee(found.probes)
        if not found.resolved or bend.throughput is None:
            return f"{found.stop} ({len(found.probes)} probes)"
        between = f"between {found.highest_met:g} and {found.lowest_missed:g} {unit}"
        return f"the knee is {between}, with a throughput of {bend.throughput:.4g}/s ({len(found.probes)} probes)"
    if found.highest_met is None:
        return f"no level tried meets the SLO ({found.stop})"
    upper = f", {found.lowest_missed:g} misses it" if found.lowest_missed is not None else ""
    return f"{found.highest_met:g} {unit} meet the SLO{upper} ({found.stop}; {len(found.probes)} probes)"
