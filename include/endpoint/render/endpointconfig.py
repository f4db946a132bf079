"""InferenceEndpointConfig: the model's own container, weights and placement."""

from __future__ import annotations

from include.catalog.deployment import DeploymentSpec
from include.catalog.serving import Disaggregation, EnvValue, PhasePool
from include.catalog.specs import HuggingFaceSource, JsonObject
from include.endpoint.render import parts
from include.endpoint.render.context import RenderContext
from include.endpoint.render.parts import compact


def endpoint_config_spec(context: RenderContext) -> JsonObject:
    """Render the spec of an InferenceEndpointConfig."""
    deployment = context.model.deployment
    spec = parts.common_spec(context)
    spec |= compact(
        modelName=context.model.name,
        modelVersion=deployment.model_version,
        endpointName=context.name if deployment.sagemaker_endpoint else None,
        invocationEndpoint=deployment.invocation_path,
        instanceType=deployment.instance_type,
        instanceTypes=list(deployment.instance_types),
        nodeAffinity=deployment.node_affinity,
        modelSourceConfig=model_source(context),
        worker=worker(deployment),
        pdSpec=disaggregation(deployment.disaggregation, benchmarking=context.benchmarking),
        kubernetes=_kubernetes(deployment),
        tags=parts.pairs(deployment.tags),
    )
    # The load balancer must ask the path that the model answers; the operator's default is /ping.
    spec["loadBalancer"] = {"healthCheckPath": deployment.health_path} | spec.get("loadBalancer", {})
    return spec


def model_source(context: RenderContext) -> JsonObject:
    """Render where the weights come from."""
    deployment = context.model.deployment
    source: JsonObject = {
        "modelSourceType": deployment.model_source,
        "prefetchEnabled": deployment.prefetch,
    }
    if deployment.model_source == "huggingface":
        return source | {"huggingFaceModel": _hub_model(context)}
    source["modelLocation"] = context.location
    if deployment.model_source == "s3":
        source["s3Storage"] = {"bucketName": context.bucket, "region": context.cluster.region}
    if deployment.model_source == "fsx":
        storage = deployment.fsx.rendered() if deployment.fsx else {}
        source["fsxStorage"] = compact(fileSystemId=context.cluster.fsx_file_system_id) | storage
    return source


def _hub_model(context: RenderContext) -> JsonObject:
    source, written = context.model.source, context.model.deployment.huggingface
    own = isinstance(source, HuggingFaceSource)
    rendered = compact(
        modelId=source.repo if isinstance(source, HuggingFaceSource) else None,
        commitSHA=context.revision if own else None,
    )
    if written is None:
        return rendered
    rendered |= compact(modelId=written.model_id, commitSHA=written.commit_sha)
    if written.token is not None:
        token = written.token
        rendered["tokenSecretRef"] = compact(name=token.secret, key=token.key, optional=token.optional)
    return rendered


def worker(deployment: DeploymentSpec) -> JsonObject:
    """Render the model's container."""
    return compact(
        image=deployment.image,
        command=list(deployment.command),
        args=list(deployment.args),
        workingDir=deployment.working_dir,
        environmentVariables=environment(deployment.env),
        modelInvocationPort=compact(containerPort=deployment.port, name=deployment.port_name or "http"),
        modelVolumeMount=deployment.volume.rendered(),
        probes=deployment.probes and deployment.probes.rendered(),
        requestLimits=deployment.request_limits and deployment.request_limits.rendered(),
    ) | {"resources": resources(deployment.resources, deployment.resource_claims)}


def environment(env: dict[str, EnvValue]) -> list[JsonObject]:
    """Render environment variables; secrets stay references."""
    return [{"name": name, **_env_value(value)} for name, value in env.items()]


def _env_value(value: EnvValue) -> JsonObject:
    if isinstance(value, str):
        return {"value": value}
    fields = value.rendered()
    key, renames = {
        "SecretRef": ("secretKeyRef", {"secret": "name"}),
        "ConfigMapRef": ("configMapKeyRef", {"configMap": "name"}),
        "FieldRef": ("fieldRef", {"field": "fieldPath"}),
        "ResourceRef": ("resourceFieldRef", {"container": "containerName"}),
        "FileRef": ("fileKeyRef", {"volume": "volumeName"}),
    }[type(value).__name__]
    return {"valueFrom": {key: {renames.get(name, name): item for name, item in fields.items()}}}


def resources(amounts: object, claims: tuple[JsonObject, ...]) -> JsonObject:
    """Render requests, limits and claims of a container."""
    amounts = amounts if isinstance(amounts, dict) else {}
    return compact(
        requests=dict(amounts.get("requests", {})),
        limits=dict(amounts.get("limits", {})),
        claims=[dict(claim) for claim in claims],
    )


def disaggregation(part: Disaggregation | None, *, benchmarking: bool) -> JsonObject | None:
    """Render prefill and decode pools."""
    if part is None:
        return None
    scaling = {} if benchmarking else _pool_scaling(part)
    return compact(
        prefillSpec=_pool(part.prefill),
        decodingSpec=_pool(part.decode),
        routingThreshold=part.routing_threshold,
        topologySpec=part.topology and part.topology.rendered(),
        autoScalingSpec=scaling,
    )


def _pool_scaling(part: Disaggregation) -> JsonObject:
    return compact(
        prefillAutoScaling=parts.autoscaling(part.prefill_autoscaling),
        decodingAutoScaling=parts.autoscaling(part.decode_autoscaling),
    )


def _pool(part: PhasePool) -> JsonObject:
    return compact(
        args=list(part.args),
        replicas=part.replicas,
        nodeSelector=part.node_selector,
        resources=resources(part.resources, part.resource_claims),
    )


def _kubernetes(deployment: DeploymentSpec) -> JsonObject | None:
    part = deployment.kubernetes
    if part is None:
        return None
    return compact(
        initContainers=list(part.init_containers),
        volumes=list(part.volumes),
        schedulerName=part.scheduler_name,
        serviceAccountName=part.service_account_name,
    )
