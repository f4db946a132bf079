"""Commands for people: look at results, compare them, judge a night, bring results in and out, size a fleet."""

from __future__ import annotations

import argparse
import datetime as dt
import getpass
import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from include.errors import ConfigurationError, PipelineError
from include.results.decisions import Decision, decide
from include.results.exchange import formats
from include.results.index import Index
from include.results.key import FIELDS, differences
from include.results.series import METRICS, figure, load_series, streak
from include.results.store import ResultsStore
from include.results.verdict.paired import Comparison, Pair, compare

EXIT_BAD, EXIT_FAILED = 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run a command. Exit code: 0 done, 1 done and there is a failed verdict, 2 it could not be done."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.function(options))
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except (PipelineError, OSError) as error:
        print(error, file=sys.stderr)
        return EXIT_FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m include.results", description=__doc__)
    default = os.environ.get("HYPERPOD_RESULTS_URI", "var/results")
    parser.add_argument("--store", default=default, help=f"folder or s3:// URI (default {default})")
    commands = parser.add_subparsers(required=True)
    show = commands.add_parser("show", help="series, their newest figures, failed nights; or one series' nights")
    show.add_argument("series", nargs="?", default="", help="id of a series")
    show.add_argument("--model", default="")
    show.add_argument("--metric", default="ttft_ms_p50", choices=sorted(METRICS))
    show.add_argument("--json", action="store_true")
    show.set_defaults(function=_show)
    both = commands.add_parser("compare", help="B against A; with several each, as pairs")
    both.add_argument("a", help="result ids, comma between")
    both.add_argument("b", help="result ids, comma between, as many as A")
    both.add_argument("--force", action="store_true", help="also when they are not comparable")
    both.set_defaults(function=_compare)
    verdict = commands.add_parser("verdict", help="judge a night; or accept a change, pin a baseline")
    verdict.add_argument("--night", default="", help="YYYY-MM-DD, default the newest")
    verdict.add_argument("--json", action="store_true")
    verdict.add_argument("--keep", action="store_true", help="write the verdicts into the store")
    choice = verdict.add_mutually_exclusive_group()
    choice.add_argument("--accept", metavar="SERIES", help="from --night on the new level is right")
    choice.add_argument("--pin", metavar="SERIES", help="--nights are the baseline")
    choice.add_argument("--unpin", metavar="SERIES", help="the recent past is the baseline again")
    verdict.add_argument("--metric", default="*", choices=["*", *METRICS])
    verdict.add_argument("--nights", default="", help="comma between")
    verdict.add_argument("--reason", default="")
    verdict.set_defaults(function=_verdict)
    again = commands.add_parser("confirm", help="decide a suspicion by pairs of re-runs: A the baseline, B the suspect")
    again.add_argument("series")
    again.add_argument("a", help="result ids, comma between")
    again.add_argument("b", help="result ids, comma between, as many as A")
    again.add_argument("--metric", required=True, choices=sorted(METRICS))
    again.add_argument("--night", default="", help="of the suspicion, YYYY-MM-DD, default the newest")
    again.set_defaults(function=_confirm)
    anew = commands.add_parser("reindex", help="make the query index again from every file of the store")
    anew.set_defaults(function=_reindex)
    guilt = commands.add_parser("bisect", help="questions of the Dag bisect_regression and their answers")
    guilt.set_defaults(function=_bisections)
    contests = commands.add_parser("trials", help="A against B of the Dag compare_variants, and their differences")
    contests.set_defaults(function=_trials)

    bring = commands.add_parser("import", help="take other tools' files into the store")
    bring.add_argument("files", type=Path, nargs="+")
    bring.add_argument("--format", default="auto", choices=formats.IMPORTS)
    bring.add_argument("--model", default="", help="for AIPerf and GuideLLM, whose files do not name it")
    bring.add_argument("--workload", default="")
    bring.set_defaults(function=_import)
    give = commands.add_parser("export", help="write results in another tool's format")
    give.add_argument("results", nargs="*", help="result ids; none: all")
    give.add_argument("--format", default="llm-d", choices=formats.EXPORTS)
    give.add_argument("--out", type=Path, help="file, default the terminal")
    give.set_defaults(function=_export)
    site = commands.add_parser("report", help="write the pages as HTML files that need no server")
    site.add_argument("--out", type=Path, required=True, help="an empty or new folder, or an earlier report's")
    site.add_argument("--most-pages", type=int, default=2000, help="what is linked beyond them is text")
    site.add_argument("--rate", type=float, default=10.0, help="requests/s of the cost page")
    site.add_argument("--airflow-url", default="", help="for links to runs in Airflow's UI; empty: none")
    site.set_defaults(function=_report)
    cost = commands.add_parser("cost", help="instances of each type for a rate under its SLO, and their price")
    cost.add_argument("--rate", type=float, required=True, help="requests/s")
    cost.add_argument("--model", default="")
    cost.add_argument("--workload", default="")
    cost.add_argument("--share", type=float, default=0.95, help="of all requests that must meet the SLO")
    cost.set_defaults(function=_cost)
    return parser


