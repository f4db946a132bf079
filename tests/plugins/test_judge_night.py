"""The morning's Dag judges, tells once, and emits one event; run in-process by Airflow."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk import BaseNotifier
from airflow.utils.types import DagRunType

from hyperpod.assets import NIGHTS
from hyperpod.operators.night import JudgeNightOperator, PlanNightOperator
from include.errors import PipelineError
from include.results.store import ResultsStore
from tests.include.results.builders import record, result, run_of


class Told(BaseNotifier):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def notify(self, context: Any) -> None:
        self.texts.append(context["alert"])


class Broken(BaseNotifier):
    """A notifier whose connection is gone."""

    def notify(self, context: Any) -> None:
        raise ConnectionError("no route")


class Event:
    """What Airflow gives for an outlet."""

    extra: Any = None


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ResultsStore:
    monkeypatch.setenv("HYPERPOD_RESULTS_URI", str(tmp_path / "store"))
    kept = ResultsStore.open(str(tmp_path / "store"))
    for night in range(8):
        kept.put_result(result(night), None)
    kept.put_record(record(8, state="failed", failed_stage="stage", reason="SourceDenied", message="401"))
    return kept


def _judge(*notifiers: BaseNotifier) -> tuple[dict[str, Any], Any]:
    event = Event()
    operator = JudgeNightOperator(task_id="judge", notifiers=notifiers)
    return operator.execute({"outlet_events": {NIGHTS: event}}), event.extra  # type: ignore[typeddict-item]


def test_a_failed_night_is_told_once_and_the_event_carries_the_summary(store: ResultsStore) -> None:
    told = Told()
    summary, extra = _judge(told)
    assert extra == summary
    assert summary["night"] == "2026-10-09"
    assert summary["runs"] == {"success": 0, "failed": 1, "skipped": 0}
    assert len(told.texts) == 1
    assert "SourceDenied" in told.texts[0]
    assert _judge(told)[0]["alerts"] == {"opened": 0, "open": 1, "closed": 0}
    assert len(told.texts) == 1
    store.put_record(record(9))
    store.put_result(result(9, run=run_of(9)), None)
    assert _judge(told)[0]["alerts"] == {"opened": 0, "open": 0, "closed": 1}
    assert told.texts[1].startswith("CLOSED")


def test_an_alert_that_could_not_be_told_is_told_by_the_retry(store: ResultsStore) -> None:
    with pytest.raises(PipelineError, match="NotTold: Broken: no route"):
        _judge(Broken())
    told = Told()
    _judge(told)
    assert len(told.texts) == 1


@pytest.mark.parametrize(("kind", "noted"), [(DagRunType.SCHEDULED, True), (DagRunType.MANUAL, False)])
def test_only_a_scheduled_night_asks_what_is_due(store: ResultsStore, kind: DagRunType, noted: bool) -> None:
    run = run_of(9)
    dag_run = SimpleNamespace(run_type=kind, dag_id=run.dag_id, run_id=run.run_id, run_after=run.started_at)
    context: Any = {"params": {}, "dag_run": dag_run}
    cells = PlanNightOperator(task_id="plan").execute(context)
    assert len(cells) == 4
    assert {cell["capacity_until"] for cell in cells} == {(run.started_at + dt.timedelta(hours=3)).isoformat()}
    assert (len(list(store.objects.list("nightly/cells"))) == 4) is noted
    assert PlanNightOperator(task_id="plan").execute(context) == cells
