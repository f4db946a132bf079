"""What is served: the discovery documents, one by one and aggregated."""

from __future__ import annotations

from typing import Any

from include.local.kube.registry import Registry
from include.local.kube.resources import ALL_VERBS, Resource

Object = dict[str, Any]
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_REVIEWS = {
    "authorization.k8s.io": {
        "selfsubjectaccessreviews": "SelfSubjectAccessReview",
        "selfsubjectrulesreviews": "SelfSubjectRulesReview",
    },
    "authentication.k8s.io": {"selfsubjectreviews": "SelfSubjectReview"},
}
_SUBRESOURCE_VERBS = ("get", "patch", "update")
_POD_EXTRAS = {
    "log": ("Pod", ("get",)),
    "proxy": ("PodProxyOptions", ("create", "delete", "get", "patch", "update")),
    "portforward": ("PodPortForwardOptions", ("create", "get")),
    "binding": ("Binding", ("create",)),
    "eviction": ("Eviction", ("create",)),
}
VERSION = {
    "major": "1",
    "minor": "36",
    "gitVersion": "v1.36.2+hyperpod-local",
    "gitCommit": "",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "",
    "compiler": "",
    "platform": "local",
}


def _groups(registry: Registry) -> dict[str, dict[str, list[Resource]]]:
    """Return group → version → resources."""
    groups: dict[str, dict[str, list[Resource]]] = {}
    for resource in registry.all():
        groups.setdefault(resource.group, {}).setdefault(resource.version, []).append(resource)
    for group in _REVIEWS:
        groups.setdefault(group, {}).setdefault("v1", [])
    return groups


def _subresources(resource: Resource) -> list[tuple[str, str, tuple[str, ...]]]:
    found: list[tuple[str, str, tuple[str, ...]]] = []
    if resource.status:
        found.append(("status", resource.kind, _SUBRESOURCE_VERBS))
    if resource.scale:
        found.append(("scale", "Scale", _SUBRESOURCE_VERBS))
    if resource.key == "/pods":
        found += [(name, kind, verbs) for name, (kind, verbs) in _POD_EXTRAS.items()]
    if resource.key == "/services":
        found.append(("proxy", "ServiceProxyOptions", _POD_EXTRAS["proxy"][1]))
    return found


def api_versions(address: str) -> Object:
    """Return the answer to ``GET /api``."""
    servers = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": servers}


def group_list(registry: Registry) -> Object:
    """Return the answer to ``GET /apis``."""
    groups = [_group(name, sorted(versions)) for name, versions in _groups(registry).items() if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(registry: Registry, name: str) -> Object | None:
    """Return the answer to ``GET /apis/<group>``."""
    versions = _groups(registry).get(name)
    return {"kind": "APIGroup", "apiVersion": "v1"} | _group(name, sorted(versions)) if versions else None


def _group(name: str, versions: list[str]) -> Object:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def resource_list(registry: Registry, group_name: str, version: str) -> Object | None:
    """Return the answer to ``GET /apis/<group>/<version>`` (or ``/api/v1``)."""
    versions = _groups(registry).get(group_name, {})
    if version not in versions:
        return None
    listed: list[Object] = []
    for resource in versions[version]:
        listed.append(_resource(resource))
        for name, kind, verbs in _subresources(resource):
            listed.append(
                {
                    "name": f"{resource.plural}/{name}",
                    "singularName": "",
                    "namespaced": resource.namespaced,
                    "kind": kind,
                    "verbs": list(verbs),
                }
            )
    for plural, kind in _REVIEWS.get(group_name, {}).items():
        listed.append(
            {"name": plural, "singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
        )
    full = f"{group_name}/{version}" if group_name else version
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": full, "resources": listed}


def _resource(resource: Resource) -> Object:
    listed: Object = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": list(ALL_VERBS),
    }
    if resource.short_names:
        listed["shortNames"] = list(resource.short_names)
    if resource.categories:
        listed["categories"] = list(resource.categories)
    return listed


def aggregated(registry: Registry, *, core: bool) -> Object:
    """Return the aggregated discovery document of the core group or of all other groups."""
    items = []
    for name, versions in _groups(registry).items():
        if bool(name) == core:
            continue
        listed = [
            {"version": version, "freshness": "Current", "resources": _aggregated_version(name, resources)}
            for version, resources in sorted(versions.items())
        ]
        metadata = {"name": name, "creationTimestamp": None} if name else {"creationTimestamp": None}
        items.append({"metadata": metadata, "versions": listed})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_version(group_name: str, resources: list[Resource]) -> list[Object]:
    listed = []
    for resource in resources:
        entry: Object = {
            "resource": resource.plural,
            "responseKind": {"group": resource.group, "version": resource.version, "kind": resource.kind},
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": list(ALL_VERBS),
            "shortNames": list(resource.short_names),
            "categories": list(resource.categories),
        }
        subresources = [
            {
                "subresource": name,
                "responseKind": {"group": "autoscaling" if kind == "Scale" else "", "version": "v1", "kind": kind},
                "verbs": list(verbs),
            }
            for name, kind, verbs in _subresources(resource)
        ]
        listed.append(entry | ({"subresources": subresources} if subresources else {}))
    for plural, kind in _REVIEWS.get(group_name, {}).items():
        listed.append(
            {
                "resource": plural,
                "responseKind": {"group": group_name, "version": "v1", "kind": kind},
                "scope": "Cluster",
                "singularResource": kind.lower(),
                "verbs": ["create"],
            }
        )
    return listed
