"""Which option of a deployment sets which field of a custom resource; the source of docs/spec-fields.md."""

from __future__ import annotations

# Fields that operators newer than the shipped definitions have (v3.3, v3.4, inference gateway).
NEWER = {
    "modelCacheConfig": "model_cache",
    "loadBalancer.idleTimeoutSeconds": "load_balancer.idle_timeout_seconds",
    "metricsSidecarResources": "sidecar_resources.metrics_sidecar",
    "metricsCollectorResources": "sidecar_resources.metrics_collector",
    "s3UploaderResources": "sidecar_resources.s3_uploader",
    "inferenceGateway": "inference_gateway",
}

_COMMON = {
    "replicas": "replicas",
    "maxDeployTimeInSeconds": "max_deploy_seconds",
    "autoScalingSpec": "autoscaling",
    "kvCacheSpec.enableL1Cache": "kv_cache.l1",
    "kvCacheSpec.enableL2Cache": "kv_cache.l2",
    "kvCacheSpec.l2CacheSpec.l2CacheBackend": "kv_cache.l2",
    "kvCacheSpec.l2CacheSpec.l2CacheLocalUrl": "kv_cache.l2_url",
    "kvCacheSpec.cacheConfigFile": "kv_cache.config_file",
    "intelligentRoutingSpec.enabled": "routing",
    "intelligentRoutingSpec.routingStrategy": "routing",
    "intelligentRoutingSpec.autoScalingSpec": "router_autoscaling",
    "loadBalancer.healthCheckPath": "health_path (or load_balancer.health_check_path)",
    "loadBalancer.routingAlgorithm": "load_balancer.routing_algorithm",
    "metrics.enabled": "metrics.enabled",
    "metrics.metricsScrapeIntervalSeconds": "metrics.scrape_interval_seconds",
    "metrics.modelMetrics": "metrics",
    "tlsConfig.tlsCertificateOutputS3Uri": "tls.output_uri (or the cluster's tls_output_uri)",
    "tlsConfig.customCertificateConfig": "tls",
    "dnsConfig.hostedZoneId": "hosted_zone_id",
    "dataCapture": "data_capture",
}

OPTIONS: dict[str, dict[str, str]] = {
    "InferenceEndpointConfig": _COMMON
    | {
        "InitialReplicaCount": "extra_spec.InitialReplicaCount (deprecated, no effect)",
        "modelName": "the model's name",
        "modelVersion": "model_version",
        "endpointName": "sagemaker_endpoint (named after the run)",
        "invocationEndpoint": "invocation_path",
        "instanceType": "instance_type",
        "instanceTypes": "instance_types",
        "nodeAffinity": "node_affinity",
        "tags": "tags",
        "modelSourceConfig.modelSourceType": "model_source",
        "modelSourceConfig.modelLocation": "model_location (default: the staged revision)",
        "modelSourceConfig.prefetchEnabled": "prefetch",
        "modelSourceConfig.s3Storage": "the cluster's models_uri and region",
        "modelSourceConfig.fsxStorage": "fsx (id from the cluster by default)",
        "modelSourceConfig.huggingFaceModel.modelId": "huggingface.model_id (or the source's repo)",
        "modelSourceConfig.huggingFaceModel.commitSHA": "huggingface.commit_sha (or the pinned revision)",
        "modelSourceConfig.huggingFaceModel.tokenSecretRef": "huggingface.token",
        "worker.image": "image",
        "worker.command": "command",
        "worker.args": "args",
        "worker.workingDir": "working_dir",
        "worker.environmentVariables": "env",
        "worker.modelInvocationPort.containerPort": "port",
        "worker.modelInvocationPort.name": "port_name",
        "worker.modelVolumeMount": "volume",
        "worker.resources.claims": "resource_claims",
        "worker.resources": "resources",
        "worker.probes": "probes",
        "worker.requestLimits": "request_limits",
        "pdSpec.prefillSpec": "disaggregation.prefill",
        "pdSpec.decodingSpec": "disaggregation.decode",
        "pdSpec.routingThreshold": "disaggregation.routing_threshold",
        "pdSpec.topologySpec": "disaggregation.topology",
        "pdSpec.autoScalingSpec.prefillAutoScaling": "disaggregation.prefill_autoscaling",
        "pdSpec.autoScalingSpec.decodingAutoScaling": "disaggregation.decode_autoscaling",
        "kubernetes": "kubernetes",
    },
    "JumpStartModel": _COMMON
    | {
        "loadBalancer.healthCheckPath": "load_balancer.health_check_path",
        "model.modelId": "source.model_id",
        "model.modelVersion": "source.model_version",
        "model.acceptEula": "jumpstart.accept_eula",
        "model.modelHubName": "jumpstart.hub_name",
        "model.gatedModelDownloadRole": "jumpstart.gated_model_download_role",
        "model.additionalConfigs": "jumpstart.additional_configs",
        "server.instanceType": "instance_type",
        "server.executionRole": "jumpstart.execution_role",
        "server.acceleratorPartitionType": "jumpstart.accelerator_partition_type",
        "server.validations.acceleratorPartitionValidation": "jumpstart.validate_accelerator_partition",
        "sageMakerEndpoint.name": "sagemaker_endpoint (named after the run)",
        "environmentVariables": "env",
    },
    "SageMakerEndpointRegistration": {
        "": "nobody: the operator makes it; we read it for readiness and absence",
    },
}


def is_newer(path: str) -> bool:
    """True for a field (dotted path in a spec) that only newer operators know."""
    return any(path == known or path.startswith(f"{known}.") for known in NEWER)


def option_for(kind: str, path: str) -> str | None:
    """Return how a person sets a field of a kind's spec; the longest known prefix answers."""
    options = OPTIONS[kind]
    parts = path.split(".") if path else []
    for length in range(len(parts), -1, -1):
        found = options.get(".".join(parts[:length]))
        if found is not None:
            return found
    return None
