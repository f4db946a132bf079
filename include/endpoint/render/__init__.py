"""From a typed deployment to the objects that are applied."""

from __future__ import annotations

from include.catalog.specs import JsonObject
from include.endpoint.names import API_VERSION
from include.endpoint.render.context import RenderContext
from include.endpoint.render.direct import direct_objects
from include.endpoint.render.endpointconfig import endpoint_config_spec
from include.endpoint.render.extra import merge_extra
from include.endpoint.render.jumpstart import jumpstart_spec

__all__ = ["RenderContext", "render"]


def render(context: RenderContext) -> JsonObject:
    """Return the custom resource, or a ``v1/List`` of plain objects for a direct deployment.

    Deterministic: the same context gives the same object. Values are not checked here.
    """
    deployment = context.model.deployment
    if deployment.kind == "direct":
        return {"apiVersion": "v1", "kind": "List", "items": direct_objects(context)}
    spec = jumpstart_spec(context) if deployment.kind == "JumpStartModel" else endpoint_config_spec(context)
    return {
        "apiVersion": API_VERSION,
        "kind": deployment.kind,
        "metadata": context.metadata(),
        "spec": merge_extra(spec, deployment.extra_spec),
    }
