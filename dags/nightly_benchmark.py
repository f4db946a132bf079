"""### Nightly benchmark

Runs every cell (model × workload) of `include/catalog/nightly.yaml` through the same stages as a release. A cell
that fails is recorded with its reason, turns the run red, and neither stops nor hides the others. Benchmarks run
one at a time (pool `hyperpod_benchmark`), so that they do not share the client's cores.

Params `models`, `workloads` and `cluster` replace the matrix for one run.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, dag, task_group

from hyperpod.defaults import DEFAULT_ARGS, only_at
from hyperpod.operators.night import PlanNightOperator
from hyperpod.task_groups.release import release_stages


@dag(
    schedule=only_at("0 2 * * *"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={
        "models": Param([], type="array", items={"type": "string"}, description_md="Empty: the matrix"),
        "workloads": Param([], type="array", items={"type": "string"}, description_md="Empty: the matrix"),
        "cluster": Param(None, type=["null", "string"], description_md="Empty: the matrix"),
    },
    tags=["hyperpod", "benchmark"],
    doc_md=__doc__,
)
def nightly_benchmark() -> None:
    """Measure the night's matrix."""
    night = PlanNightOperator(task_id="plan_night")

    @task_group
    def cell(request: Any) -> None:
        release_stages(request)

    cell.expand(request=night.output)


nightly_benchmark()
