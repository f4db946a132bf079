"""### Confirm a suspicion

Runs one cell of a judged night again, because its figures looked worse. `judge_nights` starts it; each run is one
deployment, and starts the next until the case is decided:

1. One repeat of the suspect. Was it as before, the suspicion ends here.
2. Six or eight pairs of the baseline's plan and the suspect's, in the order ABBA.

Then `judge_nights` judges the night again with what they said; nobody is told before. `confirm:` in
`include/catalog/nightly.yaml` limits the re-runs and dollars of a night.
"""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, TriggerRule, dag, task_group

from hyperpod.defaults import DEFAULT_ARGS
from hyperpod.operators.confirm import SettleRerunOperator
from hyperpod.task_groups.release import release_stages

TEXTS = {
    "model": "Name in the catalog",
    "workload": "Name in the catalog",
    "cluster": "Name in the catalog",
    "plan_of": "Folder of the run whose plan is repeated, below the results store",
    "mix_from": "Folder of another run, of whose plan `mix` is taken",
    "mix": "Factors of that plan, comma between (`bisect_regression`)",
    "case": "Path of the case below the results store; empty: a repeat that decides nothing",
}
COPIED = ("model", "cluster", "plan_of", "mix_from", "mix")


@dag(
    schedule=None,
    catchup=False,
    # One after the other: pairs lie close in time, and one re-run's accelerators are all that they take.
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={name: Param("", type="string", description_md=text) for name, text in TEXTS.items()},
    tags=["hyperpod", "benchmark"],
    doc_md=__doc__,
)
def confirm_suspicion() -> None:
    """Run one cell again."""

    @task_group
    def rerun() -> None:
        asked: dict[str, Any] = {name: f"{{{{ params.{name} }}}}" for name in COPIED}
        release_stages(asked | {"workloads": ["{{ params.workload }}"]})

    cell = rerun()
    settle = SettleRerunOperator(
        task_id="settle",
        case="{{ params.case }}",
        trigger_rule=TriggerRule.ALL_DONE,
        retries=3,
        execution_timeout=dt.timedelta(minutes=10),
    )
    # After the teardown, beside the leaf that colours the run: a failed re-run is red and is settled all the same.
    cell.children["rerun.teardown"] >> settle
    TriggerDagRunOperator.partial(
        task_id="follow", skip_when_already_exists=True, execution_timeout=dt.timedelta(minutes=5)
    ).expand_kwargs(settle.output)


confirm_suspicion()
