"""The Kubernetes resources that the endpoint stages read and write, and their REST paths."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from include.endpoint.names import GROUP, VERSION


@dataclass(frozen=True)
class Resource:
    """One resource type; ``group`` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """REST path of the collection, of one object, or of a subresource of it."""
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{quote(namespace)}" if self.namespaced and namespace else ""
        tail = f"/{quote(name)}" if name else ""
        return f"{base}{scope}/{self.plural}{tail}" + (f"/{subresource}" if subresource else "")

    @property
    def api_version(self) -> str:
        """``v1`` or ``<group>/<version>``."""
        return f"{self.group}/{self.version}" if self.group else self.version


ENDPOINT_CONFIGS = Resource(GROUP, VERSION, "inferenceendpointconfigs", "InferenceEndpointConfig")
JUMPSTART_MODELS = Resource(GROUP, VERSION, "jumpstartmodels", "JumpStartModel")
REGISTRATIONS = Resource(GROUP, VERSION, "sagemakerendpointregistrations", "SageMakerEndpointRegistration")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
SERVICES = Resource("", "v1", "services", "Service")
SECRETS = Resource("", "v1", "secrets", "Secret")
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DEFINITIONS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", namespaced=False
)
JOBS = Resource("batch", "v1", "jobs", "Job")
CSI_DRIVERS = Resource("storage.k8s.io", "v1", "csidrivers", "CSIDriver", namespaced=False)
SCALED_OBJECTS = Resource("keda.sh", "v1alpha1", "scaledobjects", "ScaledObject")
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta1", "workloads", "Workload")
LOCAL_QUEUES = Resource("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue")
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)

ENDPOINT_KINDS = {
    "InferenceEndpointConfig": ENDPOINT_CONFIGS,
    "JumpStartModel": JUMPSTART_MODELS,
    "direct": DEPLOYMENTS,
}
"""Resource of an endpoint's main object, by the kind in its reference."""

DIRECT_KINDS = {resource.kind: resource for resource in (DEPLOYMENTS, SERVICES, VOLUMES, CLAIMS)}
"""Resources of the objects of a direct deployment, by kind."""
