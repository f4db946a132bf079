"""Cases: a suspicion of a night and the re-runs that decide it, one deployment after another, kept in the store."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Literal

from include.catalog.specs import ConfirmationLimits, Spec
from include.objects import Objects
from include.results.index import Index
from include.results.paths import safe_segment
from include.results.schema import Rerun
from include.results.series import METRICS, Series, figure
from include.results.store import parse
from include.results.verdict.confirm import Decision, decide, plan, stands
from include.results.verdict.noise import Noise
from include.results.verdict.paired import LEAST_PAIRS, Comparison, Pair, plan_order
from include.results.verdicts import Confirmation, NightVerdicts, VerdictRecord, keep_confirmation

FOLDER = "verdicts/cases"
MOST_FAILED = 2


class Suspicion(Spec):
    """One figure that looks worse.

    :param effect: relative change against the reference; ``reference``: the reference level, in the figure's unit.
    :param open: not yet decided.
    """

    series: str
    metric: str
    effect: float
    reference: float
    noise_cv: float
    open: bool = True

    @property
    def key(self) -> str:
        """What it is about."""
        return f"{self.series}/{self.metric}"


class Step(Rerun):
    """One re-run: arm ``a`` repeats the baseline's plan, ``b`` the suspect's."""

    arm: Literal["a", "b"]


class Case(Spec):
    """One cell of one night under suspicion.

    :param suspect_run, baseline_run: runs whose plans are repeated; the baseline is the reference's newest night.
    :param order: arms of the pairs; empty until the first repeat kept the suspicion up.
    :param steps: re-runs asked for so far; only the last may be under way.
    :param closed: why no more is run; empty while it is open.
    """

    night: str
    cell: str
    model: str
    workload: str
    cluster: str
    suspect_run: str
    baseline_run: str
    usd_per_run: Decimal
    suspicions: tuple[Suspicion, ...]
    order: tuple[Literal["a", "b"], ...] = ()
    steps: tuple[Step, ...] = ()
    closed: str = ""

    @property
    def id(self) -> str:
        """Name of the case within its night."""
        return safe_segment(self.cell)

    @property
    def path(self) -> str:
        """Path of the case below the results store."""
        return f"{FOLDER}/{self.night}/{self.id}.json"

    def request(self) -> dict[str, str]:
        """Params of the re-run that was asked for last."""
        baseline = self.steps[-1].arm == "a"
        return {
            "model": self.model, "workload": self.workload, "cluster": self.cluster, "case": self.path,
            "plan_of": self.baseline_run if baseline else self.suspect_run,
        }  # fmt: skip


def read_cases(objects: Objects, night: str = "") -> list[Case]:
    """Return the cases of a night, or of all."""
    paths = sorted(info.path for info in objects.list(f"{FOLDER}/{night}" if night else FOLDER))
    return [parse(Case, data, path) for path in paths if (data := objects.get(path)) is not None]


def read_case(objects: Objects, path: str) -> Case | None:
    """Return a case by its path; ``None`` when there is none there."""
    data = objects.get(path) if path.startswith(f"{FOLDER}/") and ".." not in path else None
    return None if data is None else parse(Case, data, path)


def open_cases(index: Index, made: NightVerdicts, series: Sequence[Series], limits: ConfirmationLimits) -> list[Case]:
    """Return the night's open cases, with a new one for every cell that became suspect and can still be afforded.

    Older cases that are still open lost their re-run on the way: they are closed undecided.
    """
    objects = index.store.objects
    for old in read_cases(objects):
        if not old.closed and old.night < made.night:
            _close(objects, old, "a re-run never ended", {})
    known = {case.cell: case for case in read_cases(objects, made.night)}
    by_id = {one.id: one for one in series}
    for run_path, mine in _by_run(made.to_confirm, by_id).items():
        row = by_id[mine[0].series].by_night()[made.night]
        cell = str(row["cell"]) or run_path
        if cell in known:
            continue
        case = _new(index, made.night, cell, row, mine, by_id)
        if case is not None and _affordable(index, [*known.values(), case], 1, case, limits):
            known[cell] = _next(objects, case)
    return [case for case in known.values() if not case.closed]


def advance(index: Index, case: Case, limits: ConfirmationLimits) -> Case:
    """Take in the re-run that ended, and return the case with the next one asked for, or closed.

    First one repeat of the suspect; where it stands, pairs with the baseline (:mod:`include.results.verdict.confirm`).
    """
    objects = index.store.objects
    if case.closed or not case.steps:
        return case
    runs = {step.run_id: _figures(index, step) for step in case.steps}
    failed = [step for step in case.steps if not runs[step.run_id]]
    if len(failed) > MOST_FAILED or (failed and not case.order):
        return _close(objects, case, f"{len(failed)} of {len(case.steps)} re-runs failed", {})
    if not case.order:
        case = _after_repeat(objects, case, runs[case.steps[0].run_id])
        if case.closed:
            return case
        others = [one for one in read_cases(objects, case.night) if one.cell != case.cell]
        if not _affordable(index, [*others, case], len(case.order), case, limits):
            return _close(objects, case, f"{len(case.order)} more re-runs are beyond the night's limit", {})
    if len(case.steps) - 1 < len(case.order):
        return _next(objects, case)
    found = {
        one.key: decide(pairs, one.effect)
        for one in case.suspicions
        if one.open and len(pairs := _pairs(case, runs, one)) >= LEAST_PAIRS
    }
    return _close(objects, case, "decided" if found else "too few whole pairs", found)


def _by_run(suspected: Sequence[VerdictRecord], series: Mapping[str, Series]) -> dict[str, list[VerdictRecord]]:
    found: dict[str, list[VerdictRecord]] = {}
    for one in suspected:
        row = series[one.series].by_night().get(one.night) if one.series in series else None
        if row is not None:
            found.setdefault(str(row["run_path"]), []).append(one)
    return found


def _new(
    index: Index, night: str, cell: str, row: Mapping[str, Any], mine: Sequence[VerdictRecord],
    series: Mapping[str, Series],
) -> Case | None:  # fmt: skip
    baseline = series[mine[0].series].by_night().get(mine[0].reference_last)
    if baseline is None:
        return None
    cost = index.query("SELECT cost_usd FROM runs WHERE run_path = ?", [row["run_path"]])
    suspicions = tuple(
        Suspicion(
            series=one.series, metric=one.metric, effect=one.effect, noise_cv=one.noise_cv or 0.0,
            reference=(figure(series[one.series].by_night()[night], one.metric) or 0.0) / (1 + one.effect),
        )
        for one in mine
        if one.effect is not None
    )  # fmt: skip
    return Case(
        night=night, cell=cell, model=str(row["model"]), workload=str(row["workload"]), cluster=str(row["cluster"]),
        suspect_run=str(row["run_path"]), baseline_run=str(baseline["run_path"]),
        usd_per_run=Decimal(str(cost[0]["cost_usd"] or 0)) if cost else Decimal(0), suspicions=suspicions,
    )  # fmt: skip


def _affordable(index: Index, cases: Sequence[Case], more: int, case: Case, limits: ConfirmationLimits) -> bool:
    steps = [step for one in cases for step in one.steps]
    rows = index.query(
        "SELECT coalesce(sum(cost_usd), 0) AS usd FROM runs WHERE run_path IN (SELECT unnest($paths))",
        {"paths": [step.run_path for step in steps]},
    )
    forecast = Decimal(str(rows[0]["usd"])) + more * case.usd_per_run
    return len(steps) + more <= limits.runs and forecast <= limits.budget_usd


def _next(objects: Objects, case: Case) -> Case:
    place = len(case.steps)
    arm = case.order[place - 1] if place else "b"
    step = Step(arm=arm, run_id=f"confirm__{case.night}__{case.id}__{place:02d}{arm}")
    return _keep(objects, case.model_copy(update={"steps": (*case.steps, step)}))


def _after_repeat(objects: Objects, case: Case, figures: Mapping[tuple[str, str], float]) -> Case:
    """Refute what the repeat did not show, and plan the pairs for the rest."""
    kept: list[Suspicion] = []
    pairs = 0
    for one in case.suspicions:
        value = figures.get((one.series, one.metric))
        if value and not stands(one.effect, value / one.reference - 1):
            _keep_decision(objects, case, one, "refuted", effect=value / one.reference - 1)
            kept.append(one.model_copy(update={"open": False}))
            continue
        pairs = max(pairs, plan(one.effect, Noise(math.sqrt(math.log1p(one.noise_cv**2)), 0, 0)).pairs)
        kept.append(one)
    changed = {"suspicions": tuple(kept), "order": plan_order(pairs)}
    return _keep(objects, case.model_copy(update=changed | ({} if pairs else {"closed": "a repeat was as before"})))


def _figures(index: Index, step: Step) -> dict[tuple[str, str], float]:
    rows = index.query("SELECT * FROM results WHERE run_path = ? AND valid", [step.run_path])
    return {
        (str(row["series"]), metric): value
        for row in rows
        for metric in METRICS
        if (value := figure(row, metric)) is not None
    }  # fmt: skip


def _pairs(case: Case, runs: Mapping[str, Mapping[tuple[str, str], float]], one: Suspicion) -> list[Pair]:
    found = []
    for place in range(1, len(case.steps) - 1, 2):
        first, second = case.steps[place], case.steps[place + 1]
        values = {step.arm: runs[step.run_id].get((one.series, one.metric)) for step in (first, second)}
        if values["a"] and values["b"]:
            found.append(Pair(values["a"], values["b"], first.arm))
    return found


def _close(objects: Objects, case: Case, why: str, found: Mapping[str, tuple[Decision, Comparison]]) -> Case:
    """Close a case; what was not decided is kept as inconclusive."""
    for one in case.suspicions:
        if not one.open:
            continue
        if (made := found.get(one.key)) is None:
            _keep_decision(objects, case, one, "inconclusive")
            continue
        decision, seen = made
        _keep_decision(objects, case, one, decision, seen.effect, seen.low, seen.high, seen.pairs)
    return _keep(objects, case.model_copy(update={"closed": why}))


def _keep_decision(
    objects: Objects, case: Case, one: Suspicion, decision: Decision, effect: float | None = None,
    low: float | None = None, high: float | None = None, pairs: int = 0,
) -> None:  # fmt: skip
    keep_confirmation(
        objects,
        Confirmation(series=one.series, metric=one.metric, night=case.night, decision=decision, effect=effect, low=low,
                     high=high, pairs=pairs, at=dt.datetime.now(dt.UTC)),
    )  # fmt: skip


def _keep(objects: Objects, case: Case) -> Case:
    objects.put(case.path, case.model_dump_json(indent=1).encode())
    return case
