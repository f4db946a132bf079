"""### Compare two variants

A against B with an interval: KV cache on or off, one routing strategy or another, image X or Y. Release both once (two
models of the catalog, or one before and after a change), then name their runs' folders here
(`runs/<dag>/<run>`, as the Benchmarks page shows them).

Both plans are deployed again in pairs, in the order ABBA, one deployment of `confirm_suspicion` after the other, so
that what drifts hits both. The answer stands in the log of the last one's task `settle`, and in
`python -m include.results trials`.
"""

from __future__ import annotations

import datetime as dt

from airflow.providers.standard.operators.trigger_dagrun import TriggerDagRunOperator
from airflow.sdk import Param, dag

from hyperpod.defaults import DEFAULT_ARGS
from hyperpod.operators.confirm import BeginTrialOperator

PARAMS = {
    "a_run": Param("", type="string", description_md="Folder of a run of variant A below the results store"),
    "b_run": Param("", type="string", description_md="Folder of a run of variant B"),
    "workload": Param("smoke", type="string", description_md="A workload that both measured"),
    "load": Param("c=1", type="string", description_md="The load level, as in the results"),
    "pairs": Param(6, type="integer", minimum=3, maximum=20, description_md="Deployments of each variant"),
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
def compare_variants() -> None:
    """Ask for the first deployment."""
    asked = BeginTrialOperator(
        task_id="begin",
        question={name: f"{{{{ params.{name} }}}}" for name in PARAMS},
        execution_timeout=dt.timedelta(minutes=10),
    )
    TriggerDagRunOperator.partial(
        task_id="rerun", skip_when_already_exists=True, execution_timeout=dt.timedelta(minutes=5)
    ).expand_kwargs(asked.output)


compare_variants()
