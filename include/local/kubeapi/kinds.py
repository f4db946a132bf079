"""The kinds that the server knows: built in, and registered by CustomResourceDefinitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Kind:
    """One resource type.

    :param schema: OpenAPI schema of the whole object; ``None``: anything goes.
    :param echo_on_delete: DELETE answers with the object instead of a Status.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    status: bool = True
    scale: bool = False
    schema: Mapping[str, Any] | None = field(default=None, compare=False, hash=False)
    echo_on_delete: bool = False

    @property
    def api_version(self) -> str:
        """``v1`` or ``group/version``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """``plural.group``, or ``plural`` for the core group."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


def _core(plural: str, kind: str, *, namespaced: bool = True, status: bool = False, echo: bool = False) -> Kind:
    return Kind("", "v1", plural, kind, namespaced, status, echo_on_delete=echo)


BUILT_IN: tuple[Kind, ...] = (
    _core("namespaces", "Namespace", namespaced=False, status=True),
    _core("nodes", "Node", namespaced=False, status=True),
    _core("pods", "Pod", status=True, echo=True),
    _core("services", "Service", status=True, echo=True),
    _core("serviceaccounts", "ServiceAccount", echo=True),
    _core("events", "Event"),
    _core("endpoints", "Endpoints"),
    _core("configmaps", "ConfigMap"),
    _core("secrets", "Secret"),
    _core("persistentvolumes", "PersistentVolume", namespaced=False, status=True),
    _core("persistentvolumeclaims", "PersistentVolumeClaim", status=True),
    _core("resourcequotas", "ResourceQuota", status=True),
    Kind("apps", "v1", "deployments", "Deployment", scale=True),
    Kind("apps", "v1", "daemonsets", "DaemonSet"),
    Kind("apps", "v1", "statefulsets", "StatefulSet", scale=True),
    Kind("apps", "v1", "replicasets", "ReplicaSet", scale=True),
    Kind("batch", "v1", "jobs", "Job"),
    Kind("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", status=False),
    Kind("networking.k8s.io", "v1", "ingresses", "Ingress"),
    Kind("coordination.k8s.io", "v1", "leases", "Lease", status=False),
    Kind("rbac.authorization.k8s.io", "v1", "roles", "Role", status=False),
    Kind("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding", status=False),
    Kind("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", namespaced=False, status=False),
    Kind(
        "rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False, status=False
    ),
    Kind("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False, status=False),
    Kind("storage.k8s.io", "v1", "storageclasses", "StorageClass", namespaced=False, status=False),
    Kind("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", namespaced=False, status=False),
    Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler"),
    Kind("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False),
    Kind("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject"),
    Kind("kueue.x-k8s.io", "v1beta1", "workloads", "Workload"),
    Kind("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue"),
    Kind("kueue.x-k8s.io", "v1beta1", "clusterqueues", "ClusterQueue", namespaced=False),
    Kind("cert-manager.io", "v1", "certificates", "Certificate"),
    Kind("cert-manager.io", "v1", "issuers", "Issuer"),
)


def from_definition(definition: Mapping[str, Any]) -> list[Kind]:
    """Return the kinds that a CustomResourceDefinition serves."""
    spec = definition["spec"]
    return [
        Kind(
            spec["group"],
            version["name"],
            spec["names"]["plural"],
            spec["names"]["kind"],
            spec["scope"] == "Namespaced",
            "status" in (version.get("subresources") or {}),
            "scale" in (version.get("subresources") or {}),
            (version.get("schema") or {}).get("openAPIV3Schema"),
        )
        for version in spec["versions"]
        if version.get("served", True)
    ]
