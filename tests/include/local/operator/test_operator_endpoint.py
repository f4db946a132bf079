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


def test_load_balancer_serves_with_the_certificate_authority_from_s3(stack: Stack, weights, tmp_path) -> None:
    stack.send("POST", CONFIGS, endpoint("tls", tlsConfig={"tlsCertificateOutputS3Uri": "s3://weights/tls"}))
    status = wait_for_state(stack, "tls", "DeploymentComplete")
    tls = status["tlsCertificate"]
    ca = tmp_path / "ca.pem"
    ca.write_bytes(weights.get_object(Bucket="weights", Key=tls["tlsCertificateS3Keys"][0])["Body"].read())
    host = tls["certificateDomainNames"][0]
    answer = wait_for("alb", lambda: _post(f"https://{host}/v1/x", str(ca)))
    assert answer.json()["echo"] == "ping"
    with pytest.raises(requests.exceptions.SSLError):
        requests.post(f"https://{host}/v1/x", data=b"ping", timeout=5)
    stack.fault("tls", "alb-503")
    wait_for("503", lambda: requests.post(f"https://{host}/", data=b"", verify=str(ca), timeout=5).status_code == 503)
    assert status_of(stack, "tls")["state"] == "DeploymentComplete"
    stack.send("DELETE", f"{CONFIGS}/tls", {})
    wait_for("gone", lambda: stack.get(f"{CONFIGS}/tls") is None)
    assert stack.get(f"{INFERENCE}/namespaces/default/sagemakerendpointregistrations/tls") is None


def _post(url: str, ca: str):
    try:
        return requests.post(url, data=b"ping", verify=ca, timeout=5)
    except requests.ConnectionError:
        return None


def test_scales(stack: Stack, weights) -> None:
    stack.send("POST", CONFIGS, endpoint("scaled", sagemaker=False))
    wait_for_state(stack, "scaled", "DeploymentComplete")
    stack.send("PATCH", f"{CONFIGS}/scaled", {"spec": {"replicas": 2}})
    wait_for("two", lambda: (s := status_of(stack, "scaled"))["state"] == "DeploymentComplete" and s["replicas"] == 2)
    ports = {p["metadata"]["annotations"]["hyperpod-local/port.8080"] for p in stack.pods("scaled")}
    assert len(ports) == 2
    stack.send("DELETE", f"{CONFIGS}/scaled", {})
    wait_for("gone", lambda: stack.get(f"{CONFIGS}/scaled") is None and not stack.pods("scaled"))


def test_flipped_byte_names_the_file(stack: Stack, weights) -> None:
    key = "models/echo/1/files/model.bin"
    good = weights.get_object(Bucket="weights", Key=key)["Body"].read()
    weights.put_object(Bucket="weights", Key=key, Body=b"X" + good[1:])
    try:
        stack.send("POST", CONFIGS, endpoint("flipped"))

        def waiting():
            pods = stack.pods("flipped")
            states = [s["state"].get("waiting") or {} for p in pods for s in p["status"].get("containerStatuses") or ()]
            return next((s for s in states if s.get("reason") == "CreateContainerError"), None)

        assert "files/model.bin has sha256" in wait_for("refusal", waiting)["message"]
        assert "FailedMount" in stack.reasons("flipped-")
        assert status_of(stack, "flipped")["state"] == "DeploymentInProgress"
    finally:
        weights.put_object(Bucket="weights", Key=key, Body=good)
        stack.send("DELETE", f"{CONFIGS}/flipped", {})
    wait_for("gone", lambda: stack.get(f"{CONFIGS}/flipped") is None and not stack.pods("flipped"))


@pytest.mark.parametrize(
    ("kind", "params", "state", "seen"),
    [
        ("deployment-failed", {"message": "boom"}, "DeploymentFailed", "boom"),
        ("deploy-timeout", {"seconds": "0"}, "DeploymentFailed", "maxDeployTimeInSeconds"),
        ("tls-bucket-not-writable", {}, "DeploymentFailed", "not writable"),
        ("irsa-denied", {}, "DeploymentFailed", "AssumeRoleWithWebIdentity"),
        ("registration-failed", {}, "DeploymentComplete", "execution role for variant AllTraffic"),
        ("cert-download-timeout", {}, "DeploymentComplete", "Error downloading CA certificate"),
        ("stuck-registration", {}, "DeploymentComplete", "Creating endpoint"),
    ],
)
def test_operator_faults_are_told_and_cleaned_up(stack: Stack, weights, kind, params, state, seen) -> None:
    name = f"f-{kind}"[:40]
    rule = stack.fault(name, kind, **params)
    stack.send("POST", CONFIGS, endpoint(name))

    def told() -> str:
        registration = stack.get(f"{INFERENCE}/namespaces/default/sagemakerendpointregistrations/{name}") or {}
        status = status_of(stack, name)
        found = [*(status.get("conditions") or ()), *((registration.get("status") or {}).get("conditions") or ())]
        return " | ".join(c["message"] for c in found) if status.get("state") == state else ""

    assert wait_for(kind, lambda: seen in told() and told())
    stack.send("DELETE", f"{CONFIGS}/{name}", {})
    wait_for("gone", lambda: stack.get(f"{CONFIGS}/{name}") is None and not stack.pods(name))
    stack.clear_fault(rule)
