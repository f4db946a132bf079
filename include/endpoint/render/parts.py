"""The parts that both kinds of custom resource share."""

from __future__ import annotations

from typing import Any

from include.catalog.serving import (
    Autoscaling,
    CaptureTarget,
    CloudWatchTrigger,
    DataCapture,
    KvCache,
    Metrics,
    ModelCache,
    PodCapture,
    Tls,
)
from include.catalog.specs import JsonObject
from include.endpoint.render.context import RenderContext


def compact(**values: Any) -> JsonObject:
    """Return the values that were written: neither ``None`` nor an empty collection."""
    return {key: value for key, value in values.items() if value is not None and value not in ({}, [], ())}


def pairs(values: dict[str, str]) -> list[JsonObject]:
    """Return a mapping as the operator's list of names and values."""
    return [{"name": name, "value": value} for name, value in values.items()]


def autoscaling(part: Autoscaling | None) -> JsonObject | None:
    """Render KEDA scaling; one trigger of a sort uses the single field, more use the list."""
    if part is None:
        return None
    spec = part.rendered()
    cloudwatch = [_cloudwatch(trigger) for trigger in part.cloudwatch]
    prometheus = [trigger.rendered() for trigger in part.prometheus]
    del spec["cloudwatch"], spec["prometheus"]
    return spec | _triggers("cloudWatchTrigger", cloudwatch) | _triggers("prometheusTrigger", prometheus)


def _cloudwatch(trigger: CloudWatchTrigger) -> JsonObject:
    return trigger.rendered() | {"dimensions": pairs(trigger.dimensions)}


def _triggers(field: str, triggers: list[JsonObject]) -> JsonObject:
    if not triggers:
        return {}
    return {field: triggers[0]} if len(triggers) == 1 else {f"{field}List": triggers}


def kv_cache(part: KvCache | None) -> JsonObject | None:
    """Render the tiered KV cache."""
    if part is None:
        return None
    second = compact(l2CacheBackend=part.l2, l2CacheLocalUrl=part.l2_url)
    return compact(
        enableL1Cache=part.l1,
        enableL2Cache=part.l2 is not None,
        l2CacheSpec=second,
        cacheConfigFile=part.config_file,
    )


def routing(context: RenderContext) -> JsonObject | None:
    """Render the intelligent router."""
    deployment = context.model.deployment
    if deployment.routing is None:
        return None
    scaling = None if context.benchmarking else autoscaling(deployment.router_autoscaling)
    return compact(enabled=True, routingStrategy=deployment.routing, autoScalingSpec=scaling)


def metrics(part: Metrics | None) -> JsonObject | None:
    """Render the metrics collector."""
    if part is None:
        return None
    return compact(
        enabled=part.enabled,
        metricsScrapeIntervalSeconds=part.scrape_interval_seconds,
        modelMetrics=compact(path=part.path, port=part.port),
    )


def tls(part: Tls | None, cluster_output: str | None) -> JsonObject | None:
    """Render certificates; the output place defaults to the cluster's."""
    part = part or Tls.model_construct(output_uri=None, acm_arn=None, domain_name=None)
    custom = compact(acmArn=part.acm_arn, domainName=part.domain_name)
    rendered = compact(tlsCertificateOutputS3Uri=part.output_uri or cluster_output, customCertificateConfig=custom)
    return rendered or None


def data_capture(part: DataCapture | None) -> JsonObject | None:
    """Render data capture at the load balancer, the SageMaker endpoint and the pod."""
    if part is None:
        return None
    balancer = None if part.load_balancer is None else {"enabled": part.load_balancer}
    return compact(
        s3Uri=part.s3_uri,
        loadBalancer=balancer,
        sagemakerEndpoint=part.sagemaker_endpoint and _capture(part.sagemaker_endpoint),
        modelPod=part.model_pod and _pod_capture(part.model_pod),
    )


def _capture(part: CaptureTarget) -> JsonObject:
    headers = compact(csvContentTypes=list(part.csv_content_types), jsonContentTypes=list(part.json_content_types))
    return compact(
        enabled=part.enabled,
        captureOptions=[{"captureMode": mode} for mode in part.modes],
        captureContentTypeHeader=headers,
        initialSamplingPercentage=part.sampling_percentage,
        kmsKeyId=part.kms_key_id,
    )


def _pod_capture(part: PodCapture) -> JsonObject:
    buffer = compact(batchSize=part.batch_size, flushIntervalSeconds=part.flush_interval_seconds)
    payload = compact(maxPayloadSizeKB=part.max_payload_size_kb)
    return _capture(part) | compact(bufferConfig=buffer, payloadConfig=payload)


def model_cache(part: ModelCache | None) -> JsonObject | None:
    """Render the node-level caches."""
    if part is None:
        return None
    images = None if part.images is None else {"enabled": part.images}
    return compact(weightsCache=part.weights and part.weights.rendered(), imageCache=images)


def common_spec(context: RenderContext) -> JsonObject:
    """Render what both kinds have under the same names."""
    deployment = context.model.deployment
    sidecars = deployment.sidecar_resources.rendered() if deployment.sidecar_resources else {}
    dns = {"hostedZoneId": deployment.hosted_zone_id} if deployment.hosted_zone_id else None
    return {
        "replicas": deployment.replicas,
        "maxDeployTimeInSeconds": deployment.max_deploy_seconds,
        **compact(
            autoScalingSpec=None if context.benchmarking else autoscaling(deployment.autoscaling),
            kvCacheSpec=kv_cache(deployment.kv_cache),
            intelligentRoutingSpec=routing(context),
            loadBalancer=deployment.load_balancer and deployment.load_balancer.rendered(),
            metrics=metrics(deployment.metrics),
            tlsConfig=tls(deployment.tls, context.cluster.tls_output_uri),
            dnsConfig=dns,
            dataCapture=data_capture(deployment.data_capture),
            modelCacheConfig=model_cache(deployment.model_cache),
            inferenceGateway=deployment.inference_gateway and deployment.inference_gateway.rendered(),
        ),
        **sidecars,
    }
