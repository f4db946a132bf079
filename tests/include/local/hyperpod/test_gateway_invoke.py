"""InvokeEndpoint, whole and streamed, down to a real model in a pod that the operator made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
from include.loadtest.api import Target, run_load
from include.local.kubeaccess import KubeAccess
from include.local.s3 import ACCESS_KEY, REGION, SECRET_KEY
from include.local.supervisor import LocalHyperPod
from include.local.weights import smollm2
from tests.include.local.hyperpod.conftest import Client, until

pytestmark = pytest.mark.local
GROUP = "apis/inference.sagemaker.aws.amazon.com/v1/namespaces/default/inferenceendpointconfigs"
BODY = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 6, "temperature": 0}


def resource() -> dict[str, Any]:
    source = {
        "modelSourceType": "s3", "modelLocation": "invoke",
        "s3Storage": {"bucketName": "hyperpod-models", "region": "us-west-2"},
    }  # fmt: skip
    worker = {
        "image": "hyperpod.local/llama-cpp:1",
        "args": ["--served-model-name", "smol"],
        "modelInvocationPort": {"containerPort": 8080, "name": "http"},
        "modelVolumeMount": {"name": "model-weights", "mountPath": "/opt/ml/model"},
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}, "limits": {"cpu": "1"}},
    }
    spec = {
        "modelName": "smol", "endpointName": "invoke-ep", "instanceType": "ml.local.cpu", "replicas": 1,
        "modelSourceConfig": source, "worker": worker,
    }  # fmt: skip
    return {
        "apiVersion": "inference.sagemaker.aws.amazon.com/v1",
        "kind": "InferenceEndpointConfig",
        "metadata": {"name": "invoke", "namespace": "default"},
        "spec": spec,
    }


@pytest.fixture(scope="module")
def endpoint(hyperpod: LocalHyperPod) -> Iterator[str]:
    """The SageMaker name of an endpoint in service."""
    from include.local import s3

    kube = KubeAccess.read(hyperpod.layout.kubeconfig)
    s3.client(hyperpod.ports["s3"]).upload_file(str(smollm2()), "hyperpod-models", "invoke/model.gguf")
    kube.call("POST", GROUP, resource())

    def registered() -> bool:
        status = kube.call("GET", f"{GROUP}/invoke").get("status") or {}
        return (status.get("endpoints") or {}).get("sagemaker", {}).get("state") == "CreationCompleted"

    until("registered", registered, 90)
    yield "invoke-ep"
    kube.call("DELETE", f"{GROUP}/invoke")
    until("endpoint gone", lambda: hyperpod.endpoints() == [])


@pytest.fixture
def runtime(client: Client, endpoint: str) -> Any:
    sagemaker = client("sagemaker")
    until("in service", lambda: sagemaker.describe_endpoint(EndpointName=endpoint)["EndpointStatus"] == "InService")
    return client("sagemaker-runtime")


def test_invoke_endpoint_reaches_the_model(runtime: Any, endpoint: str) -> None:
    answer = runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=json.dumps(BODY))
    assert answer["InvokedProductionVariant"] == "AllTraffic"
    assert json.loads(answer["Body"].read())["usage"]["completion_tokens"] == 6


def test_a_response_stream_is_the_models_own_stream(runtime: Any, endpoint: str) -> None:
    body = json.dumps({**BODY, "stream": True})
    answer = runtime.invoke_endpoint_with_response_stream(
        EndpointName=endpoint, ContentType="application/json", Body=body
    )
    parts = [event["PayloadPart"]["Bytes"] for event in answer["Body"]]
    lines = [line for line in b"".join(parts).split(b"\n") if line]
    assert len(parts) > 1
    assert lines[-1] == b"data: [DONE]"
    assert all(json.loads(line.removeprefix(b"data: ")) for line in lines[:-1])


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("body_format", ["openai-chat", "djl"])
def test_the_load_engine_measures_through_the_gateway(
    hyperpod: LocalHyperPod, runtime: Any, endpoint: str, tmp_path: Path, stream: bool, body_format: str
) -> None:
    """Signed requests, whole and as an event stream, in the shapes of OpenAI and of DJL."""
    session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)
    target = Target(
        base_url=hyperpod.layout.url("aws"), model="smol", protocol="sagemaker", endpoint_name=endpoint, region=REGION,
        stream=stream, body_format=body_format,
    )  # fmt: skip
    check(target, tmp_path, session=session)


@pytest.mark.parametrize(
    ("protocol", "stream"),
    [("openai-chat", True), ("openai-completions", True), ("openai-completions", False), ("invocations", True)],
)
def test_the_load_engine_measures_the_model_server_itself(
    hyperpod: LocalHyperPod, endpoint: str, tmp_path: Path, protocol: str, stream: bool
) -> None:
    kube = KubeAccess.read(hyperpod.layout.kubeconfig)
    found = kube.call("GET", "api/v1/namespaces/default/endpoints/invoke-routing-service")["subsets"][0]
    url = f"http://{found['addresses'][0]['ip']}:{found['ports'][0]['port']}"
    check(Target(base_url=url, model="smol", protocol=protocol, stream=stream), tmp_path)


def check(target: Target, folder: Path, **more: Any) -> None:
    load = LoadSpec(mode="closed", concurrency=2, requests=4)
    workload = WorkloadSpec(
        name="w", prompts=(PromptSpec(input_tokens=16, output_tokens=6),), loads=(load,), warmup_requests=1
    )
    outcome = run_load(target, workload, load, out_dir=folder, salt="gateway", **more)
    found = outcome.statistics
    assert (found.requests_ok, found.failures) == (4, {})
    if target.body_format != "djl":  # its answers state no number of tokens here
        assert found.output_tokens == 24
    assert found.ttft_ms.count == (4 if target.stream else 0)


def test_the_models_refusal_is_a_model_error(runtime: Any, endpoint: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=b'{"x": 1}')
    assert caught.value.response["OriginalStatusCode"] == 400
    assert "messages" in caught.value.response["OriginalMessage"]


def test_an_endpoint_that_does_not_exist_is_not_answered_for(client: Client) -> None:
    with pytest.raises(ClientError, match="not found") as caught:
        client("sagemaker-runtime").invoke_endpoint(EndpointName="absent", Body=b"{}")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
