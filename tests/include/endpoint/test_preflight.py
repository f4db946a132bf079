"""Preflight against a real API server: every failed check says what to do; nothing is created."""

from __future__ import annotations

import datetime as dt
import uuid
from typing import Any

import pytest
from kubernetes import client

from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.lifecycle import create_endpoint
from include.endpoint.model import Check
from include.endpoint.preflight import preflight
from include.endpoint.preflight.room import Demand, demand_of, node_room
from include.endpoint.resources import CSI_DRIVERS, DEPLOYMENTS, ENDPOINT_CONFIGS, NAMESPACES, NODES, SECRETS
from include.endpoint.teardown import teardown
from tests.include.endpoint.builders import cluster, model, plan, run
from tests.include.endpoint.conftest import set_status
from tests.include.local.stack import Stack

LOCAL = cluster(namespace="default", queue_name=None)
GPU = {"limits": {"nvidia.com/gpu": "1"}, "requests": {"nvidia.com/gpu": "1", "cpu": "4"}}


def new_plan(on: Any = LOCAL, **deployment: Any) -> ReleasePlan:
    return plan(model("tiny", **deployment), on, identity=run(f"t__{uuid.uuid4().hex}", dt.datetime.now(dt.UTC)))


def checks(planned: ReleasePlan, clients: Clients) -> dict[str, Check]:
    return {check.name: check for check in preflight(planned, clients).checks}


@pytest.fixture
def furnished(clients: Clients) -> Clients:
    """A cluster with an operator, a driver, one healthy node and the buckets."""
    if clients.api.get(NAMESPACES, names.OPERATOR_NAMESPACE) is None:
        clients.api.create(
            NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": names.OPERATOR_NAMESPACE}}
        )
    name = names.OPERATOR_DEPLOYMENTS[1]
    if clients.api.get(DEPLOYMENTS, name, names.OPERATOR_NAMESPACE) is None:
        pod = {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "manager", "image": "operator:v3.4"}]},
        }
        spec = {"selector": {"matchLabels": {"a": "b"}}, "template": pod}
        body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
        clients.api.create(DEPLOYMENTS, body, names.OPERATOR_NAMESPACE)
        driver = {
            "apiVersion": "storage.k8s.io/v1",
            "kind": "CSIDriver",
            "metadata": {"name": "s3.csi.aws.com"},
            "spec": {},
        }
        clients.api.create(CSI_DRIVERS, driver)
        labels = {"node.kubernetes.io/instance-type": "ml.g6e.2xlarge"}
        clients.api.create(
            NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "hyperpod-i-1", "labels": labels}}
        )
        amounts = {"cpu": "8", "memory": "60Gi", "nvidia.com/gpu": "1", "pods": "14"}
        ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
        set_status(
            clients, NODES, "hyperpod-i-1", {"allocatable": amounts, "capacity": amounts, "conditions": ready}, ""
        )
        for bucket in ("models", "hyperpod-tls-test"):
            where = {"LocationConstraint": "us-west-2"}
            clients.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
    set_status(clients, DEPLOYMENTS, name, {"availableReplicas": 1, "replicas": 1}, names.OPERATOR_NAMESPACE)
    return clients


def test_a_fitting_plan_passes_and_creates_nothing(furnished: Clients) -> None:
    planned = new_plan(resources=GPU)
    report = preflight(planned, furnished)
    assert report.failures == (), report.failures
    assert furnished.api.get(ENDPOINT_CONFIGS, planned.endpoint_name, "default") is None
    found = {check.name: check for check in report.checks}
    assert "v3.4" in found["operator alive"].observed
    assert found["image exists"].verdict == "skip"


def test_a_bare_cluster_fails_with_a_fix_for_each(clients: Clients, furnished: Clients) -> None:
    set_status(
        furnished, DEPLOYMENTS, names.OPERATOR_DEPLOYMENTS[1], {"availableReplicas": 0}, names.OPERATOR_NAMESPACE
    )
    where = cluster(namespace="nowhere", models_uri="s3://no-such-bucket/m", queue_name="missing-queue")
    planned = new_plan(
        where, instance_type="ml.p5.48xlarge", model_source="fsx", env={"T": {"secret": "none", "key": "k"}}
    )
    found = checks(planned, clients)
    failing = {name for name, check in found.items() if check.verdict == "fail"}
    assert {
        "operator alive",
        "CSI driver",
        "room on nodes",
        "dry run",
        "Secret none",
        "bucket of models_uri",
        "queue",
    } <= failing
    assert all(found[name].fix for name in failing)
    assert "ml.g6e.2xlarge" in found["room on nodes"].fix


