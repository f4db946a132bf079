"""Commands for people: run a workload, report on records, compare two runs, collect what a crash left."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ConfigurationError, IntegrityError, PipelineError
from include.loadtest.tables import comparison_lines, result_lines, scrape_problems

if TYPE_CHECKING:
    from include.catalog.specs import LoadSpec, Slo, WorkloadSpec
    from include.loadtest.api import LoadOutcome
    from include.loadtest.search import Probe
    from include.loadtest.target import Target

EXIT_INVALID, EXIT_FAILED, EXIT_INTERRUPTED = 1, 2, 130


def main(arguments: Sequence[str]) -> int:
    """Run a command.

    Exit code: 0 done and valid, 1 done but the result is not valid, 2 it could not be done, 130 interrupted.
    """
    options = _parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except PipelineError as error:
        print(error, file=sys.stderr)
        for line in error.evidence:
            print(f"  {line}", file=sys.stderr)
        return EXIT_FAILED
    except BrokenPipeError:
        # Nobody reads what would be said of it; nor may Python's last flush meet the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return EXIT_FAILED
    except OSError as error:
        said = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        print(f"FileProblem: {said}. Fix: give a file or folder that can be used.", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    from include.loadtest.options import add_load_options, add_search_options, add_slo_options, add_target_options

    parser = argparse.ArgumentParser(prog="python -m include.loadtest", description=__doc__)
    commands = parser.add_subparsers(required=True)
    run = commands.add_parser("run", help="run one load level, or all of a catalog workload's")
    add_target_options(run)
    add_load_options(run)
    add_slo_options(run)
    run.add_argument("--arm", choices=("cold", "warm"), default="cold")
    run.add_argument("--seed", type=int)
    run.add_argument("--metrics-url", action="append", default=[], help="Prometheus page to scrape meanwhile")
    run.add_argument("--out", type=Path, default=Path("var/loadtest"), help="folder; each run makes its own in it")
    run.set_defaults(function=_run)
    search = commands.add_parser("search", help="the highest rate or number of users that still meets an SLO")
    add_target_options(search)
    add_search_options(search)
    search.add_argument("--out", type=Path, help="new folder for the probes; default: one below var/loadtest")
    search.set_defaults(function=_search)
    report = commands.add_parser("report", help="statistics of records (file, or folder also after a crash)")
    report.add_argument("records", type=Path, nargs="+")
    add_slo_options(report)
    report.add_argument("--json", action="store_true")
    report.set_defaults(function=_report)
    compare = commands.add_parser("compare", help="two runs side by side")
    compare.add_argument("before", type=Path)
    compare.add_argument("after", type=Path)
    add_slo_options(compare)
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
    """Run each level in a folder of its own, which no later run uses again."""
    from include.loadtest.options import loads, slo_of, target, workload_of

    workload = workload_of(options)
    levels, place, slo = loads(options, workload), target(options), slo_of(options, workload.slo)
    run_id, valid = _run_id(), True
    for load in levels:
        folder = options.out / f"{workload.name}-{load.label}-{options.arm}-{run_id}"
        folder.mkdir(parents=True)  # it must be new
        print(f"\n{workload.name} {load.label} {options.arm}")
        try:
            outcome = _level(options, place, workload, load, folder, slo)
        except KeyboardInterrupt:
            _print_what_there_is(folder, slo)
            raise
        _print(result_lines(outcome.statistics, outcome.validity))
        for line in scrape_problems(outcome.extension["server_metrics"]):
            print(line, file=sys.stderr)
        _write_result(outcome)
        print(f"records: {outcome.requests_path}")
        valid = valid and outcome.validity.valid
    return 0 if valid else EXIT_INVALID


def _run_id() -> str:
    return f"{time.strftime('%Y%m%dT%H%M%S')}-{secrets.token_hex(2)}"


def _level(
    options: argparse.Namespace, place: Target, workload: WorkloadSpec, load: LoadSpec, folder: Path, slo: Slo
) -> LoadOutcome:
    from include.loadtest.api import run_load

    return run_load(
        place,
        workload,
        load,
        out_dir=folder,
        salt=secrets.token_hex(4),
        seed=options.seed,
        arm=options.arm,
        slo=slo,
        progress=_show_progress,
        metrics_urls=tuple(options.metrics_url),
    )


def _print_what_there_is(folder: Path, slo: Slo) -> None:
    """Print what an interrupted level has measured until then."""
    from include.loadtest.records import load
    from include.loadtest.statistics import summarise
    from include.loadtest.validity import judge

    with contextlib.suppress(IntegrityError):  # nothing was recorded yet
        records = load(folder)
        _print(result_lines(summarise(records, slo), judge(records, slo)))
        print(f"records: {folder}")


def _search(options: argparse.Namespace) -> int:
    """Exit code 1: the bracket is not proven at both ends."""
    from include.loadtest.options import search_of, target, workload_of
    from include.loadtest.sweep import found_json, search_goodput, sentence

    workload, folder = workload_of(options), options.out or Path("var/loadtest") / f"search-{_run_id()}"
    search, slo = search_of(options, workload)
    _refuse_used(folder)
    found = search_goodput(
        target(options), workload, slo, search, out_dir=folder, salt=secrets.token_hex(4), on_probe=_show_probe
    )
    content, path = found_json(found, search, slo), folder / "search.json"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1))
    print(json.dumps(content) if options.json else f"{sentence(found, search)}\nprobes: {path}")
    return 0 if found.resolved or found.stop.startswith("limit") else EXIT_INVALID


def _refuse_used(folder: Path) -> None:
    """Refuse a folder whose probes would be written over."""
    if any(folder.glob("probe-*")) or (folder / "search.json").exists():
        raise ConfigurationError(
            "FolderInUse", f"--out {str(folder)!r} holds an earlier search", fix="Give another folder, or move it away."
        )


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
    from include.loadtest.options import slo_of
    from include.loadtest.records import load
    from include.loadtest.statistics import summarise
    from include.loadtest.validity import judge

    records, slo = load(options.records), slo_of(options)
    statistics, validity = summarise(records, slo), judge(records, slo)
    if options.json:
        print(
            json.dumps({"statistics": statistics.model_dump(mode="json"), "validity": validity.model_dump(mode="json")})
        )
    else:
        _print(result_lines(statistics, validity))
    return 0 if validity.valid else EXIT_INVALID


def _collect(options: argparse.Namespace) -> int:
    from include.loadtest.records import compact

    print(compact(options.folder))
    return 0


def _pod(options: argparse.Namespace) -> int:
    import tempfile

    from include.loadtest.kubernetes_job import INDEX_ENV
    from include.loadtest.pod import run_pod

    index = options.index if options.index is not None else int(os.environ[INDEX_ENV])
    with tempfile.TemporaryDirectory() as scratch:
        run_pod(options.orders, index, options.results, Path(scratch))
    return 0


def _compare(options: argparse.Namespace) -> int:
    """Show two runs; one pair of runs says nothing of run-to-run noise, so no verdict is given here."""
    from include.loadtest.options import slo_of
    from include.loadtest.records import load
    from include.loadtest.statistics import summarise
    from include.loadtest.validity import judge

    slo, before, after = slo_of(options), load(options.before), load(options.after)
    _print(comparison_lines(summarise(before, slo), summarise(after, slo)))
    verdicts = [judge(before, slo), judge(after, slo)]
    for label, verdict in zip(("before", "after"), verdicts, strict=True):
        print(f"{label}: {verdict.details['verdict']}")
    return 0 if all(verdict.valid for verdict in verdicts) else EXIT_INVALID


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
