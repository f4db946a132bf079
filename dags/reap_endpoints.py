"""### Reap endpoints

Every five minutes: deletes endpoints of ours that are past their expiry, whose run is over, or whose creation was
announced and never finished; proves absence; prints what each cost. Protected endpoints, held ones (until their
hold ends) and everything without our owner label are never touched.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import Param, dag

from hyperpod.defaults import DEFAULT_ARGS, START
from hyperpod.operators.reap import ReapEndpointsOperator


@dag(
    schedule=dt.timedelta(minutes=5),
    start_date=START,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    params={"cluster": Param("local", type="string", minLength=1, examples=["local"])},
    tags=["hyperpod", "reaper"],
    doc_md=__doc__,
)
def reap_endpoints() -> None:
    """Reap one cluster."""
    ReapEndpointsOperator(task_id="reap", cluster="{{ params.cluster }}", execution_timeout=dt.timedelta(minutes=30))


reap_endpoints()
