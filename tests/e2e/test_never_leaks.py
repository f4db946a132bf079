"""Endpoints that live and endpoints that must go: reaper, keep, two at once, killed processes."""

from __future__ import annotations

import datetime as dt
import os
import signal

import pytest

from include.catalog.loader import load_catalog
from include.catalog.plan import RunIdentity
from include.endpoint import names
from include.endpoint.__main__ import main as endpoint_command
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.lifecycle import create_endpoint
from include.endpoint.planning import make_plan
from include.endpoint.resources import ENDPOINT_CONFIGS
from include.local.demo import Stack, run_folder
from include.local.summary import read_run
from include.objects import Objects
from include.staging.api import StagingContext, resolve_revision, stage
from tests.e2e.running import run, start, wait_for_task, wait_until
from tests.workers import kill_workers

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]
RELEASE = {"model": "smollm2-135m", "workloads": ["smoke"]}


@pytest.fixture
def clients(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Clients:
    import boto3
    from kubernetes import config

    for name, value in stack.hyperpod.environment().items():
        monkeypatch.setenv(name, value)
    api = config.new_client_from_config(stack.hyperpod.environment()["KUBECONFIG"])
    return Clients(kube=api, session=boto3.Session(), region="us-west-2")


def endpoint_names(clients: Clients) -> set[str]:
    return {item["metadata"]["name"] for item in clients.api.list(ENDPOINT_CONFIGS, "default")}


def orphan(clients: Clients) -> str:
    """Make an endpoint as a run would that Airflow has never heard of."""
    catalog = load_catalog()
    model, cluster = catalog.model("smollm2-135m"), catalog.cluster("local")
    context = StagingContext(session=clients.session)
    revision = resolve_revision(model, context)
    staged = stage(model, revision, cluster.models_uri, context, owner="orphan")
    identity = RunIdentity(dag_id="release_model", run_id="never-existed", started_at=dt.datetime.now(dt.UTC))
    plan = make_plan(identity, model, cluster, (catalog.workload("smoke"),), revision, price_book=catalog.prices)
    return create_endpoint(plan, staged, clients, IntentLog(Objects.open(cluster.results_uri))).name


def test_the_reaper_takes_orphans_and_nothing_that_lives_or_is_kept(stack: Stack, clients: Clients) -> None:
    run_id = start(stack, "release_model", {**RELEASE, "after_benchmark": "keep", "ttl_hours": 1})
    wait_for_task(stack, "release_model", run_id, "benchmark", "running")
    lost = orphan(clients)
    state, _ = run(stack, "reap_endpoints", {})
    assert state == "success"
    (alive,) = endpoint_names(clients)
    assert alive != lost
    assert stack.follow("release_model", run_id, timeout=300) == "success"
    _, teardown = read_run(run_folder("release_model", run_id))
    assert (teardown["kept"], teardown["absent"]) == (True, False)
    assert run(stack, "reap_endpoints", {})[0] == "success"
    assert endpoint_names(clients) == {alive}, "a kept endpoint outlives its run"
    past = {"metadata": {"annotations": {names.EXPIRES_AT: "2026-01-01T00:00:00Z"}}}
    clients.api.patch(ENDPOINT_CONFIGS, alive, past, "default")
    assert run(stack, "reap_endpoints", {})[0] == "success"
    assert stack.leftovers() == []


def test_two_releases_of_one_model_at_once_do_not_touch_each_other(stack: Stack, clients: Clients) -> None:
    runs = [start(stack, "release_model", RELEASE) for _ in range(2)]
    wait_until("two endpoints at once", lambda: len(endpoint_names(clients)) == 2)
    assert [stack.follow("release_model", run_id, timeout=400) for run_id in runs] == ["success", "success"]
    ends = [read_run(run_folder("release_model", run_id)) for run_id in runs]
    assert len({record.endpoint["uid"] for record, _ in ends}) == 2
    assert all(teardown["absent"] for _, teardown in ends)
    assert all(len(record.results) == 3 for record, _ in ends)
    assert stack.leftovers() == []


def test_a_release_survives_the_kill_of_its_worker_while_it_creates(stack: Stack) -> None:
    run_id = start(stack, "release_model", RELEASE)
    wait_for_task(stack, "release_model", run_id, "create_endpoint", "running")
    assert kill_workers(stack)
    ended(stack, run_id)


def test_a_scheduler_killed_mid_benchmark_leaves_nothing_behind(stack: Stack) -> None:
    run_id = start(stack, "release_model", RELEASE)
    wait_for_task(stack, "release_model", run_id, "benchmark", "running")
    os.kill(stack.airflow.processes["scheduler"].pid, signal.SIGKILL)
    ended(stack, run_id)


def test_a_plan_that_is_spoiled_under_way_is_recorded_and_its_endpoint_torn_down(stack: Stack) -> None:
    run_id = start(stack, "release_model", {**RELEASE, "workloads": ["probe"]})
    wait_for_task(stack, "release_model", run_id, "wait_until_ready", "running")
    place = run_folder("release_model", run_id) / "plan.json"
    place.write_text(place.read_text().replace('"ttl_seconds": 14400', '"ttl_seconds": 14401'))
    ended(stack, run_id)
    record, _ = read_run(run_folder("release_model", run_id))
    assert (record.state, record.reason) == ("failed", "PlanUnreadable")


def test_a_deletion_that_takes_long_is_waited_for_without_a_worker(stack: Stack) -> None:
    run_id = start(stack, "release_model", {**RELEASE, "workloads": ["probe"]})
    wait_for_task(stack, "release_model", run_id, "benchmark", "running")
    rule = stack.faults.add_cluster("stuck-delete", "*", {}, times=None)
    wait_for_task(stack, "release_model", run_id, "teardown", "deferred")
    stack.faults.clear(rule.id)
    ended(stack, run_id)
    _, teardown = read_run(run_folder("release_model", run_id))
    assert "InferenceEndpointConfig" in {item["kind"] for item in teardown["objects"]}


def test_what_failed_is_held_for_debugging_until_it_is_given_back(stack: Stack, clients: Clients) -> None:
    rule = stack.faults.add_cluster("image-pull", "*", {"message": "manifest unknown"}, times=1)
    state, folder = run(stack, "release_model", {**RELEASE, "workloads": ["probe"], "hold_failed_hours": 1})
    stack.faults.clear(rule.id)
    assert state == "failed"
    assert read_run(folder)[1]["kept"] is True
    (held,) = endpoint_names(clients)
    assert run(stack, "reap_endpoints", {})[0] == "success"
    assert endpoint_names(clients) == {held}
    assert endpoint_command(["release", held]) == 0
    assert run(stack, "reap_endpoints", {})[0] == "success"
    assert stack.leftovers() == []


def ended(stack: Stack, run_id: str) -> None:
    """The run came to an end that is true: recorded, of the same colour, with a reason if red, and nothing left."""
    state = stack.follow("release_model", run_id, timeout=420)
    record, teardown = read_run(run_folder("release_model", run_id))
    assert record.state == state
    assert record.state == "success" or (record.failed_stage and record.reason and record.message)
    assert teardown["absent"] is True
    assert stack.leftovers() == []