def _index(options: argparse.Namespace) -> Index:
    index = Index(ResultsStore.open(options.store))
    index.refresh(write=False)
    for problem in index.problems:
        print(f"unreadable: {problem}", file=sys.stderr)
    return index


def _reindex(options: argparse.Namespace) -> int:
    index = Index(ResultsStore.open(options.store))
    index.rebuild()
    for problem in index.problems:
        print(f"unreadable: {problem}", file=sys.stderr)
    (found,) = index.query("SELECT (SELECT count(*) FROM results) AS results, (SELECT count(*) FROM runs) AS runs")
    print(f"{found['results']} results and {found['runs']} runs indexed")
    return EXIT_FAILED if index.problems else 0


def _show(options: argparse.Namespace) -> int:
    found = load_series(_index(options), series=options.series, model=options.model)
    if not found and not options.series:
        of = f" of {options.model!r}" if options.model else ""
        print(f"no results{of} in {options.store}; --store or HYPERPOD_RESULTS_URI names another", file=sys.stderr)
    if options.series and not found:
        raise ConfigurationError("SeriesUnknown", f"no series {options.series!r}", fix="`show` lists them")
    if options.json:
        content = [{"series": s.id, **s.identity, "nights": s.nights, "failed": list(s.gaps)} for s in found]
        print(json.dumps(content, indent=1))
        return 0
    if options.series:
        _nights(found[0], options.metric)
        return 0
    _table(
        ("series", "what", "nights", "failed", "in a row", "newest", *METRICS),
        (
            (
                one.id,
                one.name,
                len(one.nights),
                len(one.gaps),
                streak(one) or "",
                one.nights[-1],
                *(_figure(one.rows[-1][metric]) for metric in METRICS),
            )
            for one in found
        ),
    )
    return 0


def _nights(one: Any, metric: str) -> None:
    chosen = one.by_night()
    rows = []
    for night in one.nights:
        row, gap = chosen.get(night), one.gaps.get(night)
        if row is None:
            rows.append((night, "–", f"{gap['state']}: {gap['failed_stage']}: {gap['reason']}" if gap else ""))
            continue
        overlap = one.overlaps.get(row["result_id"])
        said = f"shared its endpoint for {overlap.share:.0%} of its time" if overlap else row["reasons"]
        rows.append((night, _figure(row[metric]), said))
    print(f"{one.name}  {metric}")
    _table(("night", "value", "note"), rows)


def _compare(options: argparse.Namespace) -> int:
    index = _index(options)
    a, b = (_rows(index, ids.split(",")) for ids in (options.a, options.b))
    if len(a) != len(b):
        raise ConfigurationError("NotPairs", f"{len(a)} results in A, {len(b)} in B", fix="give as many of each")
    differ = differences({k: str(a[0][k]) for k in FIELDS}, {k: str(b[0][k]) for k in FIELDS})
    if differ and not options.force:
        fix = "compare results of one series, or say --force and read the difference with that in mind"
        raise ConfigurationError("NotComparable", "; ".join(differ), fix=fix)
    rows = []
    for metric in METRICS:
        pairs = _pairs(a, b, metric)
        if pairs:
            rows.append((metric, *_difference(pairs)))
    _table(("metric", "A", "B", "B over A", "95 % interval", "verdict", "smallest seen"), rows)
    if len(a) < 3:
        print("One pair tells a difference, not whether it is real: give three pairs or more, better six.")
    return 0


def _pairs(a: Sequence[dict[str, Any]], b: Sequence[dict[str, Any]], metric: str) -> list[Pair]:
    return [
        Pair(one, two, "a" if x["started_at"] <= y["started_at"] else "b")
        for x, y in zip(a, b, strict=False)
        if (one := figure(x, metric)) is not None and (two := figure(y, metric)) is not None
    ]


