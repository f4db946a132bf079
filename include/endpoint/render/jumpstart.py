"""JumpStartModel: SageMaker brings container and weights."""

from __future__ import annotations

from include.catalog.serving import JumpStartOptions
from include.catalog.specs import JsonObject, JumpStartSource
from include.endpoint.render import parts
from include.endpoint.render.context import RenderContext
from include.endpoint.render.parts import compact


def jumpstart_spec(context: RenderContext) -> JsonObject:
    """Render the spec of a JumpStartModel."""
    deployment = context.model.deployment
    options = deployment.jumpstart or JumpStartOptions()
    source = context.model.source
    model = compact(
        modelId=source.model_id if isinstance(source, JumpStartSource) else None,
        modelVersion=source.model_version if isinstance(source, JumpStartSource) else None,
        acceptEula=options.accept_eula,
        modelHubName=options.hub_name,
        gatedModelDownloadRole=options.gated_model_download_role,
        additionalConfigs=parts.pairs(options.additional_configs),
    )
    validations = compact(acceleratorPartitionValidation=options.validate_accelerator_partition)
    server = compact(
        instanceType=deployment.instance_type,
        executionRole=options.execution_role,
        acceleratorPartitionType=options.accelerator_partition_type,
        validations=validations,
    )
    plain = {name: value for name, value in deployment.env.items() if isinstance(value, str)}
    return parts.common_spec(context) | compact(
        model=model,
        server=server,
        sageMakerEndpoint={"name": context.name} if deployment.sagemaker_endpoint else None,
        environmentVariables=parts.pairs(plain),
    )
