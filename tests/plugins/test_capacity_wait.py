"""A nightly cell without room waits in the triggerer until its deadline; then its night is skipped, with the reason."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, TaskDeferred

import include.endpoint.preflight as checks
from hyperpod.operators.prepare import PreflightOperator, waits_for_room
from hyperpod.operators.record import ConcludeRunOperator, _record
from include.endpoint.model import Check, ValidationReport
from include.errors import FailureClass, PipelineError
from include.objects import Objects
from include.results.index import Index
from include.results.journal import RunJournal
from include.results.series import load_series
from include.results.store import ResultsStore
from tests.include.results.builders import result, run_of

NOW = dt.datetime.now(dt.UTC)
LATER, EARLIER = NOW + dt.timedelta(hours=1), NOW - dt.timedelta(hours=1)
CELL = "llama--chat--local"


def _report(*classes: FailureClass) -> ValidationReport:
    return ValidationReport(
        checks=tuple(
            Check(name=f"check {kind}", verdict="fail", expected="1 GPU", observed="room for 0", fix="wait",
                  failure_class=kind)
            for kind in classes
        )
    )  # fmt: skip


def test_only_missing_room_is_waited_for_and_only_until_the_deadline() -> None:
    room, wrong = FailureClass.CAPACITY, FailureClass.CONFIGURATION
    assert waits_for_room(_report(room), LATER, NOW)
    assert not waits_for_room(_report(room), None, NOW)
    assert not waits_for_room(_report(room, wrong), LATER, NOW)
    assert not waits_for_room(_report(), EARLIER, NOW)
    with pytest.raises(
        PipelineError, match=r"NoAcceleratorsInTime: no room until .*room for 0, needed 1 GPU"
    ) as caught:
        waits_for_room(_report(room), EARLIER, NOW)
    assert not caught.value.retryable


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunJournal:
    """A night's cell on a cluster that has no room."""
    made = RunJournal(Objects.open(str(tmp_path)), run_of(9, cell=CELL))
    for kind in (PreflightOperator, ConcludeRunOperator):
        monkeypatch.setattr(kind, "journal", lambda *_: made)
    monkeypatch.setattr(PreflightOperator, "plan", lambda *_: None)
    monkeypatch.setattr(PreflightOperator, "hook", lambda *_: SimpleNamespace(clients=lambda: None))
    monkeypatch.setattr(checks, "preflight", lambda *_: _report(FailureClass.CAPACITY))
    return made


def _run(until: dt.datetime) -> Any:
    request = {"model": "llama", "workloads": ["chat"], "cell": CELL, "capacity_until": until.isoformat()}
    context: Any = {"ti": SimpleNamespace(try_number=1)}
    return PreflightOperator(task_id="preflight", request=request)._check(context)


def test_waiting_takes_no_worker_and_is_no_failure(journal: RunJournal) -> None:
    with pytest.raises(TaskDeferred) as deferred:
        _run(LATER)
    assert deferred.value.method_name == "look_again"
    assert callable(PreflightOperator.look_again)
    assert journal.outcomes()["preflight"].state == "running"


def test_after_the_deadline_the_night_is_skipped_with_its_reason_and_not_red(journal: RunJournal) -> None:
    store = ResultsStore(journal.objects)
    for night in range(9):
        store.put_result(result(night, run=run_of(night, cell=CELL)), None)
    with pytest.raises(AirflowFailException, match="NoAcceleratorsInTime"):
        _run(EARLIER)
    record = _record(journal, None, journal.outcomes(), [], {"model": "llama", "workloads": ["chat"]})
    assert (record.state, record.failed_stage, record.reason) == ("skipped", "preflight", "NoAcceleratorsInTime")
    journal.write_record(record)
    with pytest.raises(AirflowSkipException, match="no room until"):
        ConcludeRunOperator(task_id="conclude").execute({})  # type: ignore[typeddict-item]
    gap = load_series(Index(store))[0].gaps["2026-10-10"]
    assert (gap["state"], gap["reason"]) == ("skipped", "NoAcceleratorsInTime")
