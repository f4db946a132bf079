"""More rows of the failure catalogue, and the sources other than S3."""

from __future__ import annotations

import hashlib
import json

import boto3
import pytest
import requests

from tests.include.local.stack import INFERENCE, Stack, endpoint, wait_for

CONFIGS = f"{INFERENCE}/namespaces/default/inferenceendpointconfigs"
JUMPSTART = f"{INFERENCE}/namespaces/default/jumpstartmodels"


@pytest.fixture(scope="module", autouse=True)
def weights(stack: Stack) -> None:
    s3 = boto3.client(
        "s3", endpoint_url=stack.environment["AWS_ENDPOINT_URL"], region_name="us-west-2",
        aws_access_key_id="test", aws_secret_access_key="test",
    )  # fmt: skip
    manifest = {"files": [{"path": "m.bin", "size": 1, "sha256": hashlib.sha256(b"w").hexdigest()}]}
    place = {"CreateBucketConfiguration": {"LocationConstraint": "us-west-2"}}
    for bucket, prefix in (("weights", "models/echo/1"), ("jumpstart-local", "tiny/1.0.0")):
        s3.create_bucket(Bucket=bucket, **place)
        s3.put_object(Bucket=bucket, Key=f"{prefix}/files/m.bin", Body=b"w")
        s3.put_object(Bucket=bucket, Key=f"{prefix}/manifest.json", Body=json.dumps(manifest).encode())
    fsx = stack.state / "fsx" / "fs-0123456789abcdef0" / "models" / "echo"
    (fsx / "files").mkdir(parents=True)
    (fsx / "files" / "m.bin").write_bytes(b"w")
    (fsx / "manifest.json").write_text(json.dumps(manifest))


def status_of(stack: Stack, name: str, path: str = CONFIGS) -> dict:
    return (stack.get(f"{path}/{name}") or {}).get("status") or {}


def containers(stack: Stack, name: str) -> list[dict]:
    return [s for p in stack.pods(name) for s in (p.get("status") or {}).get("containerStatuses") or ()]


def reason(stack: Stack, name: str) -> str:
    found = [(c["state"].get("waiting") or {}).get("reason", "") for c in containers(stack, name)]
    return found[0] if found else ""


def log(stack: Stack, name: str) -> str:
    pods = stack.pods(name)
    if not pods:
        return ""
    answer = requests.get(stack.url(f"api/v1/namespaces/default/pods/{pods[0]['metadata']['name']}/log"), timeout=5)
    return answer.text if answer.ok else ""


def complete(stack: Stack, name: str, path: str = CONFIGS) -> dict:
    def check():
        status = status_of(stack, name, path)
        return status.get("state") == "DeploymentComplete" and status

    return wait_for(f"{name} complete", check)


def remove(stack: Stack, name: str, path: str = CONFIGS) -> None:
    stack.send("DELETE", f"{path}/{name}", {})
    wait_for("gone", lambda: stack.get(f"{path}/{name}") is None and not stack.pods(name), 45)


@pytest.mark.parametrize(
    ("kind", "events", "text"),
    [
        ("image-pull", {"Failed", "BackOff"}, "pull access denied"),
        ("too-many-pods", {"FailedScheduling"}, "Too many pods"),
        ("ip-exhausted", {"FailedCreatePodSandBox"}, "failed to assign an IP address"),
        ("mount-failed", {"FailedMount"}, "MountVolume.SetUp failed"),
        ("config-error", {"Failed"}, "not found"),
        ("cuda-oom", {"BackOff"}, "CUDA out of memory"),
        ("engine-dead", {"BackOff"}, "EngineDeadError"),
        ("driver-too-old", {"BackOff"}, "driver on your system is too old"),
        ("not-ready", {"Unhealthy"}, "statuscode: 503"),
        ("no-kv-transfer", {"Started"}, "Retrieved 0 of 512"),
    ],
)
def test_pod_faults_are_seen_where_the_catalogue_says(stack: Stack, kind: str, events: set[str], text: str) -> None:
    rule = stack.fault(f"p-{kind}", kind)
    stack.send("POST", CONFIGS, endpoint(f"p-{kind}", sagemaker=False))
    wait_for("events", lambda: stack.reasons(f"p-{kind}-") >= events)

    def told() -> bool:
        found = stack.items("api/v1/namespaces/default/events")
        messages = [e["message"] for e in found if e["involvedObject"]["name"].startswith(f"p-{kind}-")]
        return any(text in message for message in [*messages, log(stack, f"p-{kind}")])

    wait_for(text, told)
    stack.clear_fault(rule)
    complete(stack, f"p-{kind}")
    remove(stack, f"p-{kind}")


def test_crash_after_ready_is_one_restart(stack: Stack) -> None:
    rule = stack.fault("crashing", "crash-after-ready")
    stack.send("POST", CONFIGS, endpoint("crashing", sagemaker=False))
    wait_for("restart", lambda: any(c["restartCount"] == 1 and c["ready"] for c in containers(stack, "crashing")))
    assert containers(stack, "crashing")[0]["lastState"]["terminated"]["exitCode"] == 139
    remove(stack, "crashing")
    stack.clear_fault(rule)


