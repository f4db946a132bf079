"""``make chaos``: attack running releases, then count what leaked, what was harmed and what was lost.

    make chaos SEED=7 N=60

Writes ``var/chaos.json``; exits 0 only when nothing leaked, nothing foreign was harmed and no result was lost.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from include.local.demo import VAR, Stack
from include.local.processes import end_recorded
from include.local.progress import Story
from include.local.supervisor import end_stack
from tests.chaos import control
from tests.chaos.campaign import Campaign, Tally, lost_results, one_tick_of_the_reaper, settle, what_is_left
from tests.chaos.census import Bait, census
from tests.chaos.inject import disarm
from tests.chaos.matrix import Injection, matrix, points

RELEASE = {"model": "smollm2-135m", "workloads": ["probe"]}
SETTLE_S = 15


def main(argv: Sequence[str] | None = None) -> int:
    """Run both arms; return the exit code."""
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seed", type=int, default=7, help="decides points, order and delays")
    parser.add_argument("--n", type=int, default=2 * len(points()), help="injections; default: every point twice")
    parser.add_argument("--minutes", type=float, default=30, help="no new run is started after so many minutes")
    parser.add_argument("--control", type=int, default=24, help="injections of the control arm; 0: leave it out")
    given = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        planned = matrix(given.seed, given.n)
    except ValueError as error:
        parser.error(str(error))
    started = time.monotonic()
    home = VAR / "chaos"
    end_recorded(home / "airflow" / "processes.json")
    end_stack(home / "local")
    shutil.rmtree(home, ignore_errors=True)
    settings = {
        "AIRFLOW__CORE__DAGS_FOLDER": str(control.dags_folder(home / "dags")),
        "CHAOS_CONTROL_MANIFEST": str(home / "control.json"),
    }
    # A cluster of its own: what the control arm leaks must not meet the next demo.
    with Stack(home / "airflow", Story(started), settings, home / "local") as stack:
        bait = _prepare(stack)
        until = started + 60 * given.minutes
        report = {"seed": given.seed, **_ours(stack, bait, planned, until)}
        if given.control:
            report["control"] = _control(stack, bait, planned, given.control, home, until)
        bait.remove(stack)
    report["seconds"] = round(time.monotonic() - started)
    (VAR / "chaos.json").write_text(json.dumps(report, indent=1))
    print(_text(report))
    return 1 if report["leaked"] or report["harmed"] or report["lost"] else 0


def _prepare(stack: Stack) -> Bait:
    for dag_id in ("release_model", "reap_endpoints", control.DAG_ID):
        stack.api.wait_for_dag(dag_id)
    # Staged before the first attack: staging has a matrix of its own.
    stack.follow("release_model", stack.api.trigger("release_model", RELEASE), timeout=300)
    bait = Bait.lay(stack)
    settle(stack, SETTLE_S)
    bait.settle(stack)
    stack.story.say(f"{len(bait.uids)} objects of others exist; the attack begins")
    return bait


def _ours(stack: Stack, bait: Bait, planned: list[Injection], until: float) -> dict[str, Any]:
    tally = Campaign(stack, "release_model", lambda: RELEASE, until).run(planned)
    before = what_is_left(stack, bait)
    stack.story.say(f"{len(before)} objects left before the reaper; it gets one tick")
    state = one_tick_of_the_reaper(stack)
    leaked = what_is_left(stack, bait)
    harmed, lost = bait.harmed(census(stack)), lost_results(stack, tally.runs)
    return {
        "injections": tally.injections,
        "leaked": len(leaked),
        "harmed": len(harmed),
        "lost": len(lost),
        "by_point": dict(sorted(tally.by_point.items())),
        "not_reached": dict(tally.missed),
        "before_reaper": before,
        "reaper": state,
        "details": {"leaked": leaked, "harmed": harmed, "lost": lost},
        "runs": _runs(tally),
    }


def _runs(tally: Tally) -> dict[str, int]:
    states = [run.state for run in tally.runs]
    return {state: states.count(state) for state in sorted(set(states))}


def _control(
    stack: Stack, bait: Bait, planned: list[Injection], count: int, home: Path, until: float
) -> dict[str, Any]:
    disarm(stack)
    stack.story.say("control arm: plain teardown, deletion without verification, no reaper")
    newest = max((VAR / "results" / "runs" / "release_model").glob("*/plan.json"), key=os.path.getmtime)
    manifest = json.loads(newest.read_text())["custom_resource"]
    (home / "control.json").write_text(json.dumps(manifest))
    chosen = control.comparable(planned)[:count]
    before = Bait(census(stack))
    tally = control.ControlCampaign(stack, control.DAG_ID, dict, max(until, time.monotonic() + 600)).run(chosen)
    leaked = what_is_left(stack, before)
    return {"injections": tally.injections, "leaked": len(leaked), "runs": _runs(tally), "objects": leaked}


def _text(report: dict[str, Any]) -> str:
    lines = ["", "chaos: injections by point"]
    lines += [f"  {point:<40} {count}" for point, count in report["by_point"].items()]
    lines += [f"  not reached: {point} ({count})" for point, count in report["not_reached"].items()]
    lines += [f"  {kind}: {one}" for kind, found in report["details"].items() for one in found]
    lines.append(f"runs {report['runs']}; left before the reaper's tick: {len(report['before_reaper'])}")
    if "control" in report:
        arm = report["control"]
        lines.append(f"control arm: {arm['injections']} injections, {arm['leaked']} leaked objects, runs {arm['runs']}")
    lines.append(
        f"seed {report['seed']}: {report['injections']} injections, {report['leaked']} leaked, "
        f"{report['harmed']} foreign objects harmed, {report['lost']} results lost, {report['seconds']} s"
    )
    return "\n".join(lines)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