def _difference(pairs: Sequence[Pair]) -> tuple[str, ...]:
    one, two = (sum(values) / len(pairs) for values in ([p.a for p in pairs], [p.b for p in pairs]))
    if len(pairs) < 3:
        return (_figure(one), _figure(two), f"{two / one - 1:+.1%}", "–", "inconclusive", "–")
    found: Comparison = compare(pairs)
    interval = f"[{found.low:+.1%}, {found.high:+.1%}]"
    return (_figure(one), _figure(two), f"{found.effect:+.1%}", interval, found.verdict, f"{found.detectable:.1%}")


def _verdict(options: argparse.Namespace) -> int:
    from include.results.verdicts import judge_night, keep

    index = _index(options)
    for kind in ("accept", "pin", "unpin"):
        if series := getattr(options, kind):
            return _decide(index, kind, series, options)
    made = judge_night(index, options.night)
    if options.night and not made.verdicts:
        raise ConfigurationError(
            "NightUnknown",
            f"--night {options.night}: nothing ran then",
            fix="give YYYY-MM-DD; `show SERIES` has nights",
        )
    if options.keep:
        print(keep(index.store.objects, made), file=sys.stderr)
    if options.json:
        print(made.model_dump_json(indent=1))
    else:
        print(f"night {made.night or '(empty store)'}: {len(made.verdicts)} verdicts")
        order = {"fail": 0, "inconclusive": 1, "pass": 2}
        ranked = sorted(made.verdicts, key=lambda one: (order[one.outcome], not one.confirm, one.name, one.metric))
        _table(
            ("verdict", "what", "metric", "why"),
            ((one.outcome, f"{one.name} ({one.series})", one.metric, one.reason) for one in ranked),
        )
        for one in ranked:
            for suspect in one.suspects:
                print(f"  {one.name} {one.metric}: {suspect}")
    return EXIT_BAD if made.pages else 0


def _bisections(options: argparse.Namespace) -> int:
    from include.results.bisection import read_bisections

    found = read_bisections(ResultsStore.open(options.store).objects)
    for one in found:
        asked = one.question
        print(f"{one.id}  {asked.metric} of {asked.workload} {asked.load}: {asked.good_run} -> {asked.bad_run}")
        print(f"  {one.closed or f'open, {len(one.steps)} re-runs so far'}")
    if not found:
        print("none; trigger the Dag bisect_regression with a good and a bad run")
    return 0


def _trials(options: argparse.Namespace) -> int:
    from include.results.trials import read_trials

    found = read_trials(ResultsStore.open(options.store).objects)
    for one in found:
        asked = one.contest
        print(f"{one.id}  {asked.workload} {asked.load}: A {asked.a_run}, B {asked.b_run}: {one.story}")
    if not found:
        print("none; trigger the Dag compare_variants with a run of each variant")
    return 0


def _confirm(options: argparse.Namespace) -> int:
    from include.results.verdict.confirm import decide as decided
    from include.results.verdicts import Confirmation, judge_night, keep_confirmation

    index = _index(options)
    made = judge_night(index, options.night)
    mine = [one for one in made.verdicts if (one.series, one.metric) == (options.series, options.metric)]
    if not mine or not mine[0].confirm or mine[0].effect is None:
        fix = f"`verdict --night {made.night}` lists what is to be confirmed"
        raise ConfigurationError("NotSuspected", f"{options.series} {options.metric} is not suspected", fix=fix)
    a, b = (_rows(index, ids.split(",")) for ids in (options.a, options.b))
    pairs = _pairs(a, b, options.metric)
    if len(pairs) != len(a) or len(a) != len(b):
        raise ConfigurationError("NotPairs", f"{len(pairs)} whole pairs", fix="give as many of each, all with a value")
    decision, found = decided(pairs, mine[0].effect)
    keep_confirmation(
        index.store.objects,
        Confirmation(series=options.series, metric=options.metric, night=made.night, decision=decision,
                     effect=found.effect, low=found.low, high=found.high, pairs=found.pairs,
                     at=dt.datetime.now(dt.UTC)),
    )  # fmt: skip
    print(f"{decision}: B over A {found.effect:+.1%} [{found.low:+.1%}, {found.high:+.1%}] in {found.pairs} pairs")
    return EXIT_BAD if decision == "confirmed" else 0


