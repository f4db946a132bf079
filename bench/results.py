"""Verdicts against the rules in use on series with known truth, and big stores against pandas.

Peers: the rules that public dashboards use, re-implemented (:mod:`bench.results_simulation`), and Apache Otava with
its defaults in an environment of its own. A page is a false one when nothing changed; a step is found when a page
comes within three nights. Ours pages only what a simulated re-run confirmed; the price of the re-runs is in the rows.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean

from bench import results_simulation as sim
from bench.common import Row, row, write
from include.objects import PROJECT_ROOT

OTAVA = "apache-otava==0.8.0"
VENV = PROJECT_ROOT / ".venv-bench-otava"
STEPS = (0.01, 0.02, 0.03, 0.05, 0.10)
FLEETS, EACH = 6, 40
NIGHTS = range(30, 60)
RECORDS, RESULTS = 1_000_000, 100_000


def main(arguments: Sequence[str]) -> int:
    """Run; ``small`` in the arguments shrinks everything for a quick look."""
    small = "small" in arguments
    fleets, each = (1, 3) if small else (FLEETS, EACH)
    left_out: dict[str, str] = {}
    with ProcessPoolExecutor() as pool:
        healthy = list(pool.map(_healthy, range(fleets)))
        levels = healthy[0][2]
        cells = [(cv, step) for cv in sim.CVS for step in STEPS]
        found = list(pool.map(_steps, cells, [each] * len(cells), [levels] * len(cells)))
    rows = _healthy_rows(healthy)
    for (cv, step), outcome in zip(cells, found, strict=True):
        rows += _step_rows(cv, step, each, outcome)
    try:
        rows += _otava(fleets, each)
    except (subprocess.CalledProcessError, OSError) as error:
        left_out["otava"] = str(error)[:200]
    for case, count in (("records", RECORDS), ("index", RESULTS)):
        rows += _big(case, count // 50 if small else count)
    count = fleets * sim.FLEET + len(cells) * each * len(sim.KINDS)
    write("results", rows, left_out, generated_series=count)
    return len(left_out)


def fleet(number: int) -> list[sim.Series]:
    """Return 200 healthy series of all kinds and noises."""
    rng = sim.seeded("fleet", number)
    last = NIGHTS.stop
    return [sim.series(rng, sim.KINDS[n % 5], sim.CVS[n % 3], 0.0, last, last) for n in range(sim.FLEET)]


def stepped(cv: float, step: float, each: int) -> list[sim.Series]:
    """Return series with a step at a night that differs between them."""
    rng = sim.seeded("step", cv, step)
    kinds = [kind for kind in sim.KINDS for _ in range(each)]
    return [sim.series(rng, kind, cv, step, 45, int(rng.integers(25, 40))) for kind in kinds]


def _healthy(number: int) -> tuple[int, sim.Cost, list[list[float]], dict[str, int]]:
    mine, cost = fleet(number), sim.Cost()
    pages, levels = sim.ours_fleet(sim.seeded("re-runs", number), mine, NIGHTS, cost)
    peers = {
        name: sum(rule(one.values[: night + 1]) for one in mine for night in NIGHTS) for name, rule in sim.RULES.items()
    }
    return pages, cost, levels, peers


def _steps(cell: tuple[float, float], each: int, levels: list[list[float]]) -> dict[str, float]:
    cost, rng = sim.Cost(), sim.seeded("re-runs", *cell)
    found: dict[str, float] = dict.fromkeys((*sim.RULES, "ours", "told", "missed"), 0.0)
    mine = stepped(*cell, each)
    for place, one in enumerate(mine):
        hit, seen = sim.ours_step(rng, one, levels[place % (len(levels) - 3) :][:3], cost)
        found["ours"] += hit
        found["missed"] += not hit
        found["told"] += not hit and not seen <= one.step
        for name, rule in sim.RULES.items():
            found[name] += any(rule(one.values[: night + 1]) for night in range(one.at, one.at + 3))
    return found | {"runs": cost.runs / len(mine)}


def _healthy_rows(healthy: Sequence[tuple[int, sim.Cost, list[list[float]], dict[str, int]]]) -> list[Row]:
    nights = len(healthy) * len(NIGHTS)
    case = f"{sim.FLEET} healthy series"
    rows = [
        row(case, "ours", "false_pages_per_night", sum(item[0] for item in healthy) / nights, "pages", nights),
        row(case, "ours", "suspicions_per_night", sum(i[1].suspicions for i in healthy) / nights, "series", nights),
        row(case, "ours", "re_runs_per_night", sum(item[1].runs for item in healthy) / nights, "runs", nights),
    ]
    for name in sim.RULES:
        pages = sum(item[3][name] for item in healthy) / nights
        rows.append(row(case, name, "false_pages_per_night", pages, "pages", nights))
    return rows


def _case(cv: float, step: float) -> str:
    return f"step {step:.0%} at CV {cv:.0%}"


def _step_rows(cv: float, step: float, each: int, found: dict[str, float]) -> list[Row]:
    count = each * len(sim.KINDS)
    rows = [
        row(_case(cv, step), name, "found_within_3_nights", found[name] / count, "share", count)
        for name in ("ours", *sim.RULES)
    ]
    rows.append(row(_case(cv, step), "ours", "re_runs_per_series", found["runs"], "runs", count))
    if found["missed"]:
        told = found["told"] / found["missed"]
        rows.append(row(_case(cv, step), "ours", "missed_and_said_so", told, "share", int(found["missed"])))
    return rows


def _otava(fleets: int, each: int) -> list[Row]:
    """Feed the same series to Otava, night by night, as its nightly use does."""
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "uv", "venv", "--quiet", str(VENV)], check=True)
        subprocess.run(
            [sys.executable, "-m", "uv", "pip", "install", "--quiet", "--python", str(VENV / "bin" / "python"), OTAVA],
            check=True,
        )
    jobs = []
    for number in range(min(fleets, 2)):
        jobs += [{"case": "healthy", "values": s.values, "nights": list(NIGHTS)} for s in fleet(number)]
    for cv in sim.CVS:
        for step in STEPS:
            jobs += [
                {"case": _case(cv, step), "values": s.values, "nights": [s.at - 1, s.at, s.at + 1, s.at + 2]}
                for s in stepped(cv, step, each)
            ]
    done = subprocess.run(
        [str(VENV / "bin" / "python"), str(Path(__file__).with_name("peers") / "otava_pages.py")],
        input=json.dumps(jobs), capture_output=True, text=True, check=True,
    )  # fmt: skip
    pages: dict[str, list[int]] = {}
    for job, counted in zip(jobs, json.loads(done.stdout), strict=True):
        pages.setdefault(str(job["case"]), []).append(counted)
    healthy = pages.pop("healthy")
    nights = len(healthy) // sim.FLEET * len(NIGHTS)
    rows = [
        row(f"{sim.FLEET} healthy series", "otava", "false_pages_per_night", sum(healthy) / nights, "pages", nights)
    ]
    for case, counts in pages.items():
        share = fmean(count > 0 for count in counts)
        rows.append(row(case, "otava", "found_within_3_nights", share, "share", len(counts)))
    return rows


def _big(case: str, count: int) -> list[Row]:
    """Run each reader in a process of its own on the same files; three runs, the median."""
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(dir=PROJECT_ROOT / "var") as folder:
        _worker("make", case, folder, str(count))
        for tool in ("ours", "pandas"):
            for action in ("summarise",) if case == "records" else ("index", "query"):
                if (tool, action) == ("pandas", "index"):
                    continue
                runs = 1 if action == "index" else 3
                got = [_worker(action, tool, folder, str(count)) for _ in range(runs)]
                name = f"{count:,} {'request records' if case == 'records' else 'results'}: {action}"
                for metric, unit in (("wall_seconds", "s"), ("peak_rss_mib", "MiB")):
                    value = sorted(item[metric] for item in got)[len(got) // 2]
                    rows.append(row(name, tool, metric, value, unit, runs))
    return rows


def _worker(*arguments: str) -> dict[str, float]:
    command = [sys.executable, "-m", "bench.results_big", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr[-800:]}")
    content: dict[str, float] = json.loads(done.stdout or "{}")
    return {key: (math.nan if value is None else value) for key, value in content.items()}


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
