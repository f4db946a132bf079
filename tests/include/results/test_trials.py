"""A against B in pairs: a planted difference is found under drift, a failed deployment costs its pair only."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from include.catalog.plan import ReleasePlan, RunIdentity
from include.errors import ConfigurationError
from include.results.cli import main
from include.results.index import Index
from include.results.journal import RunJournal
from include.results.schema import RERUN_DAG
from include.results.store import ResultsStore
from include.results.trials import Contest, Trial, advance, begin, read_trial
from tests.include.endpoint.builders import cluster, model, plan
from tests.include.results.builders import record, result, statistics

A, B = "runs/release_model/a", "runs/release_model/b"
START = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)
Level = Callable[[str, int], float | None]


def _planned(index: Index, run_id: str, name: str, **more: Any) -> ReleasePlan:
    run = RunIdentity(dag_id="release_model", run_id=run_id, started_at=START)
    made = plan(model(name), identity=run, **more)
    RunJournal(index.store.objects, run).write_plan(made)
    return made


@pytest.fixture
def index(tmp_path: Path) -> Index:
    found = Index(ResultsStore.open(str(tmp_path)))
    _planned(found, "a", "cache-off")
    _planned(found, "b", "cache-on")
    return found


def contest(index: Index, **changes: Any) -> Contest:
    from include.results.journal import require_plan

    workload = require_plan(index.store.objects, "a_run", A).workloads[0]
    fields = {"a_run": A, "b_run": B, "workload": workload.name, "load": workload.loads[0].label, "pairs": 6}
    return Contest.model_validate(fields | changes)


def follow(index: Index, one: Trial, level: Level) -> Trial:
    """Do what the Dag does until there is an answer: ``level`` gives TTFT by arm and place, ``None``: it fails."""
    while not one.closed:
        step, place = one.steps[-1], len(one.steps) - 1
        assert one.request()["plan_of"] == (A if step.arm == "a" else B)
        assert one.request()["model"] == ("cache-off" if step.arm == "a" else "cache-on")
        run = RunIdentity(dag_id=RERUN_DAG, run_id=step.run_id, started_at=START + dt.timedelta(hours=place))
        found = level(step.arm, place)
        index.store.put_record(record(0, run=run, state="failed" if found is None else "success"))
        if found is not None:
            asked = one.contest
            spec = {"mode": "closed", "concurrency": int(asked.load.partition("=")[2])}
            kept = result(0, run=run, workload=asked.workload, load=asked.load, load_spec=spec,
                          statistics=statistics(found))  # fmt: skip
            index.store.put_result(kept, None)
        index.refresh(write=False)
        one = advance(index, one)
        assert read_trial(index.store.objects, one.path) == one
    return one


def drifting(arm: str, place: int) -> float:
    """B is 3 % above A; from deployment to deployment everything gets 2 % slower, with a little noise."""
    return 100 * 1.02**place * (1.03 if arm == "b" else 1.0) * (1 + 0.002 * ((place * 7) % 5 - 2))


def test_a_planted_difference_is_found_under_drift(index: Index) -> None:
    one = follow(index, begin(index.store.objects, contest(index)), drifting)
    assert "".join(step.arm for step in one.steps) == "abbaabbaabba"
    (ttft,) = (found for found in one.differences if found.metric == "ttft_ms_p50")
    assert ttft.verdict == "higher"
    assert ttft.low < 0.03 < ttft.high
    assert ttft.pairs == 6
    assert "ttft_ms_p50" in one.closed


def test_equal_plans_are_inconclusive_with_what_could_have_been_found(index: Index) -> None:
    noise = (0.0, 0.01, -0.01, 0.005, -0.005, 0.0, 0.008, -0.008, 0.002, -0.002, 0.004, -0.004)
    one = follow(index, begin(index.store.objects, contest(index)), lambda _arm, place: 100 * (1 + noise[place]))
    (ttft,) = (found for found in one.differences if found.metric == "ttft_ms_p50")
    assert ttft.verdict == "inconclusive"
    assert ttft.detectable > 0


def test_a_failed_deployment_costs_its_pair_and_too_many_end_it(index: Index) -> None:
    asked = contest(index)
    one = follow(index, begin(index.store.objects, asked), lambda arm, n: None if n == 3 else drifting(arm, n))
    assert {found.pairs for found in one.differences} == {5}
    other = contest(index, pairs=5)
    ended = follow(index, begin(index.store.objects, other), lambda arm, n: None if arm == "b" else drifting(arm, n))
    assert "brought no valid result" in ended.closed
    assert len(ended.steps) < 10


def test_the_same_contest_has_its_answer_already(index: Index, capsys: pytest.CaptureFixture[str]) -> None:
    one = follow(index, begin(index.store.objects, contest(index, pairs=3)), drifting)
    assert begin(index.store.objects, contest(index, pairs=3)) == one
    assert main(["--store", index.store.objects.uri, "trials"]) == 0
    told = capsys.readouterr().out
    assert one.id in told
    assert "B over A" in told


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"a_run": "runs/release_model/none"}, "has no plan"),
        ({"workload": "other"}, "workload = 'other'"),
        ({"load": "c=999"}, "load = 'c=999'"),
    ],
)
def test_what_cannot_be_compared_is_refused_before_anything_runs(
    index: Index, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        begin(index.store.objects, contest(index, **changes))
    assert list(index.store.objects.list("verdicts/trials")) == []


def test_another_cluster_is_refused(index: Index) -> None:
    _planned(index, "c", "cache-on", on=cluster(name="elsewhere"))
    with pytest.raises(ConfigurationError, match="they ran on"):
        begin(index.store.objects, contest(index, b_run="runs/release_model/c"))
