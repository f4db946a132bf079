"""Every Dag: imports, ownership, docs, retries and time-outs; cheap and without I/O when it is parsed."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pendulum
import pytest

ROOT = Path(__file__).resolve().parents[2]
DAG_IDS = {
    "release_model", "refresh_models", "nightly_benchmark", "judge_nights", "confirm_suspicion", "bisect_regression",
    "compare_variants", "reap_endpoints",
}  # fmt: skip
HEAVY = ("kubernetes", "kubernetes_asyncio", "boto3", "pandas", "pyarrow", "obstore", "scipy", "duckdb", "numpy")


@pytest.fixture(scope="session")
def dags(airflow_home: Path) -> dict[str, Any]:
    from airflow.dag_processing.dagbag import DagBag

    bag = DagBag(str(ROOT / "dags"))
    assert bag.import_errors == {}
    return dict(bag.dags)


def tasks(dags: dict[str, Any]) -> list[Any]:
    return [task for dag in dags.values() for task in dag.tasks]


def test_all_dags_are_there_with_tags_and_docs_that_render(dags: dict[str, Any]) -> None:
    assert set(dags) == DAG_IDS
    for dag in dags.values():
        assert "hyperpod" in dag.tags
        assert dag.doc_md is not None
        assert re.match(r"\s*### \S", dag.doc_md), dag.dag_id


def test_every_task_has_an_owner_retries_and_a_timeout(dags: dict[str, Any]) -> None:
    for task in tasks(dags):
        where = f"{task.dag_id}.{task.task_id}"
        assert task.owner not in ("", "airflow"), where
        assert task.retries >= 1, where
        assert task.execution_timeout is not None, where
        assert task.execution_timeout.total_seconds() <= 4 * 3600, where


def test_no_dag_has_a_cycle(dags: dict[str, Any]) -> None:
    for dag in dags.values():
        dag.check_cycle()


def test_every_pool_is_declared(dags: dict[str, Any]) -> None:
    declared = set(json.loads((ROOT / "config" / "pools.json").read_text())) | {"default_pool"}
    assert {task.pool for task in tasks(dags)} <= declared


@pytest.mark.parametrize(("dag_id", "prefix"), [("release_model", ""), ("nightly_benchmark", "cell.")])
def test_the_record_is_written_and_the_teardown_runs_whatever_happened(
    dags: dict[str, Any], dag_id: str, prefix: str
) -> None:
    dag = dags[dag_id]
    record, teardown, conclude = (dag.get_task(prefix + name) for name in ("record", "teardown", "conclude"))
    assert record.trigger_rule.value == "all_done"
    assert teardown.is_teardown
    assert teardown.on_failure_fail_dagrun
    assert teardown.retries >= 3
    assert record.task_id in teardown.upstream_task_ids
    # The one leaf decides the colour of the run: a green teardown must not hide a red stage.
    assert [leaf.task_id for leaf in dag.leaves] == [conclude.task_id]
    assert conclude.trigger_rule.value == "all_done"


def test_release_and_nightly_run_the_same_stages(dags: dict[str, Any]) -> None:
    release = [task.task_id for task in dags["release_model"].topological_sort()]
    nightly = [task.task_id for task in dags["nightly_benchmark"].topological_sort()]
    assert nightly == ["plan_night", *[f"cell.{name}" for name in release]]


def test_the_form_suggests_only_what_the_catalog_has(dags: dict[str, Any]) -> None:
    from include.catalog.loader import load_catalog

    catalog = load_catalog()
    params = dags["release_model"].params
    for name, known in (("model", catalog.models), ("cluster", catalog.clusters), ("workloads", catalog.workloads)):
        assert set(params.get_param(name).schema["examples"]) <= set(known), name


GUARD = """
import builtins, json, socket, sys
import airflow.sdk, pydantic
root = sys.argv[1]
def refuse(*args, **kwargs): raise RuntimeError(f"I/O while a Dag is parsed: {args}")
socket.socket.connect = refuse
real = builtins.open
def guarded(file, *args, **kwargs):
    name = str(file)
    if name.endswith((".yaml", ".yml", ".json", ".parquet", ".csv")): refuse(name)
    return real(file, *args, **kwargs)
builtins.open = guarded
before = set(sys.modules)
import importlib.util
spec = importlib.util.spec_from_file_location("dag_under_test", root)
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
print(json.dumps(sorted(name.partition(".")[0] for name in set(sys.modules) - before)))
"""


@pytest.mark.parametrize("dag_id", sorted(DAG_IDS))
def test_parsing_does_no_io_and_imports_nothing_heavy(dag_id: str, airflow_home: Path) -> None:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'plugins'}"}
    done = subprocess.run(
        [sys.executable, "-c", GUARD, str(ROOT / "dags" / f"{dag_id}.py")],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    loaded = set(json.loads(done.stdout.splitlines()[-1]))
    assert loaded.isdisjoint(HEAVY), loaded & set(HEAVY)


@pytest.mark.parametrize("minutes_past", [0, 1, 59])
@pytest.mark.parametrize("dag_id", ["judge_nights", "nightly_benchmark", "refresh_models"])
def test_unpausing_starts_nothing_before_the_schedule_says_so(
    dags: dict[str, Any], dag_id: str, minutes_past: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from airflow.serialization.serialized_objects import DagSerialization
    from airflow.timetables import trigger
    from airflow.timetables.base import TimeRestriction

    dag = DagSerialization.from_dict(DagSerialization.to_dict(dags[dag_id]))
    tick = dag.timetable._align_to_next(pendulum.now("UTC"))
    now = pendulum.instance(tick) + dt.timedelta(minutes=minutes_past, seconds=1)
    monkeypatch.setattr(trigger, "utcnow", lambda: now)
    restriction = TimeRestriction(earliest=dag.start_date, latest=None, catchup=dag.catchup)
    first = dag.timetable.next_dagrun_info(last_automated_data_interval=None, restriction=restriction)
    assert first is not None
    assert first.run_after > now