def _decide(index: Index, kind: Any, series: str, options: argparse.Namespace) -> int:
    nights = tuple(part for part in (options.nights or options.night).split(",") if part)
    if kind != "unpin" and not nights:
        raise ConfigurationError("NightMissing", f"--{kind} without a night", fix="give --night, or --nights for --pin")
    if len(options.reason) < 3:
        raise ConfigurationError("ReasonMissing", f"--{kind} without a reason", fix='give --reason "why it is right"')
    found = load_series(index, series=series)
    if not found:
        raise ConfigurationError("SeriesUnknown", f"no series {series!r}", fix="`show` lists them")
    if kind != "unpin" and (unknown := sorted(set(nights) - set(found[0].nights))):
        # A later night than any would hide every regression of the series; one of none would do nothing.
        said = f"{series} has no night {', '.join(unknown)}"
        raise ConfigurationError("NightUnknown", said, fix=f"`show {series}` lists its nights")
    made = Decision(
        kind=kind, series=series, metric=options.metric, nights=nights, reason=options.reason, by=getpass.getuser(),
        at=dt.datetime.now(dt.UTC),
    )  # fmt: skip
    decide(index.store.objects, made)
    print(f"{kind}: {series} {options.metric} {','.join(nights)}: {options.reason}")
    return 0


def _import(options: argparse.Namespace) -> int:
    from tempfile import TemporaryDirectory

    from include.loadtest.records import write_parquet

    found = [
        item
        for path in options.files
        for item in formats.read(path, options.format, model=options.model, workload=options.workload)
    ]
    store = ResultsStore.open(options.store)
    with TemporaryDirectory() as folder:
        for result, table in found:
            requests = None if table is None else write_parquet(table, Path(folder) / "requests.parquet")
            kept = store.put_result(result, requests)
            print(kept.result_id)
    return 0


def _export(options: argparse.Namespace) -> int:
    index = _index(options)
    rows = _rows(index, options.results) if options.results else index.query("SELECT path FROM results ORDER BY path")
    text = formats.write([index.store.result(row["path"]) for row in rows], options.format)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
    else:
        sys.stdout.write(text)
    return 0


def _report(options: argparse.Namespace) -> int:
    from include.results.pages.board import Board
    from include.results.pages.static import write

    if options.most_pages < 1 or not 0 < options.rate < math.inf:
        said = f"--most-pages is {options.most_pages}, --rate is {options.rate}"
        raise ConfigurationError("OptionInvalid", said, fix="give numbers above 0")
    made = write(
        Board(options.store), options.out, most=options.most_pages, rate=options.rate, airflow=options.airflow_url
    )
    print(f"{made.pages} pages; open {made.folder / 'index.html'}")
    if made.left_out:
        print(f"{made.left_out} more pages are linked and not written; raise --most-pages", file=sys.stderr)
    return 0


def _cost(options: argparse.Namespace) -> int:
    from include.results.sizing import sizes

    if not 0 < options.rate < math.inf:
        raise ConfigurationError("RateInvalid", f"--rate is {options.rate}", fix="give requests/s above 0")
    if not 0 < options.share <= 1:
        raise ConfigurationError("ShareInvalid", f"--share is {options.share}", fix="give a share above 0, at most 1")
    found = sizes(_index(options), options.rate, model=options.model, workload=options.workload, share=options.share)
    if not found:
        print(f"No valid result has {options.share:.0%} of its requests within an SLO.")
        return 0
    print(f"For {options.rate:g} requests/s, {options.share:.0%} of them within the SLO:")
    _table(
        ("model", "workload", "type", "instances", "$/hour", "req/s each", "at load", "$/M tokens", "$/M good", "SLO"),
        (
            (
                one.row["model"], one.row["workload"], one.row["instance_type"], one.instances,
                _figure(one.usd_per_hour), _figure(one.per_instance), one.row["load"],
                _figure(one.row["usd_per_million"]), _figure(one.row["usd_per_million_good"]), one.row["slo"],
            )
            for one in found
        ),
    )  # fmt: skip
    return 0


def _rows(index: Index, ids: Sequence[str]) -> list[dict[str, Any]]:
    found = []
    for id_ in ids:
        rows = index.query("SELECT * FROM results WHERE result_id = ?", [id_])
        if not rows:
            raise ConfigurationError("ResultUnknown", f"no result {id_!r}", fix="`show --json` and the store list them")
        found += rows
    return found


def _figure(value: Any) -> str:
    return "–" if value is None else f"{value:.4g}"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    lines = [[str(cell) for cell in row] for row in (header, *rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(header))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