def test_hanging_server_is_stopped_and_still_ends_with_its_pod(stack: Stack) -> None:
    rule = stack.fault("hanging", "hang")
    stack.send("POST", CONFIGS, endpoint("hanging", sagemaker=False))
    wait_for(
        "unready", lambda: "Unhealthy" in stack.reasons("hanging-") and not containers(stack, "hanging")[0]["ready"]
    )
    remove(stack, "hanging")
    stack.clear_fault(rule)


@pytest.mark.parametrize("kind", ["wrong-image", "wrong-image-digest", "wrong-replicas"])
def test_a_wrong_thing_is_deployed_as_if_it_were_right(stack: Stack, kind: str) -> None:
    given = {"image": "hyperpod.local/echo:2"} if kind == "wrong-image" else {}
    rule = stack.fault(kind, kind, **given)
    stack.send("POST", CONFIGS, endpoint(kind, sagemaker=False, replicas=2))
    complete(stack, kind)
    found = containers(stack, kind)
    assert {c["image"] for c in found} == {given.get("image", "hyperpod.local/echo:1")}
    assert all(("sha256:000" in c["imageID"]) == (kind == "wrong-image-digest") for c in found)
    assert len(found) == (1 if kind == "wrong-replicas" else 2)
    remove(stack, kind)
    stack.clear_fault(rule)


def test_queue_holds_the_endpoint_until_it_is_admitted(stack: Stack) -> None:
    rule = stack.fault("queued", "kueue-not-admitted")
    item = endpoint("queued", sagemaker=False)
    item["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "team-a"}
    stack.send("POST", CONFIGS, item)
    path = "apis/kueue.x-k8s.io/v1beta1/namespaces/default/workloads/deployment-queued"

    def admitted(value: str) -> bool:
        conditions = ((stack.get(path) or {}).get("status") or {}).get("conditions") or ()
        return any(c["type"] == "Admitted" and c["status"] == value for c in conditions)

    wait_for("refused", lambda: admitted("False"))
    assert status_of(stack, "queued")["state"] == "DeploymentPending"
    assert not stack.pods("queued")
    stack.clear_fault(rule)
    complete(stack, "queued")
    assert admitted("True")
    remove(stack, "queued")


def test_failed_download_from_the_hub_fails_the_deployment(stack: Stack) -> None:
    rule = stack.fault("hub", "hf-download-failed")
    source = {"modelSourceType": "huggingface", "huggingFaceModel": {"modelId": "org/model", "commitSHA": "a" * 40}}
    stack.send("POST", CONFIGS, endpoint("hub", sagemaker=False, modelSourceConfig=source))
    wait_for("failed", lambda: status_of(stack, "hub").get("state") == "DeploymentFailed")
    assert "HuggingFaceDownloadFailed" in stack.reasons("hub")
    remove(stack, "hub")
    stack.clear_fault(rule)


def test_file_system_source(stack: Stack) -> None:
    storage = {"fileSystemId": "fs-0123456789abcdef0"}
    source = {"modelSourceType": "fsx", "modelLocation": "models/echo/files", "fsxStorage": storage}
    stack.send("POST", CONFIGS, endpoint("lustre", sagemaker=False, modelSourceConfig=source))
    complete(stack, "lustre")
    url = stack.url("api/v1/namespaces/default/services/lustre-routing-service:http/proxy/")
    assert requests.get(url, timeout=5).json()["files"] == ["m.bin"]
    remove(stack, "lustre")


def test_jumpstart_model_without_its_weights_waits_and_says_so(stack: Stack) -> None:
    spec = {
        "model": {"modelId": "absent", "modelVersion": "1.0.0", "acceptEula": True},
        "server": {"instanceType": "ml.local.cpu"},
    }
    meta = {"name": "jump", "namespace": "default"}
    kind = {"apiVersion": "inference.sagemaker.aws.amazon.com/v1", "kind": "JumpStartModel"}
    stack.send("POST", JUMPSTART, {**kind, "metadata": meta, "spec": spec})
    wait_for("mount refused", lambda: "FailedMount" in stack.reasons("jump-"))
    assert status_of(stack, "jump", JUMPSTART)["state"] == "DeploymentInProgress"
    remove(stack, "jump", JUMPSTART)


def test_autoscaling_and_cache_are_rendered(stack: Stack) -> None:
    trigger = {"name": "t", "namespace": "AWS/SageMaker", "metricName": "Invocations", "targetValue": 4}
    level2 = {"l2CacheBackend": "tieredstorage"}
    spec = {
        "autoScalingSpec": {"minReplicaCount": 0, "maxReplicaCount": 3, "cloudWatchTrigger": trigger},
        "kvCacheSpec": {
            "enableL1Cache": True,
            "enableL2Cache": True,
            "l2CacheSpec": level2,
        },
    }
    stack.send("POST", CONFIGS, endpoint("scaling", sagemaker=False, **spec))
    complete(stack, "scaling")
    scaled = stack.get("apis/keda.sh/v1alpha1/namespaces/default/scaledobjects/scaling-scaled-object")
    assert (scaled["spec"]["minReplicaCount"], scaled["spec"]["maxReplicaCount"]) == (0, 3)
    env = {e["name"]: e.get("value") for e in stack.pods("scaling")[0]["spec"]["containers"][0]["env"]}
    assert env["LMCACHE_L2_BACKEND"] == "tieredstorage"
    remove(stack, "scaling")
    assert stack.get("apis/keda.sh/v1alpha1/namespaces/default/scaledobjects/scaling-scaled-object") is None
