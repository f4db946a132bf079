"""OpenAPI v3: enough for ``kubectl explain``, ``apply`` and their check of unknown fields."""

from __future__ import annotations

from typing import Any

from include.local.kube.registry import Registry
from include.local.kube.resources import Resource, builtin_notation

Object = dict[str, Any]
_PATCHES = ("json-patch+json", "merge-patch+json", "apply-patch+yaml")
_STRATEGIC = ("strategic-merge-patch+json",)


def document(registry: Registry, parts: list[str]) -> Object | None:
    """Return the index (``/openapi/v3``) or one group's document; OpenAPI v2 is not served."""
    if parts == ["v3"]:
        found = {_address(resource) for resource in registry.all()}
        return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in sorted(found)}}
    if len(parts) < 2 or parts[0] != "v3":
        return None
    address = "/".join(parts[1:])
    resources = [resource for resource in registry.all() if _address(resource) == address]
    return _group(address, resources) if resources else None


def _address(resource: Resource) -> str:
    return f"apis/{resource.group}/{resource.version}" if resource.group else f"api/{resource.version}"


def _group(address: str, resources: list[Resource]) -> Object:
    schemas: Object = {}
    paths: Object = {}
    for resource in resources:
        name = f"{resource.group or 'core'}.{resource.version}.{resource.kind}"
        reference = {"$ref": f"#/components/schemas/{name}"}
        schemas[name] = _schema(resource)
        scope = "namespaces/{namespace}/" if resource.namespaced else ""
        base = f"/{address}/{scope}{resource.plural}"
        paths[base] = {"get": _operation(resource, "list", reference), "post": _operation(resource, "post", reference)}
        paths[f"{base}/{{name}}"] = {
            verb: _operation(resource, verb, reference) for verb in ("get", "put", "patch", "delete")
        }
    info = {"title": "Kubernetes", "version": "v1.36.2"}
    return {"openapi": "3.0.0", "info": info, "paths": paths, "components": {"schemas": schemas}}


def _schema(resource: Resource) -> Object:
    properties = dict(resource.schema.get("properties", {}))
    properties |= {
        "apiVersion": {"type": "string"},
        "kind": {"type": "string"},
        "metadata": builtin_notation().expand("ObjectMeta"),
    }
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    return {**resource.schema, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": [gvk]}


def _operation(resource: Resource, verb: str, reference: Object) -> Object:
    gvk = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    content = {"application/json": {"schema": reference}}
    operation: Object = {
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": gvk,
        "responses": {"200": {"description": "OK", "content": content}},
    }
    if verb in ("post", "put", "patch"):
        operation["parameters"] = [
            {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
            for name in ("dryRun", "fieldManager", "fieldValidation", "force")
        ]
        kinds: tuple[str, ...] = ("json",)
        if verb == "patch":
            # kubectl reads from this list whether a kind can be patched strategically.
            kinds = _PATCHES if resource.custom else _PATCHES + _STRATEGIC
        operation["requestBody"] = {"content": {f"application/{kind}": {"schema": reference} for kind in kinds}}
    return operation
