"""Deletions that go wrong, and an operator that dies: what stays behind, and that it is finished later."""

from __future__ import annotations

import hashlib
import json

import boto3
import pytest

from tests.include.local.stack import INFERENCE, Stack, endpoint, wait_for

CONFIGS = f"{INFERENCE}/namespaces/default/inferenceendpointconfigs"
OPERATOR = "apis/apps/v1/namespaces/hyperpod-inference-system/deployments/hyperpod-inference-controller-manager"


def client(stack: Stack, service: str):
    return boto3.client(
        service, endpoint_url=stack.environment["AWS_ENDPOINT_URL"], region_name="us-west-2",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def weights(stack: Stack) -> None:
    s3 = client(stack, "s3")
    s3.create_bucket(Bucket="weights", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    entry = {"path": "m.bin", "size": 1, "sha256": hashlib.sha256(b"w").hexdigest()}
    s3.put_object(Bucket="weights", Key="models/echo/1/files/m.bin", Body=b"w")
    s3.put_object(Bucket="weights", Key="models/echo/1/manifest.json", Body=json.dumps({"files": [entry]}).encode())


def state_of(stack: Stack, name: str) -> str:
    return str(((stack.get(f"{CONFIGS}/{name}") or {}).get("status") or {}).get("state", ""))


def registered(stack: Stack, name: str) -> bool:
    status = (stack.get(f"{CONFIGS}/{name}") or {}).get("status") or {}
    return ((status.get("endpoints") or {}).get("sagemaker") or {}).get("state") == "CreationCompleted"


def in_sagemaker(stack: Stack, name: str) -> bool:
    sagemaker = client(stack, "sagemaker")
    try:
        sagemaker.describe_endpoint(EndpointName=name)
    except sagemaker.exceptions.ClientError as error:
        if "Could not find" in str(error):
            return False
        raise
    return True


def deploy(stack: Stack, name: str, **spec) -> None:
    stack.send("POST", CONFIGS, endpoint(name, **spec))
    wait_for("registered", lambda: registered(stack, name))


def gone(stack: Stack, name: str) -> bool:
    return stack.get(f"{CONFIGS}/{name}") is None and not stack.pods(name)


def test_orphan_on_delete_leaves_the_sagemaker_objects(stack: Stack) -> None:
    rule = stack.fault("orphaned", "orphan-on-delete")
    deploy(stack, "orphaned")
    stack.send("DELETE", f"{CONFIGS}/orphaned", {})
    wait_for("gone", lambda: gone(stack, "orphaned"))
    assert in_sagemaker(stack, "orphaned")
    tags = client(stack, "sagemaker").list_tags(
        ResourceArn=client(stack, "sagemaker").describe_endpoint(EndpointName="orphaned")["EndpointArn"]
    )
    assert {"Key": "CreatedBy", "Value": "HyperPodInference"} in tags["Tags"]
    stack.clear_fault(rule)


@pytest.mark.parametrize(
    ("kind", "state"), [("stuck-delete", "DeletionInProgress"), ("delete-failed", "DeletionFailed")]
)
def test_a_held_deletion_goes_on_once_the_fault_is_lifted(stack: Stack, kind: str, state: str) -> None:
    rule = stack.fault(kind, kind)
    deploy(stack, kind)
    stack.send("DELETE", f"{CONFIGS}/{kind}", {})
    wait_for(state, lambda: state_of(stack, kind) == state)
    if kind == "stuck-delete":
        wait_for("workloads gone", lambda: not stack.pods(kind))
    assert stack.get(f"{CONFIGS}/{kind}") is not None
    stack.clear_fault(rule)
    wait_for("gone", lambda: gone(stack, kind))
    assert not in_sagemaker(stack, kind)


def test_operator_down_shows_and_recovers(stack: Stack) -> None:
    rule = stack.fault("*", "operator-down")
    wait_for("0 replicas", lambda: (stack.get(OPERATOR) or {})["status"].get("availableReplicas") == 0)
    stack.send("POST", CONFIGS, endpoint("waiting"))
    assert state_of(stack, "waiting") == ""
    stack.clear_fault(rule)
    wait_for("1 replica", lambda: (stack.get(OPERATOR) or {})["status"].get("availableReplicas") == 1)
    wait_for("registered", lambda: registered(stack, "waiting"))
    stack.send("DELETE", f"{CONFIGS}/waiting", {})
    wait_for("gone", lambda: gone(stack, "waiting"))


def test_killed_operator_finishes_what_it_began(stack: Stack) -> None:
    stack.send("POST", CONFIGS, endpoint("killed"))
    wait_for("begun", lambda: state_of(stack, "killed"))
    stack.kill("operator")
    stack.start("operator")
    wait_for("registered", lambda: registered(stack, "killed"))
    stack.kill("operator")
    stack.send("DELETE", f"{CONFIGS}/killed", {})
    assert stack.get(f"{CONFIGS}/killed")["metadata"]["deletionTimestamp"]
    stack.start("operator")
    wait_for("gone", lambda: gone(stack, "killed"))
    assert not in_sagemaker(stack, "killed")


def test_killed_api_server_is_found_again(stack: Stack) -> None:
    stack.kill("kube")
    stack.up("kube")
    deploy(stack, "after")
    stack.send("DELETE", f"{CONFIGS}/after", {})
    wait_for("gone", lambda: gone(stack, "after"))


def test_routing_makes_its_objects_in_the_system_namespace(stack: Stack) -> None:
    deploy(stack, "routed", intelligentRoutingSpec={"enabled": True, "routingStrategy": "prefixaware"})
    system = "namespaces/hyperpod-inference-system"
    router = f"apis/apps/v1/{system}/deployments/routed-default-router"
    ingress = f"apis/networking.k8s.io/v1/{system}/ingresses/alb-routed-default"
    assert stack.get(router)["status"]["readyReplicas"] == 1
    assert stack.get(ingress)["status"]["loadBalancer"]["ingress"]
    stack.send("DELETE", f"{CONFIGS}/routed", {})
    wait_for("gone", lambda: gone(stack, "routed"))
    assert stack.get(router) is None
    assert stack.get(ingress) is None


def test_invalid_combination_fails_with_its_reason(stack: Stack) -> None:
    stack.send("POST", CONFIGS, endpoint("both", instanceTypes=["ml.local.cpu"]))
    wait_for("failed", lambda: state_of(stack, "both") == "DeploymentFailed")
    conditions = stack.get(f"{CONFIGS}/both")["status"]["conditions"]
    assert "exactly one of" in next(c for c in conditions if c["type"] == "DeploymentFailed")["message"]
    stack.send("DELETE", f"{CONFIGS}/both", {})
    wait_for("gone", lambda: gone(stack, "both"))
