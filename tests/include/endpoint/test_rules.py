"""Wrong deployments are refused before any call: each with the field, the value and what to do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from pydantic import ValidationError

from include.endpoint.schema import check
from include.errors import ConfigurationError
from tests.include.endpoint.builders import COMMIT, cluster, model, plan
from tests.include.endpoint.configurations import CAPTURE, INVOCATIONS, QUEUE_DEPTH, SCALING, SEED

ARN = "arn:aws:acm:us-west-2:111122223333:certificate/0a1b2c3d"
JUMPSTART = {"kind": "JumpStartModel", "instance_type": "ml.g5.2xlarge"}
DIRECT = {"kind": "direct", "sagemaker_endpoint": False}

# deployment options, field that must be named, part of the fix
WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"instance_types": ["ml.g5.2xlarge"]}, "instance_type", "keep only one"),
    ({"node_affinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}}, "node_affinity", "keep only one"),
    ({"instance_type": None}, "instance_type", "set one of"),
    ({"instance_type": "ml.g5"}, "instance_type", "ml.<family>.<size>"),
    ({"instance_type": None, "instance_types": ["ml.g5.2xlarge", "ml.g5.2xlarge"]}, "instance_types[1]", "twice"),
    ({"replicas": 0}, "replicas", "at least 1"),
    ({"resources": {"requests": {"nvidia.com/gpu": "1"}}}, "limits.nvidia.com/gpu", "set it to the request"),
    (
        {"resources": {"requests": {"nvidia.com/gpu": "1"}, "limits": {"nvidia.com/gpu": "2"}}},
        "requests.nvidia.com/gpu",
        "equal the limit",
    ),
    ({"resources": {"limits": {"nvidia.com/gpu": "0.5"}}}, "limits.nvidia.com/gpu", "whole number"),
    ({"resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/mig-1g.10gb": "1"}}}, "nvidia.com/gpu", "not both"),
    ({"resources": {"limits": {"memory": "lots"}}}, "worker.resources.limits.memory", "must match"),
    ({"image": "vllm:0.11-cu129", "instance_type": "ml.g5.2xlarge"}, "image", "cu128 or cu124"),
    ({"image": None}, "image", "required"),
    ({"fsx": {}}, "fsx", "only for model_source fsx"),
    ({"huggingface": {}}, "huggingface", "only for model_source huggingface"),
    ({"model_source": "fsx", "fsx": {"file_system_id": "fsx-1"}}, "fsx.file_system_id", "fs-0123456789abcdef0"),
    ({"model_source": "huggingface", "model_location": "x"}, "model_location", "remove it"),
    ({"model_source": "kubernetesVolume"}, "kubernetes.volumes", "add a volume named"),
    ({"kubernetes": {"volumes": [{"name": "model-weights", "emptyDir": {}}]}}, "kubernetes.volumes", "rename"),
    ({"kubernetes": {"volumes": [{"name": "v", "emptydir": {}}]}}, "kubernetes.volumes[0].emptydir", "emptyDir"),
    ({"kubernetes": {"init_containers": [{"name": "a"}, {"name": "a"}]}}, "init_containers[1].name", "unique"),
    ({"kubernetes": {"scheduler_name": "No Good"}}, "kubernetes.schedulerName", "must match"),
    ({"args": ["--served-model-name", "other"], "served_model_name": "mine"}, "served_model_name", "'other'"),
    ({"args": ["--served-model-name=other"]}, "served_model_name", "set it to 'other'"),
    ({"args": ["/opt/ml/model"], "volume": {"mount_path": "/models"}}, "args[0]", "/models"),
    ({"volume": {"mount_path": "models"}}, "volume.mount_path", "absolute"),
    ({"env": {"HF_TOKEN": "hf_x"}}, "env.HF_TOKEN", "{secret: <name>, key: <key>}"),
    ({"env": {"9 lives": "x"}}, "env.9 lives", "legal"),
    ({"health_path": "ping"}, "health_path", "start with /"),
    ({"invocation_path": "/v1/chat/completions"}, "invocation_path", "without a leading /"),
    ({"request_limits": {"max_concurrent_requests": 1}, "metrics": {"enabled": False}}, "metrics.enabled", "true"),
    ({"request_limits": {"max_queue_size": 1}}, "max_concurrent_requests", "at once"),
    ({"engine": "djl", "kv_cache": {}}, "engine", "needs vllm"),
    ({"engine": "sglang", "routing": "kvaware", "env": SEED, "invocation_path": "v1/completions"}, "engine", "vllm"),
    ({"routing": "kvaware", "env": SEED}, "invocation_path", "v1/completions"),
    ({"routing": "kvaware", "invocation_path": "v1/completions"}, "env.PYTHONHASHSEED", '"123"'),
    ({"kv_cache": {"l2": "tieredstorage"}}, "env.PYTHONHASHSEED", "same number"),
    ({"kv_cache": {"l2": "redis"}, "env": SEED}, "kv_cache.l2_url", "redis://host:port"),
    ({"kv_cache": {"l2": "tieredstorage", "l2_url": "redis://x:1"}, "env": SEED}, "kv_cache.l2_url", "remove it"),
    ({"kv_cache": {"l2": "tieredstorage", "config_file": "/f"}, "env": SEED}, "kv_cache.config_file", "keep one"),
    ({"router_autoscaling": SCALING}, "router_autoscaling", "set routing"),
    ({"routing": "session", "inference_gateway": {}}, "routing", "excludes inference_gateway"),
    ({"autoscaling": {}}, "autoscaling", "add a cloudwatch or a prometheus trigger"),
    (
        {"autoscaling": {"min_replica_count": 6, "prometheus": [QUEUE_DEPTH]}},
        "autoscaling.min_replica_count",
        "max_replica_count = 5",
    ),
    ({"autoscaling": {"min_replica_count": 0, "prometheus": [QUEUE_DEPTH]}}, "min_replica_count", "waking up"),
    (
        {"autoscaling": {"cloudwatch": [{**INVOCATIONS, "metric_collection_period": 45}]}},
        "cloudwatch[0].metric_collection_period",
        "multiple of 60",
    ),
    ({"autoscaling": {"cloudwatch": [{**INVOCATIONS, "target_value": 0}]}}, "cloudwatch[0].target_value", "than 0"),
    ({"autoscaling": {"cloudwatch": [INVOCATIONS, INVOCATIONS]}}, "cloudwatch[1].name", "unique"),
    ({"tls": {"acm_arn": ARN}}, "tls.domain_name", "needs its domain"),
    ({"tls": {"domain_name": "a.example"}}, "tls.acm_arn", "ARN"),
    ({"tls": {"acm_arn": ARN.replace("us-west-2", "eu-west-1"), "domain_name": "a.b"}}, "tls.acm_arn", "us-west-2"),
    ({"tls": {"acm_arn": ARN, "domain_name": "UPPER.example"}}, "domainName", "must match"),
    ({"hosted_zone_id": "Z123"}, "hosted_zone_id", "set tls.acm_arn"),
    ({"port": 9113}, "port", "sidecar"),
    ({"image": "repo/vllm: latest"}, "image", "[registry/]name[:tag]"),
    ({"volume": {"name": "Model_Weights"}}, "volume.name", "DNS label"),
    ({"volume": {"name": "v" * 64}}, "volume.name", "at most 63"),
    ({"volume": {"mount_path": "/"}}, "volume.mount_path", "folder of its own"),
    ({"working_dir": "app"}, "working_dir", "absolute"),
    ({"model_location": "../other"}, "model_location", "without .."),
    ({"health_path": "/ping now"}, "health_path", "no spaces"),
    ({"env": {"HF": {"secret": "Bad_Name", "key": "k"}}}, "env.HF.secret", "Kubernetes Secret"),
    ({"env": {"HF": {"secret": "s", "key": "a b"}}}, "env.HF.key", "Kubernetes Secret"),
    ({"resources": {"limits": {"memory": "-4Gi"}}}, "resources.limits.memory", "negative"),
    (
        {"resources": {"limits": {"cpu": "1500m"}, "requests": {"cpu": "2"}}},
        "resources.requests.cpu",
        "must not exceed the limit, 1500m",
    ),
    ({"data_capture": {"sagemaker_endpoint": {**CAPTURE, "modes": []}}}, "sagemaker_endpoint.modes", "Input, Output"),
    (
        {"data_capture": {"sagemaker_endpoint": {"enabled": True}}},
        "sagemaker_endpoint.sampling_percentage",
        "0 to 100",
    ),
    (
        {"data_capture": {"sagemaker_endpoint": CAPTURE}, "sagemaker_endpoint": False},
        "data_capture.sagemaker_endpoint.enabled",
        "no SageMaker endpoint",
    ),
    ({"data_capture": {"model_pod": {**CAPTURE, "kms_key_id": "a b"}}}, "kmsKeyId", "must match"),
    ({"tags": {"aws:x": "1"}}, "tags.aws:x", "reserved"),
    ({"tags": {"CreatedBy": "me"}}, "tags.CreatedBy", "reserved"),
    ({"tags": {"k": "v" * 257}}, "tags.k", "256"),
    ({"tags": {f"k{i}": "v" for i in range(51)}}, "tags", "at most 50"),
    ({"labels": {"hyperpod-pipelines/owner": "me"}}, "labels.hyperpod-pipelines/owner", "belongs to the pipeline"),
    ({"labels": {"team": "v" * 64}}, "labels.team", "63"),
    ({"priority_class": "p" * 64}, "priority_class", "63"),
    ({"max_deploy_seconds": 14400}, "max_deploy_seconds", "time to live"),
    ({"extra_spec": {"replicas": 3}}, "extra_spec.replicas", "an option of the deployment"),
    ({"extra_spec": {"worker": {"image": "x"}}}, "extra_spec.worker.image", "use that"),
    ({"extra_spec": {"replcias": 3}}, "spec.replcias", "did you mean 'replicas'"),
    ({"extra_spec": {"pdSpec": {"routingThreshold": -1}}}, "pdSpec.routingThreshold", "at least 0"),
    ({"jumpstart": {}}, "jumpstart", "only for kind JumpStartModel"),
    ({**JUMPSTART, "args": ["x"]}, "args", "no such field"),
    ({**JUMPSTART, "tags": {"a": "b"}}, "tags", "no such field"),
    ({**JUMPSTART, "env": {"A": {"secret": "s", "key": "k"}}}, "env.A", "plain values"),
    (
        {**JUMPSTART, "jumpstart": {"gated_model_download_role": "arn:aws:iam::111122223333:role/r"}},
        "accept_eula",
        "read its licence",
    ),
    ({**DIRECT, "routing": "session"}, "routing", "the operator does this"),
    ({"kind": "direct"}, "sagemaker_endpoint", "set it to false"),
]


def refused(spec: Any, where: Any = None, **options: Any) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        plan(spec, where, **options)
    return caught.value


@pytest.mark.parametrize(("options", "field", "fix"), WRONG, ids=[f"{i}-{w[1]}" for i, w in enumerate(WRONG)])
def test_wrong_deployment_is_refused_with_field_value_and_fix(options: dict[str, Any], field: str, fix: str) -> None:
    error = refused(model(**options), cluster(namespace="ml"))
    assert error.reason == "DeploymentInvalid"
    lines = [line for line in error.evidence if field in line.split(" = ")[0]]
    assert lines, error.evidence
    assert any(fix in line for line in lines), lines
    assert "hf_x" not in str(error)


TYPES: list[tuple[dict[str, Any], str]] = [
    ({"kind": "ModelDeployment"}, "kind"),
    ({"model_source": "gcs"}, "model_source"),
    ({"routing": "prefix-aware"}, "routing"),
    ({"kv_cache": {"l2": "memcached"}}, "kv_cache.l2"),
    ({"port": 70000}, "port"),
    ({"port_name": "tcp"}, "port_name"),
    ({"replicas": -1}, "replicas"),
    ({"replicas": "many"}, "replicas"),
    ({"max_deploy_seconds": 0}, "max_deploy_seconds"),
    ({"instance_type": "g5.2xlarge"}, "instance_type"),
    ({"load_balancer": {"routing_algorithm": "random"}}, "load_balancer.routing_algorithm"),
    ({"load_balancer": {"idle_timeout_seconds": 4001}}, "load_balancer.idle_timeout_seconds"),
    ({"metrics": {"scrape_interval_seconds": 4}}, "metrics.scrape_interval_seconds"),
    ({"metrics": {"port": 1023}}, "metrics.port"),
    ({"request_limits": {"overflow_status_code": 399}}, "request_limits.overflow_status_code"),
    ({"data_capture": {"model_pod": {"enabled": True, "batch_size": 1001}}}, "data_capture.model_pod.batch_size"),
    ({"autoscaling": {"prometheus": [{**QUEUE_DEPTH, "server_address": "http://p:9090"}]}}, "server_address"),
    ({"autoscaling": {"cloudwatch": [{**INVOCATIONS, "metric_type": "Sum"}]}}, "metric_type"),
    ({"model_source": "huggingface", "huggingface": {"commit_sha": COMMIT[:39]}}, "huggingface.commit_sha"),
    ({"tls": {"output_uri": "https://x"}}, "tls.output_uri"),
    ({"tls": {"acm_arn": "arn:aws-cn:acm:cn-north-1:1:certificate/x"}}, "tls.acm_arn"),
    ({"hosted_zone_id": "X1"}, "hosted_zone_id"),
    ({"resources": {"request": {"cpu": "1"}}}, "resources.request"),
    ({"env": {"A": 1}}, "env.A"),
    ({"env": {"A": {"secret": "s"}}}, "env.A"),
    ({"autoScaling": {}}, "autoScaling"),
    ({"disaggregation": {"prefill": {}}}, "disaggregation.decode"),
    ({"disaggregation": {"prefill": {"replicas": 0}, "decode": {}}}, "disaggregation.prefill.replicas"),
]


@pytest.mark.parametrize(("options", "field"), TYPES, ids=[f"{i}-{t[1]}" for i, t in enumerate(TYPES)])
def test_wrong_type_enum_or_bound_is_refused_at_load(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        model(**options)
    paths = [".".join(str(part) for part in error["loc"]) for error in caught.value.errors()]
    assert any(field in path for path in paths), paths


def test_a_name_that_is_one_character_too_long_is_refused() -> None:
    fits = "n" * (63 - len("qwen3-8b-20261123-00000000") - len("--routing-service"))
    plan(model(routing="session"), cluster(namespace=fits))
    error = refused(model(routing="session"), cluster(namespace=fits + "n"))
    assert "1 character(s) too long" in str(error)
    plan(model(), cluster(namespace="n" * 63))
    assert "DNS label" in str(refused(model(), cluster(namespace="n" * 64)))
    with pytest.raises(ValidationError):
        model("m" * 41)


def test_the_cluster_must_offer_the_way_of_invoking() -> None:
    assert "set it to true" in str(refused(model(sagemaker_endpoint=False), cluster(invocation="sagemaker")))
    assert "tls.output_uri" in str(refused(model(), cluster(invocation="alb", tls_output_uri=None)))
    assert "load balancer" in str(refused(model(**DIRECT), cluster(invocation="alb")))
    assert "fsx_file_system_id" in str(refused(model(model_source="fsx"), cluster(fsx_file_system_id=None)))
    assert "s3://bucket" in str(refused(model(), cluster(models_uri="/tmp/models")))


def test_all_problems_are_reported_at_once() -> None:
    error = refused(model(image=None, replicas=0, health_path="x", tags={"aws:a": "b"}))
    assert len(error.evidence) >= 4


def test_money_is_decided_before_it_is_spent() -> None:
    dear = model(instance_type="ml.p5.48xlarge", replicas=2)
    assert refused(dear, cluster(max_hourly_price="60")).reason == "OverHourlyLimit"
    assert refused(dear, budget_usd=Decimal(10)).reason == "OverBudget"
    assert refused(model(instance_type="ml.g9.huge")).reason == "PriceUnknown"
    kept = plan(dear, keep=True, ttl_seconds=7200)
    assert kept.hourly_price == Decimal("196.64")
    assert kept.forecast_usd == Decimal("393.28")


def test_the_dearest_of_several_types_is_forecast() -> None:
    several = model(instance_type=None, instance_types=["ml.g5.2xlarge", "ml.g6e.2xlarge"])
    assert plan(several).hourly_price == Decimal("2.8")


def test_schema_reports_what_an_api_server_would() -> None:
    schema = {
        "type": "object",
        "required": ["a"],
        "properties": {
            "a": {"type": "string", "maxLength": 2},
            "n": {"type": "integer", "format": "int32"},
            "l": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {"type": "object", "properties": {"k": {"type": "string"}}},
            },
            "s": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {}},
        },
    }
    wrong = {"aa": 1, "n": 2**31, "l": [{"k": "x"}, {"k": "x"}], "s": ["y", "y"], "open": {"anything": 1}}
    found = {problem.field: problem.fix for problem in check(wrong, schema)}
    assert set(found) == {"spec.a", "spec.aa", "spec.n", "spec.l[1]", "spec.s[1]"}
    assert "required" in found["spec.a"]
    assert "did you mean 'a'" in found["spec.aa"]