def test_too_much_to_ask_says_what_is_free(furnished: Clients) -> None:
    check = checks(new_plan(resources=GPU, replicas=2), furnished)["room on nodes"]
    assert check.verdict == "fail"
    assert "room for 1" in check.observed
    assert "nvidia.com/gpu 1" in check.observed


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        ({"sagemaker.amazonaws.com/node-health-status": "UnschedulablePendingReplacement"}, "PendingReplacement"),
        ({"sagemaker.amazonaws.com/deep-health-check-status": "InProgress"}, "InProgress"),
    ],
)
def test_sick_nodes_are_no_room(furnished: Clients, labels: dict[str, str], why: str) -> None:
    furnished.api.patch(NODES, "hyperpod-i-1", {"metadata": {"labels": labels}})
    try:
        check = checks(new_plan(), furnished)["room on nodes"]
        assert check.verdict == "fail"
        assert why in check.observed
    finally:
        furnished.api.patch(NODES, "hyperpod-i-1", {"metadata": {"labels": dict.fromkeys(labels)}})


def test_a_field_that_the_cluster_does_not_know_is_named(furnished: Clients) -> None:
    planned = new_plan(load_balancer={"idle_timeout_seconds": 60})
    found = checks(planned, furnished)
    assert "idleTimeoutSeconds" in found["definition knows every field"].observed
    assert found["dry run"].verdict == "fail"


def test_a_taken_name_is_told_before_anything_is_spent(furnished: Clients, intents: IntentLog) -> None:
    planned = new_plan()
    ref = create_endpoint(planned, None, furnished, intents)
    assert checks(planned, furnished)["name free"].verdict == "pass", "our own earlier try is no obstacle"
    furnished.api.patch(ENDPOINT_CONFIGS, ref.name, {"metadata": {"labels": {names.OWNER: "run-other"}}}, "default")
    assert checks(planned, furnished)["name free"].verdict == "fail"
    furnished.api.patch(ENDPOINT_CONFIGS, ref.name, {"metadata": {"labels": {names.OWNER: ref.owner}}}, "default")
    teardown(ref, furnished, intents, patience_s=10)


def test_secrets_are_looked_for_by_key_and_never_shown(furnished: Clients) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hf"}, "data": {"token": "aGZfc2VjcmV0"}}
    furnished.api.create(SECRETS, body, "default")
    report = preflight(
        new_plan(env={"A": {"secret": "hf", "key": "token"}, "B": {"secret": "hf", "key": "other"}}), furnished
    )
    verdicts = [check.verdict for check in report.checks if check.name == "Secret hf"]
    assert verdicts == ["pass", "fail"]
    assert "aGZfc2VjcmV0" not in report.model_dump_json()


def test_missing_rights_are_named_in_one_check(servers: Stack, furnished: Clients) -> None:
    import requests

    answer = requests.post(servers.url("_local/users"), json={"name": "nobody", "groups": []}, timeout=5)
    configuration = client.Configuration()
    configuration.host = servers.url("").rstrip("/")
    configuration.api_key = {"authorization": f"Bearer {answer.json()['token']}"}
    weak = Clients(kube=client.ApiClient(configuration), session=furnished.session, region="us-west-2")
    check = checks(new_plan(), weak)["identity allowed"]
    assert check.verdict == "fail"
    assert "create inferenceendpointconfigs" in check.observed
    assert "rbac.yaml" in check.fix


def test_an_unreachable_api_is_one_failure(furnished: Clients) -> None:
    configuration = client.Configuration()
    configuration.host = "http://127.0.0.1:9"
    gone = Clients(kube=client.ApiClient(configuration), session=None, region="us-west-2")
    gone.api._patience_s = 0.1
    report = preflight(new_plan(), gone)
    assert [check.verdict for check in report.checks] == ["fail"]


def test_room_counts_what_runs_already() -> None:
    node = {"metadata": {"name": "n"}, "status": {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "3"}}}
    container = {"resources": {"requests": {"cpu": "1500m", "memory": "1Gi"}}}
    pods = [
        {"spec": {"nodeName": "n", "containers": [container]}, "status": {"phase": "Running"}},
        {"spec": {"nodeName": "n", "containers": [container]}, "status": {"phase": "Succeeded"}},
        {"spec": {"nodeName": "other", "containers": [container]}},
    ]
    room = node_room(node, pods)
    assert room.slots == 2
    assert room.fits(Demand(1, {"cpu": room.free["cpu"]})) == 1
    assert str(room.free["cpu"]) == "2.500"
    assert room.fits(demand_of(new_plan(resources={"requests": {"cpu": "500m"}}))) == 2


def test_an_operator_that_is_starting_again_is_asked_once_more_and_one_that_is_absent_is_not(
    furnished: Clients,
) -> None:
    planned = new_plan(resources=GPU)
    set_status(
        furnished, DEPLOYMENTS, names.OPERATOR_DEPLOYMENTS[1], {"availableReplicas": 0}, names.OPERATOR_NAMESPACE
    )
    resting = preflight(planned, furnished).error("PreflightFailed")
    assert resting is not None
    assert resting.retryable
    for name in names.OPERATOR_DEPLOYMENTS:
        item = furnished.api.get(DEPLOYMENTS, name, names.OPERATOR_NAMESPACE)
        if item is not None:
            furnished.api.delete(DEPLOYMENTS, name, names.OPERATOR_NAMESPACE, uid=item["metadata"]["uid"])
    absent = preflight(planned, furnished).error("PreflightFailed")
    assert absent is not None
    assert not absent.retryable
