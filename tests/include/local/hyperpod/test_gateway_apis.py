"""The AWS APIs through boto3: SageMaker's objects, clusters, faults, credentials; kept across kills."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from botocore.exceptions import BotoCoreError, ClientError

from include.local.supervisor import LocalHyperPod
from tests.include.local.hyperpod.conftest import Client, until

pytestmark = pytest.mark.local
ROLE = "arn:aws:iam::123456789012:role/execution"
VARIANT = {"VariantName": "AllTraffic", "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}


def create(sagemaker: Any, name: str) -> None:
    sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "x"}, ExecutionRoleArn=ROLE)
    sagemaker.create_endpoint_config(EndpointConfigName=name, ProductionVariants=[{**VARIANT, "ModelName": name}])
    sagemaker.create_endpoint(EndpointName=name, EndpointConfigName=name, Tags=[{"Key": "owner", "Value": "me"}])


def remove(sagemaker: Any, name: str) -> None:
    sagemaker.delete_endpoint(EndpointName=name)
    sagemaker.delete_endpoint_config(EndpointConfigName=name)
    sagemaker.delete_model(ModelName=name)
    until("deleted", lambda: name not in {item["EndpointName"] for item in listed(sagemaker)})


def listed(sagemaker: Any) -> list[dict[str, Any]]:
    pages = sagemaker.get_paginator("list_endpoints").paginate()
    return [item for page in pages for item in page["Endpoints"]]


def status(sagemaker: Any, name: str) -> str:
    return str(sagemaker.describe_endpoint(EndpointName=name)["EndpointStatus"])


@pytest.fixture
def endpoint(client: Client) -> Iterator[str]:
    create(client("sagemaker"), "kept")
    yield "kept"
    remove(client("sagemaker"), "kept")


def code(call: Callable[..., Any], **arguments: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return str(caught.value.response["Error"]["Code"])


def test_an_endpoint_goes_through_its_states(client: Client) -> None:
    sagemaker = client("sagemaker")
    create(sagemaker, "lives")
    assert status(sagemaker, "lives") == "Creating"
    until("in service", lambda: status(sagemaker, "lives") == "InService")
    sagemaker.delete_endpoint(EndpointName="lives")
    assert status(sagemaker, "lives") == "Deleting"

    until("gone", lambda: "lives" not in {item["EndpointName"] for item in listed(sagemaker)})
    with pytest.raises(ClientError, match="Could not find endpoint") as caught:
        status(sagemaker, "lives")
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    sagemaker.delete_endpoint_config(EndpointConfigName="lives")
    sagemaker.delete_model(ModelName="lives")
    assert code(sagemaker.describe_model, ModelName="lives") == "ValidationException"


def test_endpoints_survive_a_killed_gateway(hyperpod: LocalHyperPod, client: Client, endpoint: str) -> None:
    before = client("sagemaker").describe_endpoint(EndpointName=endpoint)
    hyperpod.restart("aws")
    after = client("sagemaker").describe_endpoint(EndpointName=endpoint)
    assert (after["EndpointArn"], after["CreationTime"]) == (before["EndpointArn"], before["CreationTime"])
    assert client("sagemaker").list_tags(ResourceArn=after["EndpointArn"])["Tags"] == [{"Key": "owner", "Value": "me"}]


def test_a_second_endpoint_of_a_name_is_refused(client: Client, endpoint: str) -> None:
    call = client("sagemaker").create_endpoint
    assert code(call, EndpointName=endpoint, EndpointConfigName=endpoint) == "ValidationException"
    assert code(call, EndpointName="other", EndpointConfigName="absent") == "ValidationException"


def test_lists_are_paged_by_ten(client: Client) -> None:
    sagemaker = client("sagemaker")
    names = [f"page-{number:02}" for number in range(12)]
    for name in names:
        sagemaker.create_model(ModelName=name, PrimaryContainer={"Image": "x"}, ExecutionRoleArn=ROLE)
    first = sagemaker.list_models(NameContains="page-")
    assert len(first["Models"]) == 10
    pages = sagemaker.get_paginator("list_models").paginate(NameContains="page-", SortBy="Name", SortOrder="Ascending")
    assert [item["ModelName"] for page in pages for item in page["Models"]] == names
    for name in names:
        sagemaker.delete_model(ModelName=name)


@pytest.mark.parametrize("kind", ["endpoint-failed", "endpoint-stuck"])
def test_an_endpoint_that_never_serves(client: Client, fault: Callable[..., None], kind: str) -> None:
    sagemaker = client("sagemaker")
    fault(kind, operation="CreateEndpoint", times=1, params={"reason": "no capacity"})
    create(sagemaker, "broken")
    try:
        if kind == "endpoint-failed":
            until("failed", lambda: status(sagemaker, "broken") == "Failed")
            assert sagemaker.describe_endpoint(EndpointName="broken")["FailureReason"] == "no capacity"
        else:
            create(sagemaker, "sound")
            until("the next one is sound", lambda: status(sagemaker, "sound") == "InService")
            assert status(sagemaker, "broken") == "Creating"
            remove(sagemaker, "sound")
    finally:
        remove(sagemaker, "broken")


@pytest.mark.parametrize(
    ("kind", "json_code", "query_code"),
    [
        ("throttle", "ThrottlingException", "Throttling"),
        ("expired-token", "ExpiredTokenException", "ExpiredToken"),
        ("access-denied", "AccessDeniedException", "AccessDenied"),
        ("unavailable", "ServiceUnavailable", "ServiceUnavailable"),
    ],
)
def test_a_fault_hits_as_often_as_told_in_each_protocol(
    client: Client, fault: Callable[..., None], kind: str, json_code: str, query_code: str
) -> None:
    sagemaker, sts, cloudwatch = client("sagemaker"), client("sts"), client("cloudwatch")
    for service in ("sagemaker", "sts", "cloudwatch"):
        fault(kind, service=service, times=1)
    assert code(sagemaker.list_models) == json_code
    assert code(sts.get_caller_identity) == query_code
    assert code(cloudwatch.list_metrics) == json_code
    sagemaker.list_models(), sts.get_caller_identity(), cloudwatch.list_metrics()


def test_skip_lets_calls_pass_first(client: Client, fault: Callable[..., None]) -> None:
    fault("throttle", service="sagemaker", operation="ListModels", skip=2, times=1)
    call = client("sagemaker").list_models
    call(), call()
    assert code(call) == "ThrottlingException"
    call()


def test_a_reset_does_nothing_and_a_lost_answer_has_happened(client: Client, fault: Callable[..., None]) -> None:
    sagemaker = client("sagemaker")
    for kind, there in (("reset", False), ("lost-answer", True)):
        fault(kind, operation="CreateModel", times=1)
        with pytest.raises(BotoCoreError):
            sagemaker.create_model(ModelName=kind, PrimaryContainer={"Image": "x"}, ExecutionRoleArn=ROLE)
        found = [item["ModelName"] for item in sagemaker.list_models(NameContains=kind)["Models"]]
        assert found == ([kind] if there else [])
    sagemaker.delete_model(ModelName="lost-answer")


def test_faults_survive_a_killed_gateway_with_their_count(
    hyperpod: LocalHyperPod, client: Client, fault: Callable[..., None]
) -> None:
    fault("throttle", service="sagemaker", times=2)
    assert code(client("sagemaker").list_models) == "ThrottlingException"
    hyperpod.restart("aws")
    assert code(client("sagemaker").list_models) == "ThrottlingException"
    client("sagemaker").list_models()


def test_an_unknown_fault_is_refused(hyperpod: LocalHyperPod) -> None:
    url = f"{hyperpod.layout.url('aws')}/_local/faults"
    assert requests.post(url, json={"kind": "gremlins"}, timeout=10).status_code == 400
    assert requests.put(url, json=[{"kind": "throttle", "times": 0}], timeout=10).status_code == 400


@pytest.mark.parametrize(
    ("service", "call", "wrong_key", "wrong_secret"),
    [
        ("sagemaker", "list_models", "UnrecognizedClientException", "InvalidSignatureException"),
        ("sts", "get_caller_identity", "InvalidClientTokenId", "SignatureDoesNotMatch"),
        ("eks", "list_clusters", "UnrecognizedClientException", "InvalidSignatureException"),
    ],
)
def test_wrong_credentials_are_refused(
    client: Client, service: str, call: str, wrong_key: str, wrong_secret: str
) -> None:
    assert code(getattr(client(service, aws_access_key_id="AKIAWRONG"), call)) == wrong_key
    assert code(getattr(client(service, aws_secret_access_key="wrong"), call)) == wrong_secret


def test_an_unsigned_request_is_refused(hyperpod: LocalHyperPod) -> None:
    headers = {"X-Amz-Target": "SageMaker.ListModels"}
    answer = requests.post(hyperpod.layout.url("aws"), data=b"{}", headers=headers, timeout=10)
    assert answer.status_code == 403
    assert answer.json()["__type"] == "MissingAuthenticationTokenException"


def test_lent_credentials_and_presigned_urls_work(client: Client) -> None:
    lent = client("sts").assume_role(RoleArn=ROLE, RoleSessionName="session")["Credentials"]
    sts = client(
        "sts",
        aws_access_key_id=lent["AccessKeyId"],
        aws_secret_access_key=lent["SecretAccessKey"],
        aws_session_token=lent["SessionToken"],
    )
    assert ":assumed-role/" in sts.get_caller_identity()["Arn"]
    url = client("sts").generate_presigned_url("get_caller_identity", ExpiresIn=60, HttpMethod="GET")
    assert requests.get(url, timeout=10).status_code == 200


def test_the_cluster_leads_from_sagemaker_to_kubernetes(hyperpod: LocalHyperPod, client: Client) -> None:
    sagemaker, eks = client("sagemaker"), client("eks")
    arn = sagemaker.describe_cluster(ClusterName="hyperpod-local")["Orchestrator"]["Eks"]["ClusterArn"]
    cluster = eks.describe_cluster(name=arn.rpartition("/")[2])["cluster"]
    assert requests.get(f"{cluster['endpoint']}/readyz", timeout=10).status_code in (200, 401)
    (node,) = sagemaker.list_cluster_nodes(ClusterName="hyperpod-local")["ClusterNodeSummaries"]
    assert node["InstanceStatus"]["Status"] == "Running"
    addon = eks.describe_addon(clusterName="local", addonName="amazon-sagemaker-hyperpod-inference")["addon"]
    assert addon["status"] == "ACTIVE"
    assert code(eks.describe_cluster, name="absent") == "ResourceNotFoundException"
    assert code(sagemaker.describe_cluster, ClusterName="absent") == "ResourceNotFound"


def test_the_hub_has_models(client: Client) -> None:
    sagemaker = client("sagemaker")
    hub = {"HubName": "SageMakerPublicHub", "HubContentType": "Model"}
    name = sagemaker.list_hub_contents(**hub)["HubContentSummaries"][0]["HubContentName"]
    assert sagemaker.describe_hub_content(**hub, HubContentName=name)["HubContentStatus"] == "Available"
    assert code(sagemaker.describe_hub_content, **hub, HubContentName="absent") == "ResourceNotFound"


def test_the_rest_is_motos(client: Client) -> None:
    assert client("elbv2").describe_load_balancers()["LoadBalancers"] == []
    client("cloudwatch").put_metric_data(Namespace="n", MetricData=[{"MetricName": "m", "Value": 1}])
    assert client("cloudwatch").list_metrics(Namespace="n")["Metrics"][0]["MetricName"] == "m"
