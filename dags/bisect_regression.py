"""### Bisect a regression

Names what made a figure worse between two runs: runs the good plan and the bad plan again, then plans between the two,
until the smallest set of differences is left that makes it bad. Each re-run is a deployment of `confirm_suspicion`, one
after the other; the answer stands in the log of the last one's task `settle`, and in
`python -m include.results bisect`.

Trigger it with the folders of both runs (`runs/<dag>/<run>/<cell>`, as the Benchmarks page shows them).
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag

from hyperpod.defaults import DEFAULT_ARGS
from hyperpod.operators.confirm import BeginBisectionOperator

PARAMS = {
    "good_run": Param("", type="string", description_md="Folder of the last good run below the results store"),
    "bad_run": Param("", type="string", description_md="Folder of the first bad one"),
    "workload": Param("smoke", type="string", description_md="A workload that both measured"),
    "load": Param("c=1", type="string", description_md="The load level, as in the results"),
    "metric": Param("ttft_ms_p50", type="string", description_md="The figure that got worse"),
    "repeats": Param(2, type="integer", minimum=1, maximum=8, description_md="Deployments of each mixture"),
    "most_runs": Param(30, type="integer", minimum=4, maximum=200, description_md="Then it ends undecided"),
}


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params=PARAMS,
    tags=["hyperpod", "benchmark"],
    doc_md=__doc__,
)
def bisect_regression() -> None:
    """Ask which difference is guilty."""
    asked = BeginBisectionOperator(
        task_id="begin",
        question={name: f"{{{{ params.{name} }}}}" for name in PARAMS},
        execution_timeout=dt.timedelta(minutes=10),
    )
    TriggerDagRunOperator.partial(
        task_id="rerun", skip_when_already_exists=True, execution_timeout=dt.timedelta(minutes=5)
    ).expand_kwargs(asked.output)


bisect_regression()
