"""Commands for people: run a workload, report on records, compare two runs, collect what a crash left."""

from __future__ import annotations

import argparse
import json
import secrets
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import PipelineError

if TYPE_CHECKING:
    from include.loadtest.api import LoadOutcome
    from include.loadtest.search import Probe
    from include.results.schema import Percentiles, Statistics, Validity

EXIT_INVALID, EXIT_FAILED = 1, 2
_METRICS = ("ttft_ms", "chunk_gap_ms", "tpot_ms", "e2e_ms", "ttft_sent_ms", "e2e_sent_ms")


def main(arguments: Sequence[str]) -> int:
    """Run a command. Exit code: 0 done and valid, 1 done but the result is not valid, 2 it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except PipelineError as error:
        print(error, file=sys.stderr)
        for line in error.evidence:
            print(f"  {line}", file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    from include.loadtest.options import add_load_options, add_search_options, add_target_options

    parser = argparse.ArgumentParser(prog="python -m include.loadtest", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run one load level, or all of a catalog workload's")
    add_target_options(run)
    add_load_options(run)
    run.add_argument("--arm", choices=("cold", "warm"), default="cold")
    run.add_argument("--seed", type=int)
    run.add_argument("--metrics-url", action="append", default=[], help="Prometheus page to scrape meanwhile")
    run.add_argument("--out", type=Path, default=Path("var/loadtest"), help="folder for the records")
    run.set_defaults(function=_run)
    search = commands.add_parser("search", help="the highest rate or number of users that still meets an SLO")
    add_target_options(search)
    add_search_options(search)
    search.add_argument("--out", type=Path, default=Path("var/loadtest/search"), help="folder for the probes' records")
    search.set_defaults(function=_search)
    report = commands.add_parser("report", help="statistics of records (file, or folder also after a crash)")
    report.add_argument("records", type=Path, nargs="+")
    report.add_argument("--json", action="store_true")
    report.set_defaults(function=_report)
    compare = commands.add_parser("compare", help="two runs side by side")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    compare.set_defaults(function=_compare)
    collect = commands.add_parser("collect", help="turn the spools of a folder into requests.parquet")
    collect.add_argument("folder", type=Path)
    collect.set_defaults(function=_collect)
    pod = commands.add_parser("pod", help="what a pod of a load Job runs")
    pod.add_argument("--orders", type=Path, required=True)
    pod.add_argument("--results", required=True, help="URI of a folder for the records")
    pod.add_argument("--index", type=int, help="instead of JOB_COMPLETION_INDEX")
    pod.set_defaults(function=_pod)
    return parser


def _run(options: argparse.Namespace) -> int:
    from include.catalog.loader import load_catalog
    from include.loadtest.api import run_load
    from include.loadtest.options import loads, target

    workload = load_catalog().workload(options.workload)
    levels, place = loads(options, workload), target(options)
    valid = True
    for load in levels:
        outcome = run_load(
            place,
            workload,
            load,
            out_dir=options.out / f"{workload.name}-{load.label}-{options.arm}",
            salt=secrets.token_hex(4),
            seed=options.seed,
            arm=options.arm,
            progress=_show_progress,
            metrics_urls=tuple(options.metrics_url),
        )
        print(f"\n{workload.name} {load.label} {options.arm}")
        _print(outcome.statistics, outcome.validity)
        _write_result(outcome)
        print(f"records: {outcome.requests_path}")
        valid = valid and outcome.validity.valid
    return 0 if valid else EXIT_INVALID


def _search(options: argparse.Namespace) -> int:
    """Exit code 1: the bracket is not proven at both ends."""
    from include.catalog.loader import load_catalog
    from include.loadtest.options import search_of, target
    from include.loadtest.sweep import found_json, search_goodput, sentence

    workload = load_catalog().workload(options.workload)
    search, slo = search_of(options, workload)
    found = search_goodput(
        target(options), workload, slo, search, out_dir=options.out, salt=secrets.token_hex(4), on_probe=_show_probe
    )
    content = found_json(found, search, slo)
    path = options.out / "search.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    print(json.dumps(content) if options.json else f"{sentence(found, search)}\nprobes: {path}")
    return 0 if found.resolved or found.stop.startswith("limit") else EXIT_INVALID


def _show_probe(probe: Probe) -> None:
    said = "" if probe.valid else ", not valid: the client was the bottleneck"
    print(f"  {probe.level:10.4g}: {probe.good} of {probe.total} met the SLO{said}", file=sys.stderr)


def _write_result(outcome: LoadOutcome) -> None:
    from include.loadtest.timeline import draw

    content = {
        "statistics": outcome.statistics.model_dump(mode="json"),
        "validity": outcome.validity.model_dump(mode="json"),
        "extension": outcome.extension,
    }
    outcome.requests_path.with_name("result.json").write_text(json.dumps(content, indent=1))
    outcome.requests_path.with_name("timeline.html").write_text(draw(outcome.extension["timeline"]))


def _show_progress(event: dict[str, Any]) -> None:
    if event["event"] == "progress":
        ttft = event["ttft_ms"]
        shown = f", TTFT {ttft:.1f} ms" if ttft is not None else ""
        print(
            f"  {event['t']:6.1f} s  {event['finished']} done, {event['failed']} failed, "
            f"{event['in_flight']} in flight{shown}",
            file=sys.stderr,
        )


def _report(options: argparse.Namespace) -> int:
    from include.loadtest.records import load
    from include.loadtest.statistics import summarise
    from include.loadtest.validity import judge

    records = load(options.records)
    statistics, validity = summarise(records), judge(records)
    if options.json:
        print(
            json.dumps({"statistics": statistics.model_dump(mode="json"), "validity": validity.model_dump(mode="json")})
        )
    else:
        _print(statistics, validity)
    return 0 if validity.valid else EXIT_INVALID


def _collect(options: argparse.Namespace) -> int:
    from include.loadtest.records import compact

    print(compact(options.folder))
    return 0


def _pod(options: argparse.Namespace) -> int:
    import os
    import tempfile

    from include.loadtest.kubernetes_job import INDEX_ENV
    from include.loadtest.pod import run_pod

    index = options.index if options.index is not None else int(os.environ[INDEX_ENV])
    with tempfile.TemporaryDirectory() as scratch:
        run_pod(options.orders, index, options.results, Path(scratch))
    return 0


def _compare(options: argparse.Namespace) -> int:
    """Show two runs; one pair of runs says nothing of run-to-run noise, so no verdict is given here."""
    from include.loadtest.records import load
    from include.loadtest.statistics import summarise
    from include.loadtest.validity import judge

    before, after = load(options.before), load(options.after)
    first, second = summarise(before), summarise(after)
    print(f"{'':22}{'before':>12}{'after':>12}{'ratio':>9}")
    for metric in _METRICS:
        for name in ("p50", "p95", "p99"):
            a, b = getattr(getattr(first, metric), name), getattr(getattr(second, metric), name)
            if a is not None and b is not None:
                print(f"{metric + ' ' + name:22}{a:12.2f}{b:12.2f}{b / a if a else float('nan'):9.3f}")
    for metric in ("output_tokens_per_s", "requests_per_s"):
        a, b = getattr(first, metric), getattr(second, metric)
        print(f"{metric:22}{a:12.2f}{b:12.2f}{b / a if a else float('nan'):9.3f}")
    verdicts = [judge(before), judge(after)]
    for label, verdict in zip(("before", "after"), verdicts, strict=True):
        print(f"{label}: {verdict.details['verdict']}")
    return 0 if all(verdict.valid for verdict in verdicts) else EXIT_INVALID


def _print(statistics: Statistics, validity: Validity) -> None:
    print(f"{'':16}{'count':>8}{'mean':>10}{'p50':>10}{'p90':>10}{'p95':>10}{'p99':>10}{'max':>10}")
    for metric in _METRICS:
        values: Percentiles = getattr(statistics, metric)
        cells = (values.mean, values.p50, values.p90, values.p95, values.p99, values.max)
        print(f"{metric:16}{values.count:8d}" + "".join(f"{'-' if v is None else format(v, '.2f'):>10}" for v in cells))
    print(
        f"{statistics.requests_ok} ok, {statistics.requests_failed} failed {statistics.failures or ''}; "
        f"{statistics.output_tokens_per_s:.1f} output tokens/s, {statistics.requests_per_s:.2f} requests/s"
    )
    if statistics.goodput_share is not None:
        print(f"goodput {statistics.goodput_rps:.2f} requests/s, {statistics.goodput_share:.1%} of requests")
    print(f"verdict: {validity.details['verdict']}")
    for reason in validity.reasons:
        print(f"  {reason}")
