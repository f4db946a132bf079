"""A suspicion is decided by re-runs alone: one repeat, then pairs; within limits; failed re-runs decide nothing."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from include.catalog.plan import RunIdentity
from include.catalog.specs import ConfirmationLimits
from include.results import alerts
from include.results.index import Index
from include.results.reruns import Case, advance, open_cases, read_cases
from include.results.schema import RERUN_DAG
from include.results.series import load_series
from include.results.store import ResultsStore
from include.results.verdicts import NightVerdicts, confirmations, judge_night
from tests.include.results.builders import record, result, run_of, statistics

NIGHTS, WORSE = 20, 1.15
PLENTY = ConfirmationLimits(runs=30, budget_usd=Decimal(100))


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Nineteen nights at 100 ms and one at 115 ms."""
    store, rng = ResultsStore.open(str(tmp_path)), np.random.default_rng(5)
    for night in range(NIGHTS):
        run = run_of(night, cell="llama--chat--local")
        level = (WORSE if night == NIGHTS - 1 else 1.0) * float(np.exp(rng.normal(0, 0.01)))
        store.put_record(record(night, run=run))
        store.put_result(result(night, run=run, statistics=statistics(100 * level, tokens_per_s=500 / level)), None)
    return Index(store)


def _judged(index: Index) -> NightVerdicts:
    index.refresh(write=False)
    return judge_night(index)


def _open(index: Index, limits: ConfirmationLimits = PLENTY) -> list[Case]:
    made = _judged(index)
    return open_cases(index, made, load_series(index), limits)


def _run(index: Index, case: Case, level: float | None) -> None:
    """Do what the Dag does for the newest step: a run with a result, or one without."""
    step, when = case.steps[-1], dt.datetime(2026, 10, 20, 7, len(case.steps), tzinfo=dt.UTC)
    run = RunIdentity(dag_id=RERUN_DAG, run_id=step.run_id, started_at=when)
    assert run.path == step.run_path
    index.store.put_record(record(0, run=run, state="failed" if level is None else "success"))
    if level is not None:
        made = statistics(100 * level, tokens_per_s=500 / level)
        index.store.put_result(result(0, run=run, statistics=made), None)
    index.refresh(write=False)


def _follow(index: Index, case: Case, suspect: float, baseline: float = 1.0) -> Case:
    rng = np.random.default_rng(9)
    while not case.closed:
        level = suspect if case.steps[-1].arm == "b" else baseline
        # What drifts during the re-runs hits both arms.
        _run(index, case, level * (1 + 0.01 * len(case.steps)) * float(np.exp(rng.normal(0, 0.01))))
        case = advance(index, case, PLENTY)
    return case


def test_nobody_is_told_before_the_pairs_confirmed_it(index: Index) -> None:
    before = _judged(index)
    assert before.to_confirm
    assert not before.pages
    assert alerts.regressions(before.verdicts, {})[0] == []
    (case,) = _open(index)
    assert case.request()["plan_of"] == run_of(NIGHTS - 1, cell="llama--chat--local").path
    case = _follow(index, case, WORSE)
    assert "".join(case.order) == "abba" * 3
    assert len(case.steps) == 13
    after = _judged(index)
    told, _ = alerts.regressions(after.verdicts, {"llama": "team-a"})
    assert [one.owner for one in told] == ["team-a"]
    assert "confirmed by a re-run" in told[0].text
    assert after.night == before.night


def test_the_pairs_repeat_the_plan_of_the_references_newest_night(index: Index) -> None:
    (case,) = _open(index)
    _run(index, case, WORSE)
    case = advance(index, case, PLENTY)
    assert case.steps[-1].arm == "a"
    (last,) = {one.reference_last for one in _judged(index).to_confirm}
    assert case.request()["plan_of"] == f"runs/nightly_benchmark/scheduled__{last}/llama--chat--local"


def test_one_repeat_as_before_ends_it_at_the_price_of_one_run(index: Index) -> None:
    (case,) = _open(index)
    case = _follow(index, case, 1.0)
    assert (len(case.steps), case.closed) == (1, "a repeat was as before")
    after = _judged(index)
    assert not after.to_confirm
    assert not after.pages
    assert {one.decision for found in confirmations(index.store.objects).values() for one in found} == {"refuted"}


def test_a_bad_hour_that_hits_the_baseline_too_is_no_regression(index: Index) -> None:
    (case,) = _open(index)
    case = _follow(index, case, WORSE, baseline=WORSE)
    assert len(case.steps) == 13
    assert not _judged(index).pages


def test_re_runs_stand_for_no_night_and_are_no_failed_night(index: Index) -> None:
    (case,) = _open(index)
    before = load_series(index)[0].by_night()
    case = _follow(index, case, WORSE, baseline=0.5)
    one = load_series(index)[0]
    assert one.by_night() == before
    _run(index, case.model_copy(update={"steps": (case.steps[0],)}), None)
    assert load_series(index)[0].gaps == {}


def test_failed_re_runs_decide_nothing_and_end(index: Index) -> None:
    (case,) = _open(index)
    _run(index, case, WORSE)
    case = advance(index, case, PLENTY)
    while not case.closed:
        _run(index, case, None)
        case = advance(index, case, PLENTY)
    assert case.closed == "3 of 4 re-runs failed"
    after = _judged(index)
    assert {one.outcome for one in after.verdicts if one.confirm} == {"inconclusive"}
    assert not after.pages
    assert _open(index) == []


@pytest.mark.parametrize(
    ("limits", "opened"),
    [
        (ConfirmationLimits(runs=0), False),
        (ConfirmationLimits(budget_usd=Decimal(1)), False),
        (ConfirmationLimits(runs=12), True),
        (ConfirmationLimits(budget_usd=Decimal(5)), True),
    ],
)
def test_limits_of_runs_and_dollars_hold(index: Index, limits: ConfirmationLimits, opened: bool) -> None:
    """A run costs 1.02 $: one is affordable under the last two limits, twelve more are not."""
    cases = _open(index, limits)
    assert bool(cases) is opened
    for case in cases:
        _run(index, case, WORSE)
        ended = advance(index, case, limits)
        assert ended.closed == "12 more re-runs are beyond the night's limit"
        assert not _judged(index).pages


def test_asking_again_gives_the_same_run_and_an_old_case_is_closed(index: Index) -> None:
    first, again = _open(index), _open(index)
    assert first == again
    run = run_of(NIGHTS, cell="llama--chat--local")
    index.store.put_result(result(NIGHTS, run=run, statistics=statistics(100.0)), None)
    _open(index)
    assert [case.closed for case in read_cases(index.store.objects)] == ["a re-run never ended"]
