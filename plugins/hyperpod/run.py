"""From Airflow's context to the domain: which run this is, and what was asked for."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from include.catalog.plan import RunIdentity
from include.catalog.request import ReleaseRequest

if TYPE_CHECKING:
    from airflow.sdk import Context


def default_results_uri() -> str:
    """Where a run is recorded whose cluster is unknown."""
    return os.environ.get("HYPERPOD_RESULTS_URI", "var/results")


ENDED_STATES = frozenset({"success", "failed"})


def run_has_ended(ti: Any, dag_id: str, run_id: str) -> bool:
    """True only for a run that is known to have ended, or that Airflow does not know at all.

    Deleting rests on this answer, so everything else is "no": a state that a newer Airflow adds keeps its endpoint.

    :param ti: the running task instance; asks Airflow's execution API.
    :raises AirflowRuntimeError: when Airflow cannot say.
    """
    from airflow.sdk.exceptions import AirflowRuntimeError

    try:
        state = ti.get_dagrun_state(dag_id, run_id)
    except AirflowRuntimeError as error:
        if (error.error.detail or {}).get("status_code") == 404:
            return True
        raise
    # The SDK's enum prints as "DagRunState.RUNNING"; only its value is the state.
    return getattr(state, "value", state) in ENDED_STATES


def request_of(given: Any, context: Context) -> ReleaseRequest:
    """Return the request: ``given`` (a nightly cell), else the params with the asset event's extra on top.

    :raises ConfigurationError: naming every bad field.
    """
    if given:
        return ReleaseRequest.parse(dict(given))
    fields: dict[str, Any] = dict(context["params"])
    fields |= _candidate(context)
    return ReleaseRequest.parse(fields)


def run_of(given: Any, context: Context) -> RunIdentity:
    """Return the run's identity: the same for every task and every try."""
    run: Any = context["dag_run"]
    cell = str(dict(given).get("cell", "")) if given else ""
    started = run.run_after or run.start_date
    return RunIdentity(dag_id=str(run.dag_id), run_id=str(run.run_id), cell=cell, started_at=started)


def _candidate(context: Context) -> dict[str, Any]:
    """Return model, revision and cluster of the newest asset event that started the run, if one did.

    An older event of the same batch is not lost: refresh_models finds its revision unreleased again.
    """
    events: Any = context.get("triggering_asset_events") or {}
    extras = [(event.timestamp, event.extra) for found in events.values() for event in found]
    if not extras:
        return {}
    _, extra = max(extras, key=lambda item: str(item[0]))
    return {key: extra[key] for key in ("model", "revision", "cluster", "workloads") if extra.get(key)}
