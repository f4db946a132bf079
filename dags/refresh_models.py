"""### Refresh models

Every hour: finds the first model of the catalog whose source has a revision that no run has recorded, stages it,
and announces it on the asset `hyperpod/candidates`; that starts `release_model` with it. A revision that was
rejected is not tried again; the next model comes with the next run.
"""

from __future__ import annotations

from airflow.sdk import Param, dag

from hyperpod.defaults import DEFAULT_ARGS, only_at
from hyperpod.operators.refresh import FindCandidateOperator
from hyperpod.task_groups.release import STAGING_POOL


@dag(
    schedule=only_at("0 * * * *"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"cluster": Param("local", type="string", minLength=1, examples=["local"])},
    tags=["hyperpod", "refresh"],
    doc_md=__doc__,
)
def refresh_models() -> None:
    """Find and stage one candidate."""
    FindCandidateOperator(task_id="find_candidate", cluster="{{ params.cluster }}", pool=STAGING_POOL)


refresh_models()
