"""The Kubernetes resources that the local controllers read and write, and their REST paths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Object = dict[str, Any]
Key = tuple[str, str]
INFERENCE_GROUP = "inference.sagemaker.aws.amazon.com"


@dataclass(frozen=True)
class Resource:
    """One resource type; ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """``v1`` or ``<group>/<version>``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """REST path of the collection, one object, or a subresource of it."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        tail = f"/{quote(name)}" if name else ""
        tail += f"/{subresource}" if subresource else ""
        return f"{base}{scope}/{self.plural}{tail}"


NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
EVENTS = Resource("", "v1", "events", "Event")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
JOBS = Resource("batch", "v1", "jobs", "Job")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
CSI_DRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
ENDPOINT_CONFIGS = Resource(INFERENCE_GROUP, "v1", "inferenceendpointconfigs", "InferenceEndpointConfig")
JUMPSTART_MODELS = Resource(INFERENCE_GROUP, "v1", "jumpstartmodels", "JumpStartModel")
REGISTRATIONS = Resource(INFERENCE_GROUP, "v1", "sagemakerendpointregistrations", "SageMakerEndpointRegistration")
SCALED_OBJECTS = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta1", "workloads", "Workload")


def key_of(item: Object) -> Key:
    """``(namespace, name)`` of an object; the namespace is empty for a cluster-scoped one."""
    meta = item["metadata"]
    return meta.get("namespace", ""), meta["name"]


def is_deleting(item: Object) -> bool:
    """True when deletion was asked for and finalizers or a grace period keep the object."""
    return bool(item["metadata"].get("deletionTimestamp"))


def controller_of(item: Object) -> Object | None:
    """The owner reference with ``controller: true``, if any."""
    owners: list[Object] = item["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def owner_reference(owner: Object) -> Object:
    """Controller reference to ``owner``; its deletion takes the holder of the reference with it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def matches_labels(selector: dict[str, str], item: Object) -> bool:
    """True when every label of a non-empty ``selector`` is on the object."""
    labels = item["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())
