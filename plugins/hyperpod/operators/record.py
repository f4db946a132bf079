"""After the measurement: the run's record, report and asset event; and the leaf that says how the run ended."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Literal

from airflow.sdk import Asset
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

from hyperpod.assets import benchmark_asset
from hyperpod.operators.base import StageOperator

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.catalog.plan import ReleasePlan
    from include.results.journal import RunJournal
    from include.results.schema import BenchmarkResult, RunRecord, StageOutcome

FAILED_STATES = ("failed", "upstream_failed")


class RecordRunOperator(StageOperator):
    """Write what the run came to, whatever happened: record, report, and an asset event for a success.

    :param request: see :class:`StageOperator`.
    """

    stage = "record"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return state, reason and where the report is."""
        from include.results.report import render_report
        from include.results.schema import STAGES
        from include.results.store import ResultsStore

        with self.journaled(context) as work:
            journal = self.journal(context)
            store = ResultsStore(journal.objects)
            plan = journal.readable_plan()
            outcomes = complete(journal.outcomes(), self._task_states(context))
            stages = {name: outcomes[name] for name in STAGES if name in outcomes}
            results = store.of_run(journal.run.path)
            record = _record(journal, plan, stages, results, self._request_fields(context))
            record = record.model_copy(update={"report_uri": store.objects.url(f"{journal.run.path}/report.html")})
            journal.write_record(record)
            store.put_report(journal.run.path, render_report(record, results))
            summary = _summary(record, results)
            if record.state == "success":
                self._announce(context, summary)
            work.data = {"state": record.state, "reason": record.reason, "report": record.report_uri}
            self.log.info("recorded %s %s: %s", record.state, record.reason, record.report_uri)
            return work.data

    def _announce(self, context: Context, summary: dict[str, Any]) -> None:
        outlets: Any = context["outlet_events"]
        for alias in self.outlets:
            if not isinstance(alias, Asset):
                outlets[alias].add(benchmark_asset(summary["model"]), extra=summary)

    def _request_fields(self, context: Context) -> dict[str, Any]:
        if self.request:
            return dict(self.request)
        return dict(context["params"])

    def _task_states(self, context: Context) -> dict[str, str]:
        """State of each stage's task: tells about a killed worker, which writes nothing."""
        ti: Any = context["ti"]
        states: dict[str, str] = {}
        found = ti.get_task_states(
            dag_id=ti.dag_id, run_ids=[ti.run_id], map_index=ti.map_index if ti.map_index >= 0 else None
        )
        for tasks in found.values():
            for task_id, state in tasks.items():
                states[str(task_id).rsplit(".", maxsplit=1)[-1].split("_-")[0]] = str(state)
        return states


class ConcludeRunOperator(StageOperator):
    """The run's leaf: red when a stage failed or the teardown could not prove absence, with the sentence why.

    :param request: see :class:`StageOperator`.
    """

    stage = "conclude"

    def execute(self, context: Context) -> str:
        """Return the run's state.

        :raises AirflowFailException: naming the failed stage and its reason.
        :raises AirflowSkipException: nothing ran for want of accelerators.
        """
        journal = self.journal(context)
        record = journal.read_record()
        if record is None:
            raise AirflowFailException("NoRecord: the run wrote no record. Fix: read the log of the record task")
        if record.state == "skipped":
            raise AirflowSkipException(f"{record.reason}: {record.message}")
        if record.state != "success":
            fix = f" Fix: {record.fix}" if record.fix else ""
            raise AirflowFailException(f"{record.failed_stage}: {record.reason}: {record.message}{fix}")
        teardown = journal.read_teardown()
        if teardown is None or not (teardown.absent or teardown.kept):
            raise AirflowFailException("NotTornDown: absence is not proven. Fix: read the log of the teardown task")
        self.log.info("%s; report %s", record.state, record.report_uri)
        return record.state


