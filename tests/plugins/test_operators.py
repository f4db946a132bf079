"""The adapters to Airflow: requests, identities, triggers, and what a killed task leaves in the record."""

from __future__ import annotations

import datetime as dt
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.catalog.plan import RunIdentity, endpoint_name
from include.catalog.request import ReleaseRequest
from include.errors import ConfigurationError, FailureClass, IntegrityError, PipelineError
from include.results.schema import StageOutcome

NOW = dt.datetime(2026, 11, 23, 2, 0, tzinfo=dt.UTC)


def context(params: dict[str, Any], events: Any = None) -> Any:
    run = SimpleNamespace(dag_id="release_model", run_id="manual__1", run_after=NOW, start_date=NOW)
    return {"params": params, "dag_run": run, "triggering_asset_events": events or {}}


def test_empty_form_fields_mean_not_asked() -> None:
    form = {"model": "m", "revision": "", "workloads": ["smoke"], "slo_ttft_ms": None, "budget_usd": None}
    request = ReleaseRequest.parse(form)
    assert request.revision is None
    assert request.slo.ttft_ms is None
    assert request.budget_usd is None


def test_every_bad_field_of_a_request_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        ReleaseRequest.parse({"model": "m", "ttl_hours": 900, "after_benchmark": "burn", "slo_error_rate": 3})
    text = str(caught.value)
    assert "ttl_hours = 900" in text
    assert "after_benchmark = 'burn'" in text
    assert "slo.error_rate = 3" in text


def test_an_asset_event_replaces_the_forms_defaults() -> None:
    from hyperpod.run import request_of

    old = SimpleNamespace(timestamp=NOW, extra={"model": "old", "revision": "1"})
    new = SimpleNamespace(timestamp=NOW + dt.timedelta(seconds=1), extra={"model": "new", "revision": "2"})
    request = request_of(None, context({"model": "form"}, {"asset": [new, old]}))
    assert (request.model, request.revision) == ("new", "2")


def test_two_cells_of_one_night_never_share_an_endpoint() -> None:
    from hyperpod.run import run_of

    night = context({})
    cells = [{"model": "m", "cell": f"m--{name}--local"} for name in ("smoke", "chat")]
    identities = [run_of(cell, night) for cell in cells]
    assert len({identity.owner for identity in identities}) == 2
    assert len({endpoint_name("m", identity) for identity in identities}) == 2


@given(st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True), st.text(max_size=300))
def test_endpoint_names_are_valid_short_and_stable(model: str, run_id: str) -> None:
    run = RunIdentity(dag_id="d", run_id=run_id, started_at=NOW)
    name = endpoint_name(model, run)
    assert len(name) <= 40
    assert name == endpoint_name(model, run)
    assert name[0].isalnum()
    assert name[-1].isalnum()
    assert set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("EndpointReadyTrigger", {"plan": {"a": 1}, "ref": {"name": "x"}, "timeout_seconds": 5.0}),
        ("EndpointGoneTrigger", {"cluster": {"a": 1}, "ref": {"name": "x"}, "timeout_seconds": 5.0}),
    ],
)
def test_a_trigger_survives_serialisation(name: str, arguments: dict[str, Any]) -> None:
    from airflow.sdk.module_loading import import_string

    path = f"hyperpod.triggers.endpoint.{name}"
    assert import_string(path)(**arguments).serialize() == (path, arguments)


def outcome(stage: str, state: Any) -> StageOutcome:
    return StageOutcome(stage=stage, state=state, started_at=NOW)


def test_a_killed_task_gets_an_outcome_with_a_reason() -> None:
    from hyperpod.operators.record import complete

    found = complete({"benchmark": outcome("benchmark", "running")}, {"benchmark": "failed", "stage": "failed"})
    assert found["benchmark"].state == "failed"
    assert found["benchmark"].reason == "TaskKilled"
    assert found["stage"].reason == "TaskFailed"


def test_a_stage_that_still_runs_is_not_called_failed() -> None:
    from hyperpod.operators.record import complete

    found = complete({"benchmark": outcome("benchmark", "running")}, {"benchmark": "running"})
    assert found["benchmark"].state == "running"


@pytest.mark.parametrize(
    ("error", "retryable"),
    [
        (ConfigurationError("R", "m"), False),
        (IntegrityError("R", "m"), False),
        (PipelineError("R", "m", failure_class=FailureClass.RESULT), False),
        (PipelineError("R", "m", failure_class=FailureClass.CAPACITY), True),
        (PipelineError("R", "m"), True),
    ],
)
def test_only_what_can_get_better_is_retried(error: PipelineError, retryable: bool) -> None:
    import pickle

    assert error.retryable is retryable
    again = pickle.loads(pickle.dumps(error))
    assert (str(again), again.failure_class) == (str(error), error.failure_class)


class Known:
    """Answers as the execution API does, with the SDK's own types."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def get_dagrun_state(self, dag_id: str, run_id: str) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def api_error(status: int) -> Exception:
    from airflow.sdk.exceptions import AirflowRuntimeError, ErrorType
    from airflow.sdk.execution_time.comms import ErrorResponse

    detail = {"status_code": status, "message": "run manual__404 not found"}
    return AirflowRuntimeError(ErrorResponse(error=ErrorType.API_SERVER_ERROR, detail=detail))


def test_only_a_run_that_is_known_to_be_over_frees_its_endpoint() -> None:
    from airflow.sdk.api.datamodels._generated import DagRunState

    from hyperpod.run import run_has_ended

    over = {state.value for state in DagRunState if run_has_ended(Known(state), "d", "r")}
    assert over == {"success", "failed"}
    assert not run_has_ended(Known("a state of a later Airflow"), "d", "r")
    assert run_has_ended(Known(api_error(404)), "d", "r")


def test_an_api_that_cannot_say_frees_nothing() -> None:
    from airflow.sdk.exceptions import AirflowRuntimeError

    from hyperpod.run import run_has_ended

    with pytest.raises(AirflowRuntimeError):
        run_has_ended(Known(api_error(500)), "d", "r")
