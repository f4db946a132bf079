"""The stages of one release, wired once for every Dag."""

from __future__ import annotations

import datetime as dt
from typing import Any

from airflow.sdk import TriggerRule

from hyperpod.assets import BENCHMARKS
from hyperpod.operators.benchmark import BenchmarkEndpointOperator
from hyperpod.operators.endpoint import (
    CreateEndpointOperator,
    ValidateEndpointOperator,
    WaitUntilReadyOperator,
)
from hyperpod.operators.prepare import PlanOperator, PreflightOperator, StageModelOperator
from hyperpod.operators.record import ConcludeRunOperator, RecordRunOperator
from hyperpod.operators.teardown import TeardownEndpointOperator

STAGING_POOL = "hyperpod_staging"
BENCHMARK_POOL = "hyperpod_benchmark"


def release_stages(request: Any = None) -> None:
    """Add the stages to the current Dag or task group.

    ``create_endpoint`` creates and does nothing else. It is not marked as a setup: Airflow sets every task between
    a failed setup and its teardown to upstream_failed whatever its trigger rule, and the record must be written
    just then. So the teardown always runs, and proves absence also for a creation that died half-way.
    ``conclude`` is the one leaf: a green teardown cannot hide a red stage.

    :param request: a dict (or an XComArg of one); ``None``: the Dag run's params.
    """
    minutes = _minutes
    plan = PlanOperator(task_id="plan", request=request, execution_timeout=minutes(15))
    preflight = PreflightOperator(task_id="preflight", request=request, execution_timeout=minutes(5), retries=3)
    stage = StageModelOperator(
        task_id="stage", request=request, pool=STAGING_POOL, execution_timeout=minutes(240), retries=3
    )
    create = CreateEndpointOperator(task_id="create_endpoint", request=request, execution_timeout=minutes(5), retries=3)
    wait = WaitUntilReadyOperator(
        task_id="wait_until_ready", request=request, deferrable=True, execution_timeout=minutes(150)
    )
    validate = ValidateEndpointOperator(task_id="validate", request=request, execution_timeout=minutes(15))
    benchmark = BenchmarkEndpointOperator(
        task_id="benchmark", request=request, pool=BENCHMARK_POOL, execution_timeout=minutes(240)
    )
    record = RecordRunOperator(
        task_id="record",
        request=request,
        trigger_rule=TriggerRule.ALL_DONE,
        outlets=[BENCHMARKS],
        execution_timeout=minutes(10),
        retries=3,
    )
    teardown = TeardownEndpointOperator(
        task_id="teardown", request=request, deferrable=True, execution_timeout=minutes(30), retries=4
    ).as_teardown(on_failure_fail_dagrun=True)
    conclude = ConcludeRunOperator(
        task_id="conclude", request=request, trigger_rule=TriggerRule.ALL_DONE, execution_timeout=minutes(5)
    )
    plan >> preflight >> stage >> create >> wait >> validate >> benchmark >> record >> teardown >> conclude


def _minutes(count: int) -> dt.timedelta:
    return dt.timedelta(minutes=count)
