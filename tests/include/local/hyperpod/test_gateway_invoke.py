"""InvokeEndpoint, whole and streamed, down to a real model in a pod that the operator made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from include.local.kubeaccess import KubeAccess
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


def test_the_models_refusal_is_a_model_error(runtime: Any, endpoint: str) -> None:
    with pytest.raises(runtime.exceptions.ModelError) as caught:
        runtime.invoke_endpoint(EndpointName=endpoint, ContentType="application/json", Body=b'{"x": 1}')
    assert caught.value.response["OriginalStatusCode"] == 400
    assert "messages" in caught.value.response["OriginalMessage"]


def test_an_endpoint_that_does_not_exist_is_not_answered_for(client: Client) -> None:
    with pytest.raises(ClientError, match="not found") as caught:
        client("sagemaker-runtime").invoke_endpoint(EndpointName="absent", Body=b"{}")
    assert caught.value.response["Error"]["Code"] == "ValidationError"
