"""What one served resource is: names, scope, verbs and schema; and the built-in ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import yaml

from include.local.kube.schema.notation import Notation, Schema

ALL_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")
_HERE = Path(__file__).parent
_NAME_FIELDS = frozenset({"metadata.name", "metadata.namespace"})


@dataclass(frozen=True)
class Resource:
    """One resource of one API version.

    :param generation: the server counts spec changes in ``metadata.generation``.
    :param returns_object: a completed DELETE answers with the object, not with a Status.
    :param scale: JSON paths of the scale subresource, or ``None``.
    """

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool = True
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    schema: Schema = field(default_factory=dict, repr=False, compare=False)
    status: bool = False
    scale: dict[str, str] | None = field(default=None, compare=False)
    generation: bool = False
    returns_object: bool = False
    fields: frozenset[str] = frozenset()
    custom: bool = False
    columns: tuple[dict[str, Any], ...] = field(default=(), compare=False)
    list_name: str = ""

    @property
    def key(self) -> str:
        """Storage key: the same for all versions."""
        return f"{self.group}/{self.plural}"

    @property
    def api_version(self) -> str:
        """The ``apiVersion`` of its objects."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        """The kind of its lists."""
        return self.list_name or f"{self.kind}List"

    @cached_property
    def selectable(self) -> frozenset[str]:
        """Fields that a field selector may name."""
        return self.fields | _NAME_FIELDS


# group/version, kind, plural, flags: N namespaced, S status, G generation, O returns object, C scale; short names
_BUILTIN = """
v1 Namespace namespaces S ns
v1 Node nodes S no
v1 Pod pods NSGO po
v1 Event events N ev
v1 Service services NSO svc
v1 Endpoints endpoints N ep
v1 ConfigMap configmaps N cm
v1 Secret secrets N
v1 ServiceAccount serviceaccounts NO sa
v1 PersistentVolume persistentvolumes SO pv
v1 PersistentVolumeClaim persistentvolumeclaims NSO pvc
v1 ResourceQuota resourcequotas NSO quota
v1 LimitRange limitranges N limits
apps/v1 Deployment deployments NSGC deploy
apps/v1 DaemonSet daemonsets NSG ds
apps/v1 StatefulSet statefulsets NSGC sts
apps/v1 ReplicaSet replicasets NSGC rs
batch/v1 Job jobs NSG
batch/v1 CronJob cronjobs NSG cj
networking.k8s.io/v1 Ingress ingresses NSG ing
networking.k8s.io/v1 IngressClass ingressclasses G
coordination.k8s.io/v1 Lease leases N
discovery.k8s.io/v1 EndpointSlice endpointslices NG
rbac.authorization.k8s.io/v1 Role roles N
rbac.authorization.k8s.io/v1 RoleBinding rolebindings N
rbac.authorization.k8s.io/v1 ClusterRole clusterroles -
rbac.authorization.k8s.io/v1 ClusterRoleBinding clusterrolebindings -
apiextensions.k8s.io/v1 CustomResourceDefinition customresourcedefinitions SG crd crds
scheduling.k8s.io/v1 PriorityClass priorityclasses G pc
storage.k8s.io/v1 CSIDriver csidrivers O
storage.k8s.io/v1 StorageClass storageclasses O sc
autoscaling/v2 HorizontalPodAutoscaler horizontalpodautoscalers NS hpa
policy/v1 PodDisruptionBudget poddisruptionbudgets NSG pdb
"""
_FIELDS = {
    "pods": "spec.nodeName spec.restartPolicy spec.schedulerName spec.serviceAccountName status.phase status.podIP",
    "events": "involvedObject.kind involvedObject.namespace involvedObject.name involvedObject.uid "
    "involvedObject.apiVersion involvedObject.resourceVersion involvedObject.fieldPath reason source type "
    "reportingComponent",
    "nodes": "spec.unschedulable",
    "namespaces": "status.phase",
    "secrets": "type",
    "jobs": "status.successful",
    "replicasets": "status.replicas",
    "services": "spec.clusterIP spec.type",
}
_SCALE = {
    "specReplicasPath": ".spec.replicas",
    "statusReplicasPath": ".status.replicas",
    "labelSelectorPath": ".status.selector",
}


@lru_cache(maxsize=1)
def builtin_notation() -> Notation:
    """Return the types of the built-in kinds."""
    text = (_HERE / "schema" / "builtin.yaml").read_bytes()
    types = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))["types"]  # noqa: S506
    types["CustomResourceDefinition"] = {"spec!": "object", "status": "object"}
    return Notation(types)


def builtin_resources() -> list[Resource]:
    """Return the resources that every server has."""
    return [_builtin(line.split()) for line in _BUILTIN.strip().splitlines()]


def _builtin(words: list[str]) -> Resource:
    group_version, kind, plural, flags = words[:4]
    group, _, version = group_version.rpartition("/")
    return Resource(
        group=group,
        version=version,
        kind=kind,
        plural=plural,
        singular=kind.lower(),
        namespaced="N" in flags,
        short_names=tuple(words[4:]),
        categories=("all",) if kind in _ALL_CATEGORY else (),
        schema=builtin_notation().expand(kind),
        status="S" in flags,
        scale=_SCALE if "C" in flags else None,
        generation="G" in flags,
        returns_object="O" in flags,
        fields=frozenset(_FIELDS.get(plural, "").split()),
    )


_ALL_CATEGORY = frozenset({"Pod", "Service", "Deployment", "DaemonSet", "StatefulSet", "ReplicaSet", "Job"})
