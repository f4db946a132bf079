"""What the rest of the project uses: run one load level, get statistics, a verdict and the records."""

from __future__ import annotations

import contextlib
import datetime as dt
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from include.catalog.specs import JsonObject, LoadEngine, LoadSpec, Slo, WorkloadSpec
from include.errors import FailureClass, PipelineError
from include.loadtest.job import HARNESS_VERSION, Credentials, Job
from include.loadtest.planning import make_jobs, workers_for
from include.loadtest.records import Records, merge, read_shard, shard_table, write_parquet
from include.loadtest.records import load as load_records
from include.loadtest.scrape import Scraper
from include.loadtest.serverside import ServerSide, server_side, with_count
from include.loadtest.spool import DISK_FULL
from include.loadtest.statistics import histograms, summarise
from include.loadtest.supervise import Generators
from include.loadtest.target import Target
from include.loadtest.timeline import timeline
from include.loadtest.validity import judge
from include.metricspage import MetricsPage
from include.results.schema import Statistics, Validity

if TYPE_CHECKING:
    import boto3

__all__ = ["LoadOutcome", "Target", "collect", "judge", "load_records", "run_load", "summarise"]

RECORDS = "requests.parquet"
METRICS = "server-metrics.parquet"


@dataclass(frozen=True)
class LoadOutcome:
    """One load level, measured.

    :param requests_path: per-request records (Parquet), from which all else can be computed again.
    :param extension: histograms, calibration of prompt lengths, generators, server metrics.
    """

    statistics: Statistics
    validity: Validity
    requests_path: Path
    started_at: dt.datetime
    ended_at: dt.datetime
    harness_version: str = HARNESS_VERSION
    extension: JsonObject = field(default_factory=dict)
    metrics_path: Path | None = None


def run_load(
    target: Target,
    workload: WorkloadSpec,
    load: LoadSpec,
    *,
    out_dir: Path,
    salt: str,
    seed: int | None = None,
    arm: str = "cold",
    slo: Slo | None = None,
    progress: Callable[[dict[str, Any]], None] | None = None,
    metrics_urls: Sequence[str | MetricsPage] = (),
    lease_id: str | None = None,
    session: boto3.Session | None = None,
) -> LoadOutcome:
    """Run one load level in processes of its own, which end when this one does.

    :param out_dir: takes ``requests.parquet``, and ``server-metrics.parquet`` when metrics are scraped.
    :param salt: makes this run's prompts unlike any other's: a retry needs another one, or it meets warm caches. The
        same salt, seed, workload, load level and arm ask the same again.
    :param seed: of arrivals, lengths and texts; ``None``: the workload's.
    :param progress: called about once a second per process with ``finished``, ``failed``, ``in_flight``, ``ttft_ms``.
    :param metrics_urls: Prometheus pages of the endpoint, scraped once a second on the same clock.
    :param session: credentials for signed (SageMaker) requests.
    :raises ConfigurationError: the load cannot be run as written.
    :raises PipelineError: ``WarmupFailed``, ``UnknownHost``, ``LoadGeneratorDied``, ``LoadGeneratorHung``. Failed
        requests raise nothing: they are records.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    workers = workers_for(load, workload.prompts)
    jobs = make_jobs(
        target, workload, load, out_dir=out_dir, seed=workload.seed if seed is None else seed, salt=salt, arm=arm,
        workers=workers, credentials=_credentials(session) if jobs_need_signing(target, workload) else None,
    )  # fmt: skip
    started = dt.datetime.now(dt.UTC)
    wall = time.monotonic()
    with _scraper(metrics_urls, target, out_dir) as scraper:
        died = _generate(jobs, out_dir, progress)
    server = server_side(scraper)
    path = collect(out_dir, jobs, server.requests)
    records = load_records(path)
    if not records.table.num_rows and died is not None:
        raise died
    return outcome_of(path, slo or workload.slo, started, time.monotonic() - wall, server, lease_id)


def run_foreign_load(
    target: Target,
    workload: WorkloadSpec,
    load: LoadSpec,
    install: LoadEngine,
    *,
    out_dir: Path,
    slo: Slo | None = None,
    metrics_urls: Sequence[str | MetricsPage] = (),
    lease_id: str | None = None,
) -> LoadOutcome:
    """Run one load level by the workload's own engine, from the environment where it is installed.

    :param metrics_urls: as of :func:`run_load`.
    :raises PipelineError: see :func:`include.loadtest.foreign.run.run_foreign`.
    """
    from include.loadtest.foreign.run import run_foreign

    started, wall = dt.datetime.now(dt.UTC), time.monotonic()
    out_dir.mkdir(parents=True, exist_ok=True)
    with _scraper(metrics_urls, target, out_dir) as scraper:
        table = run_foreign(workload.engine, target, workload, load, install, out_dir=out_dir)
    server = server_side(scraper)
    path = write_parquet(with_count(table, server.requests), out_dir / RECORDS)
    return outcome_of(path, slo or workload.slo, started, time.monotonic() - wall, server, lease_id)


def _scraper(pages: Sequence[str | MetricsPage], target: Target, out_dir: Path) -> Scraper:
    """Return what scrapes the pages; the target's headers go to those that it serves itself, and nowhere else."""
    origin = urlsplit(target.base_url)[:2]
    own = {page: target.headers for page in pages if isinstance(page, str) and urlsplit(page)[:2] == origin}
    return Scraper(pages, out_dir / METRICS, own, target.ca_file)


