"""### Judge nights

In the morning: judges every series of the newest night, keeps the verdicts, tells new troubles to their owners once,
closes what is over, and emits one event on `hyperpod/nights` with the summary. A suspicion is never told before a
re-run confirmed it: the Dag `confirm_suspicion` runs suspect cells again, and then starts this one for the same night.

Who is told: `HYPERPOD_NOTIFIERS` in the workers' environment, such as `slack?conn_id=slack_alerts`,
`email:team@example.com` or `sns:<topic ARN>`, several with blanks between; unset: the task's log.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag

from hyperpod.assets import NIGHTS
from hyperpod.defaults import DEFAULT_ARGS, only_at
from hyperpod.operators.confirm import PlanRerunsOperator
from hyperpod.operators.night import JudgeNightOperator


@dag(
    schedule=only_at("0 6 * * *"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"night": Param("", type="string", pattern=r"^(\d{4}-\d{2}-\d{2})?$", description_md="Empty: the newest")},
    tags=["hyperpod", "benchmark"],
    doc_md=__doc__,
)
def judge_nights() -> None:
    """Judge one night."""
    judged = JudgeNightOperator(
        task_id="judge_night",
        night="{{ params.night }}",
        outlets=[NIGHTS],
        execution_timeout=dt.timedelta(minutes=30),
    )
    reruns = PlanRerunsOperator(
        task_id="plan_reruns", night="{{ params.night }}", execution_timeout=dt.timedelta(minutes=10)
    )
    judged >> reruns
    TriggerDagRunOperator.partial(
        task_id="rerun", skip_when_already_exists=True, execution_timeout=dt.timedelta(minutes=5)
    ).expand_kwargs(reruns.output)


judge_nights()
