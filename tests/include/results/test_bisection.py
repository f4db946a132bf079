"""Which difference between two plans is guilty is found by re-runs; what is not in the plan is said to be so."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.catalog.mixing import factors, mixed
from include.catalog.plan import ReleasePlan, RunIdentity
from include.errors import ConfigurationError
from include.results.bisection import Bisection, Question, advance, begin, read_bisection
from include.results.index import Index
from include.results.journal import RunJournal
from include.results.schema import RERUN_DAG
from include.results.store import ResultsStore
from tests.include.endpoint.builders import model, plan
from tests.include.results.builders import record, result, statistics

GOOD, BAD = "runs/nightly_benchmark/good", "runs/nightly_benchmark/bad"
OLD: dict[str, Any] = {"args": ("--a",), "image": "repo/vllm:1", "env": {"X": "1"}, "instance_type": "ml.g5.2xlarge"}
NEW: dict[str, Any] = {"args": ("--b",), "image": "repo/vllm:2", "env": {"X": "2"}, "instance_type": "ml.g6e.2xlarge"}
Slow = Callable[[tuple[str, ...]], float | None]


def _planned(index: Index, run_id: str, deployment: dict[str, Any], **more: Any) -> ReleasePlan:
    run = RunIdentity(dag_id="nightly_benchmark", run_id=run_id, started_at=dt.datetime(2026, 10, 1, tzinfo=dt.UTC))
    made = plan(model("llama", **deployment), identity=run, **more)
    RunJournal(index.store.objects, run).write_plan(made)
    return made


@pytest.fixture
def index(tmp_path: Path) -> Index:
    found = Index(ResultsStore.open(str(tmp_path)))
    _planned(found, "good", OLD)
    _planned(found, "bad", NEW)
    return found


def question(index: Index, **changes: Any) -> Question:
    name = _workload(index)
    fields = {"good_run": GOOD, "bad_run": BAD, "workload": name, "load": "c=4", "metric": "ttft_ms_p50"}
    return Question(**(fields | changes))


def _workload(index: Index) -> str:
    from include.results.journal import read_plan

    planned = read_plan(index.store.objects, GOOD)
    assert planned is not None
    return planned.workloads[0].name


def follow(index: Index, one: Bisection, slow: Slow) -> Bisection:
    """Do what the Dag does until there is an answer: ``slow`` says the level of a mixture, ``None``: the run fails."""
    while not one.closed:
        step = one.steps[-1]
        level = slow(step.mix)
        run = RunIdentity(
            dag_id=RERUN_DAG,
            run_id=step.run_id,
            started_at=dt.datetime(2026, 10, 20, len(one.steps) % 24, tzinfo=dt.UTC),
        )
        assert run.path == step.run_path
        index.store.put_record(record(0, run=run, state="failed" if level is None else "success"))
        if level is not None:
            figures = statistics(level * (1 + 0.01 * (len(one.steps) % 3)))
            index.store.put_result(result(0, run=run, workload=one.question.workload, statistics=figures), None)
        index.refresh(write=False)
        one = advance(index, one)
    return one


def test_the_guilty_factor_is_named_with_both_values(index: Index) -> None:
    one = begin(index.store.objects, question(index))
    assert set(one.changes) == {"arguments", "image", "env", "placement"}
    one = follow(index, one, lambda mix: 110.0 if "image" in mix else 100.0)
    assert one.guilty == ("image",)
    assert "repo/vllm:1" in one.closed
    assert "repo/vllm:2" in one.closed
    assert read_bisection(index.store.objects, one.path) == one
    assert begin(index.store.objects, question(index)) == one, "the same question has its answer already"


def test_two_factors_that_are_bad_only_together_are_both_named(index: Index) -> None:
    one = begin(index.store.objects, question(index))
    one = follow(index, one, lambda mix: 120.0 if {"image", "env"} <= set(mix) else 100.0)
    assert set(one.guilty) == {"image", "env"}


def test_what_does_not_come_again_is_not_in_the_plan(index: Index) -> None:
    one = follow(index, begin(index.store.objects, question(index)), lambda _mix: 100.0)
    assert one.guilty == ()
    assert "did not come again" in one.closed
    assert len(one.steps) == 4


def test_a_mixture_that_never_runs_is_not_called_guilty(index: Index) -> None:
    def level(mix: tuple[str, ...]) -> float | None:
        if "image" in mix and "arguments" not in mix:
            return None
        return 130.0 if "env" in mix else 100.0

    one = follow(index, begin(index.store.objects, question(index)), level)
    assert one.guilty == ("env",)


def test_it_ends_at_its_limit_of_runs(index: Index) -> None:
    one = follow(index, begin(index.store.objects, question(index, most_runs=5)), lambda mix: 100.0 + len(mix))
    assert len(one.steps) == 5
    assert "not decided" in one.closed


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"good_run": "runs/nowhere/x"}, "good_run = 'runs/nowhere/x'"),
        ({"metric": "speed"}, "metric = 'speed'"),
        ({"workload": "poetry"}, "workload = 'poetry'"),
        ({"bad_run": GOOD}, "do not differ"),
    ],
)
def test_a_question_that_has_no_answer_is_refused_before_anything_runs(
    index: Index, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        begin(index.store.objects, question(index, **changes))


def test_a_mixed_plan_takes_exactly_what_it_is_told(index: Index) -> None:
    good = _planned(index, "g", OLD)
    bad = _planned(index, "b", NEW).model_copy(update={"revision": "b" * 40})
    assert "weights" in factors(good, bad)
    spec, revision = mixed(good, bad, ["weights", "placement"])
    assert revision == bad.revision
    assert spec.deployment.instance_type == NEW["instance_type"]
    assert spec.deployment.image == OLD["image"]
    assert mixed(good, bad, factors(good, bad))[0].deployment == bad.model.deployment
    assert mixed(good, bad, [])[0] == good.model
    with pytest.raises(ConfigurationError, match="mix = colour"):
        mixed(good, bad, ["colour"])
