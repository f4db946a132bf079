"""An endpoint from its custom resource to serving and back to nothing, on a real small cluster."""

from __future__ import annotations

import hashlib
import json

import boto3
import pytest
import requests

from tests.include.local.stack import INFERENCE, Stack, endpoint, wait_for

CONFIGS = f"{INFERENCE}/namespaces/default/inferenceendpointconfigs"


@pytest.fixture(scope="module")
def weights(stack: Stack):
    """A staged model of two small files."""
    client = boto3.client(
        "s3", endpoint_url=stack.environment["AWS_ENDPOINT_URL"], region_name="us-west-2",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    client.create_bucket(Bucket="weights", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    files = {"model.bin": b"weights" * 1000, "sub/config.json": b"{}"}
    listed = [
        {"path": path, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for path, data in files.items()
    ]
    for path, data in files.items():
        client.put_object(Bucket="weights", Key=f"models/echo/1/files/{path}", Body=data)
    client.put_object(Bucket="weights", Key="models/echo/1/manifest.json", Body=json.dumps({"files": listed}).encode())
    return client


def status_of(stack: Stack, name: str) -> dict:
    return (stack.get(f"{CONFIGS}/{name}") or {}).get("status") or {}


def wait_for_state(stack: Stack, name: str, state: str, seconds: float = 30) -> dict:
    return wait_for(f"{name} {state}", lambda: (s := status_of(stack, name)).get("state") == state and s, seconds)


def test_deploys_serves_and_goes_away(stack: Stack, weights) -> None:
    stack.send("POST", CONFIGS, endpoint("happy"))
    status = wait_for_state(stack, "happy", "DeploymentComplete")
    assert status["observedGeneration"] == stack.get(f"{CONFIGS}/happy")["metadata"]["generation"]
    wait_for("registered", lambda: status_of(stack, "happy")["endpoints"]["sagemaker"]["state"] == "CreationCompleted")
    answer = requests.post(
        stack.url("api/v1/namespaces/default/services/happy-routing-service:http/proxy/x"), data=b"hello", timeout=5
    )
    assert answer.json()["echo"] == "hello"
    facts = requests.get(
        stack.url("api/v1/namespaces/default/services/happy-routing-service:http/proxy/"), timeout=5
    ).json()
    assert facts["files"] == ["model.bin", "sub/config.json"]
    assert {"Scheduled", "Pulled", "Created", "Started"} <= stack.reasons("happy-")
    stack.send("DELETE", f"{CONFIGS}/happy", {})
    wait_for("gone", lambda: stack.get(f"{CONFIGS}/happy") is None)
    wait_for("no pod", lambda: not stack.pods("happy"))
    with pytest.raises(requests.RequestException):
        requests.get(f"http://127.0.0.1:{facts['env']['HYPERPOD_LOCAL_PORT_8080']}/", timeout=1)
