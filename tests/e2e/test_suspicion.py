"""A suspicion under the real scheduler: judged, run again by its own Dag, judged again; nobody told."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from include.catalog.plan import RunIdentity
from include.local.demo import VAR, Stack
from include.objects import Objects
from include.results.index import Index
from include.results.journal import RunJournal
from include.results.reruns import read_cases
from include.results.schema import BenchmarkResult
from include.results.store import ResultsStore
from include.results.verdicts import confirmations
from tests.e2e.running import run, wait_until
from tests.include.results.builders import record

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600), pytest.mark.xdist_group("e2e")]
# Long before any real night, so that nothing else is judged with it.
FIRST, NIGHTS, WORSE = dt.datetime(2001, 1, 1, 2, tzinfo=dt.UTC), 12, 6.0


def _template(stack: Stack, store: ResultsStore) -> BenchmarkResult:
    """Return a real result at one stream: the newest of this session's releases, or of one made for it."""
    for _ in range(2):
        found = [
            result
            for path in store.record_paths()
            if path.startswith("runs/release_model/") and store.objects.head(path.replace("record", "plan"))
            for result in store.of_run(path.removesuffix("/record.json"))
            if (result.provenance.model, result.workload, result.load) == ("smollm2-135m", "smoke", "c=1")
            # From an earlier session it may have too few answers, with which nothing can be suspected.
            and result.statistics.ttft_ms.p50 is not None
        ]
        if found:
            return max(found, key=lambda one: one.started_at)
        run(stack, "release_model", {"model": "smollm2-135m", "workloads": ["smoke"]})
    raise AssertionError("the release brought no result")


@pytest.fixture
def planted(stack: Stack) -> Iterator[ResultsStore]:
    """Eleven usual nights and one six times slower, all with the plan of a real run; removed afterwards."""
    store = ResultsStore.open(str(VAR / "results"))
    real = _template(stack, store)
    plan = store.objects.get(f"{real.run.path}/plan.json")
    assert plan is not None
    before = {info.path for info in store.objects.list()}
    for night in range(NIGHTS):
        started = FIRST + dt.timedelta(days=night)
        one = RunIdentity(dag_id="nightly_benchmark", run_id=f"planted__{night}", cell="planted", started_at=started)
        slow = (WORSE if night == NIGHTS - 1 else 1.0) * (1 + 0.01 * (night % 3))
        store.objects.put(f"{one.path}/plan.json", plan)
        store.put_record(record(0, run=one))
        times = {"started_at": started, "ended_at": started + dt.timedelta(seconds=6)}
        store.put_result(
            _slower(real, slow).model_copy(update={"run": one, "result_id": f"planted-{night}"} | times), None
        )
    yield store
    for info in list(store.objects.list()):
        if info.path not in before and ("planted" in info.path or "2001-01" in info.path):
            store.objects.delete(info.path)
    Index(store).rebuild()


def _slower(real: BenchmarkResult, factor: float) -> BenchmarkResult:
    content: dict[str, Any] = json.loads(real.model_dump_json())
    for name in ("ttft_ms", "tpot_ms", "e2e_ms"):
        points = content["statistics"][name]
        content["statistics"][name] = {
            key: value * factor if isinstance(value, float) else value for key, value in points.items()
        }
    content["validity"]["valid"] = True
    return BenchmarkResult.model_validate(content)


def test_a_suspicion_that_a_repeat_refutes_ends_without_a_word(stack: Stack, planted: ResultsStore) -> None:
    night = f"{FIRST + dt.timedelta(days=NIGHTS - 1):%Y-%m-%d}"
    for dag_id in ("confirm_suspicion", "judge_nights"):
        stack.api.wait_for_dag(dag_id)
        stack.api.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
    state, _ = run(stack, "judge_nights", {"night": night})
    assert state == "success"
    (case,) = read_cases(planted.objects, night)
    assert {one.metric for one in case.suspicions} >= {"ttft_ms_p50", "e2e_ms_p50"}
    (step,) = case.steps

    def ended(dag_id: str, run_id: str) -> bool:
        try:
            return stack.api.run_state(dag_id, run_id) in ("success", "failed")
        except RuntimeError:
            return False

    wait_until("the re-run", lambda: ended("confirm_suspicion", step.run_id), 300)
    wait_until("the second judgement", lambda: ended("judge_nights", f"confirmed__{night}__{case.id}"))
    repeated = RunJournal(
        planted.objects, RunIdentity(dag_id="confirm_suspicion", run_id=step.run_id, started_at=FIRST)
    )
    done = repeated.read_record()
    assert done is not None
    assert done.state == "success"
    plan, gone = repeated.read_plan(), repeated.read_teardown()
    assert plan is not None
    assert plan.run.owner == repeated.run.owner
    assert gone is not None
    assert gone.absent
    (case,) = read_cases(planted.objects, night)
    assert (len(case.steps), case.closed) == (1, "a repeat was as before")
    said = {one.decision for found in confirmations(planted.objects).values() for one in found if one.night == night}
    assert said == {"refuted"}
    assert not [info.path for info in planted.objects.list("alerts/open") if _is_about(planted.objects, info.path)]


def _is_about(objects: Objects, path: str) -> bool:
    return "planted" in str(objects.get(path)) or Path(path).name.startswith("planted")