def complete(outcomes: Mapping[str, StageOutcome], states: Mapping[str, str]) -> dict[str, StageOutcome]:
    """Return the outcomes with what the stages could not write themselves.

    A stage still ``running`` whose task failed was killed; one that never began and whose task failed before it
    could start gets an outcome too.
    """
    from include.results.schema import StageOutcome

    done = dict(outcomes)
    now = dt.datetime.now(dt.UTC)
    for stage, state in states.items():
        outcome = done.get(stage)
        if outcome is not None and outcome.state == "running" and state != "running":
            done[stage] = outcome.model_copy(
                update={
                    "state": "failed",
                    "ended_at": now,
                    "seconds": (now - outcome.started_at).total_seconds(),
                    "reason": "TaskKilled",
                    "message": f"the process of task {stage} ended without a word (state {state})",
                    "fix": "look for an out-of-memory kill or a restart of the worker; run it again",
                    "failure_class": "transient",
                }
            )
        elif outcome is None and state == "failed":
            done[stage] = StageOutcome(
                stage=stage,
                state="failed",
                started_at=now,
                ended_at=now,
                reason="TaskFailed",
                message=f"task {stage} failed before it could write anything",
                fix="read the task's log and the scheduler's",
                failure_class="internal",
            )
    return done


def _record(
    journal: RunJournal,
    plan: ReleasePlan | None,
    stages: dict[str, StageOutcome],
    results: list[BenchmarkResult],
    request: dict[str, Any],
) -> RunRecord:
    from include.results.schema import NO_CAPACITY, STAGES, RunRecord

    failed = next((stages[name] for name in STAGES if name in stages and stages[name].state == "failed"), None)
    ended_well = "benchmark" in stages and stages["benchmark"].state == "success"
    staged = stages["stage"].data if "stage" in stages else {}
    created = stages["create_endpoint"].data if "create_endpoint" in stages else {}
    waited = stages["wait_until_ready"].data if "wait_until_ready" in stages else {}
    missing = next((name for name in STAGES if name not in stages), "")
    state: Literal["success", "failed", "skipped"] = "success" if ended_well and failed is None else "failed"
    if failed is not None and failed.reason == NO_CAPACITY:
        state = "skipped"
    return RunRecord(
        run=journal.run,
        state=state,
        failed_stage=failed.stage if failed else (None if ended_well else missing),
        reason=failed.reason if failed else ("" if ended_well else "NotRun"),
        message=failed.message if failed else ("" if ended_well else f"stage {missing} never ran"),
        fix=failed.fix if failed else "",
        evidence=failed.evidence if failed else (),
        started_at=min((item.started_at for item in stages.values()), default=journal.run.started_at),
        ended_at=dt.datetime.now(dt.UTC),
        stages=stages,
        plan_digest=plan.digest if plan else "",
        model={
            "name": plan.model.name if plan else str(request.get("model", "")),
            "revision": plan.revision if plan else str(request.get("revision") or ""),
            "manifest_digest": staged.get("manifest_digest", ""),
            "bytes": staged.get("total_bytes", 0),
            "moved_bytes": staged.get("moved_bytes", 0),
            "workloads": list(request.get("workloads") or ()),
        },
        endpoint={
            "name": created.get("name") or (plan.endpoint_name if plan else ""),
            "uid": created.get("uid", ""),
            "cold_start": waited.get("cold_start", {}),
        },
        results=tuple(result.result_id for result in results),
        cost_usd=_cost(plan, created),
    )


def _cost(plan: ReleasePlan | None, created: dict[str, Any]) -> Decimal:
    from include.results.cost import cost_usd

    if plan is None or not created.get("created_at"):
        return Decimal(0)
    since = dt.datetime.fromisoformat(str(created["created_at"]))
    return cost_usd(plan.hourly_price, (dt.datetime.now(dt.UTC) - since).total_seconds())


def _summary(record: RunRecord, results: list[BenchmarkResult]) -> dict[str, Any]:
    return {
        "state": record.state,
        "model": record.model["name"],
        "revision": record.model["revision"],
        "manifest_digest": record.model["manifest_digest"],
        "run_id": record.run.run_id,
        "report": record.report_uri,
        "cost_usd": str(record.cost_usd),
        "levels": [
            {
                "workload": result.workload,
                "load": result.load,
                "ttft_ms_p50": result.statistics.ttft_ms.p50,
                "tpot_ms_p50": result.statistics.tpot_ms.p50,
                "e2e_ms_p50": result.statistics.e2e_ms.p50,
                "output_tokens_per_s": result.statistics.output_tokens_per_s,
                "goodput_rps": result.statistics.goodput_rps,
                "valid": result.validity.valid,
            }
            for result in results
        ],
    }