def jobs_need_signing(target: Target, workload: WorkloadSpec) -> bool:
    """True when requests carry an AWS signature."""
    return (target.protocol or workload.protocol) == "sagemaker"


def _generate(
    jobs: list[Job], out_dir: Path, progress: Callable[[dict[str, Any]], None] | None
) -> PipelineError | None:
    """Run the processes; returns what to say if one died without a word."""
    with Generators(jobs, out_dir) as generators:
        try:
            generators.run(progress)
        except BaseException:
            generators.__exit__()
            with contextlib.suppress(PipelineError):  # the spools stay; what went wrong first is what is told
                collect(out_dir, jobs)
            raise
        for job in jobs:
            code, tail = generators.died(job.worker)
            if code:
                return PipelineError(
                    "LoadGeneratorDied",
                    f"load generator {job.worker} ended with code {code} and left no record",
                    fix="Look at the last lines of its log.",
                    failure_class=FailureClass.INTERNAL,
                    evidence=tail,
                )
    return None


def collect(out_dir: Path, jobs: list[Job], server_requests: int | None = None) -> Path:
    """Turn the jobs' spools into ``requests.parquet`` and remove them; returns its path.

    :param server_requests: that the server counted; kept with the records, so that they can be judged again.
    :raises PipelineError: ``DiskFull`` or ``RecordsNotWritten``; the spools are kept.
    """
    spools = [Path(job.out) for job in jobs if Path(job.out).exists()]
    try:
        table = merge(shard_table(read_shard(spool)) for spool in spools)
        path = write_parquet(with_count(table, server_requests), out_dir / RECORDS)
    except OSError as error:
        raise PipelineError(
            "DiskFull" if error.errno in DISK_FULL else "RecordsNotWritten",
            f"{out_dir / RECORDS} cannot be written: {error.strerror or error}",
            fix=f"Make room, then: python -m include.loadtest collect {out_dir}",
            failure_class=FailureClass.TRANSIENT,
        ) from error
    for spool in spools:
        spool.unlink()
    return path


def outcome_of(
    path: Path,
    slo: Slo,
    started: dt.datetime,
    wall: float,
    server: ServerSide | None = None,
    lease_id: str | None = None,
) -> LoadOutcome:
    """Return what the records in ``path`` say of a level that was begun at ``started`` and took ``wall`` seconds."""
    server = server or ServerSide()
    records = load_records(path)
    validity = judge(records, slo, server_side_requests=server.requests, lease_id=lease_id)
    metrics = path.with_name(METRICS)
    return LoadOutcome(
        statistics=summarise(records, slo),
        validity=validity,
        requests_path=path,
        started_at=started,
        ended_at=dt.datetime.now(dt.UTC),
        harness_version=_harness(records),
        extension={
            "histograms": histograms(records),
            "generators": [generator_facts(worker) for worker in records.workers],
            "server_metrics": server.summary,
            "timeline": timeline(records, metrics),
            "wall_s": round(wall, 3),
        },
        metrics_path=metrics if metrics.exists() else None,
    )


def _harness(records: Records) -> str:
    """Return who measured: our version, or another engine's name and version."""
    meta = records.workers[0]["meta"] if records.workers else {}
    return f"{meta['tool']} {meta.get('tool_version', '')}".strip() if meta.get("tool") else HARNESS_VERSION


def generator_facts(worker: dict[str, Any]) -> JsonObject:
    """Return what a reader of the result wants to know of a generator."""
    summary = worker["summary"] or {}
    return {
        "host": worker["meta"].get("host", ""),
        "cores": worker["meta"].get("cores"),
        "prompt_lengths": summary.get("calibration"),
        "peak_in_flight": summary.get("peak_in_flight"),
        "peak_rss_mib": round(summary["peak_rss_kib"] / 1024, 1) if summary.get("peak_rss_kib") else None,
        "stop": summary.get("stop"),
    }


def _credentials(session: boto3.Session | None) -> Credentials:
    import boto3

    found = (session or boto3.Session()).get_credentials()
    if found is None:
        raise PipelineError(
            "NoCredentials",
            "requests to SageMaker are signed and there are no AWS credentials",
            fix="Give a session, or set the AWS environment.",
            failure_class=FailureClass.CONFIGURATION,
        )
    frozen = found.get_frozen_credentials()
    return Credentials(frozen.access_key, frozen.secret_key, frozen.token)
