"""What the server itself fills in or forbids for the built-in kinds."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from include.local.kube.resources import Resource
from include.local.kube.schema.causes import Cause, invalid, required
from include.local.kube.selectors import matches_selector

Object = dict[str, Any]

# The status that an object has before any controller saw it.
INITIAL_STATUS: dict[str, Object] = {
    "Namespace": {"phase": "Active"},
    "Pod": {"phase": "Pending", "qosClass": "BestEffort"},
    "Service": {"loadBalancer": {}},
    "PersistentVolume": {"phase": "Pending"},
    "PersistentVolumeClaim": {"phase": "Pending"},
    "DaemonSet": {
        "currentNumberScheduled": 0,
        "numberMisscheduled": 0,
        "desiredNumberScheduled": 0,
        "numberReady": 0,
    },
    "StatefulSet": {"replicas": 0, "availableReplicas": 0},
    "ReplicaSet": {"replicas": 0},
    "Ingress": {"loadBalancer": {}},
    "HorizontalPodAutoscaler": {"desiredReplicas": 0, "currentMetrics": None},
}

# Fields that stay as they were created.
_IMMUTABLE: dict[str, tuple[str, ...]] = {
    "Deployment": ("selector",),
    "ReplicaSet": ("selector",),
    "DaemonSet": ("selector",),
    "StatefulSet": ("selector", "serviceName", "podManagementPolicy"),
    "Job": ("selector", "template", "completionMode"),
    "PersistentVolume": ("csi", "local", "hostPath", "nfs"),
    "PersistentVolumeClaim": ("accessModes", "storageClassName", "volumeMode", "selector"),
}
_POLICY_DEFAULTS: Object = {"restartPolicy": "Always", "dnsPolicy": "ClusterFirst",
                            "schedulerName": "default-scheduler", "terminationGracePeriodSeconds": 30,
                            "securityContext": {}}  # fmt: skip


def fill(resource: Resource, item: Object) -> None:
    """Fill in the defaults of a built-in kind, in place."""
    filler = _FILLERS.get(resource.kind)
    if filler and not resource.custom:
        filler(item)


def _fill_pod_spec(spec: Object, restart: str | None = None) -> None:
    for key, value in _POLICY_DEFAULTS.items():
        spec.setdefault(key, value if key != "restartPolicy" or restart is None else restart)
    if "serviceAccount" in spec:
        spec.setdefault("serviceAccountName", spec["serviceAccount"])
    for container in [*spec.get("containers", ()), *spec.get("initContainers", ())]:
        _fill_container(container)
    for volume in spec.get("volumes", ()):
        if set(volume) == {"name"}:
            volume["emptyDir"] = {}


def _fill_container(container: Object) -> None:
    image = container.get("image", "")
    latest = image.endswith(":latest") or ":" not in image.rpartition("/")[2]
    container.setdefault("imagePullPolicy", "Always" if latest and "@" not in image else "IfNotPresent")
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    container.setdefault("resources", {})
    resources = container["resources"]
    for name, value in resources.get("limits", {}).items():
        resources.setdefault("requests", {}).setdefault(name, value)
    for port in container.get("ports", ()):
        port.setdefault("protocol", "TCP")
    for kind in ("livenessProbe", "readinessProbe", "startupProbe"):
        if kind in container:
            _fill_probe(container[kind])


def _fill_probe(probe: Object) -> None:
    defaults = {"timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}
    for key, value in defaults.items():
        probe.setdefault(key, value)
    if "httpGet" in probe:
        probe["httpGet"].setdefault("scheme", "HTTP")
        probe["httpGet"].setdefault("path", "/")


def _fill_pod(item: Object) -> None:
    _fill_pod_spec(item["spec"])
    item["spec"].setdefault("enableServiceLinks", True)


def _template(item: Object) -> Object:
    spec: Object = item["spec"]["template"].setdefault("spec", {})
    return spec


def _fill_deployment(item: Object) -> None:
    spec = item["spec"]
    rolling = {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}}
    spec.setdefault("replicas", 1)
    spec.setdefault("strategy", rolling)
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)
    _fill_pod_spec(_template(item))


def _fill_replicated(item: Object) -> None:
    item["spec"].setdefault("replicas", 1)
    if "template" in item["spec"]:
        _fill_pod_spec(_template(item))


def _fill_daemon_set(item: Object) -> None:
    item["spec"].setdefault("revisionHistoryLimit", 10)
    _fill_pod_spec(_template(item))


def _fill_job(item: Object) -> None:
    spec = item["spec"]
    template = spec["template"]
    for key, value in {"parallelism": 1, "completions": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
                       "suspend": False, "podReplacementPolicy": "TerminatingOrFailed"}.items():  # fmt: skip
        spec.setdefault(key, value)
    if not spec.get("manualSelector") and "selector" not in spec:
        uid, name = item["metadata"]["uid"], item["metadata"]["name"]
        spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": uid}}
        labels = template.setdefault("metadata", {}).setdefault("labels", {})
        labels |= {"batch.kubernetes.io/controller-uid": uid, "controller-uid": uid,
                   "batch.kubernetes.io/job-name": name, "job-name": name}  # fmt: skip
    _fill_pod_spec(_template(item))


def _fill_service(item: Object) -> None:
    spec = item.setdefault("spec", {})
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    for port in spec.get("ports", ()):
        port.setdefault("protocol", "TCP")
        port.setdefault("targetPort", port["port"])
    if spec["type"] != "ExternalName" and "clusterIP" not in spec:
        spec["clusterIP"] = _cluster_ip(item["metadata"]["uid"])
    if spec.get("clusterIP") and spec["type"] != "ExternalName":
        spec.setdefault("clusterIPs", [spec["clusterIP"]])
        spec.setdefault("ipFamilies", ["IPv4"])
        spec.setdefault("ipFamilyPolicy", "SingleStack")


def _cluster_ip(uid: str) -> str:
    """Return an address of 10.96.0.0/12; nothing listens on it, requests go through the API's proxy."""
    number = int(uid.replace("-", "")[:8], 16)
    return f"10.{96 + number % 16}.{number // 16 % 256}.{1 + number // 4096 % 254}"


def _fill_secret(item: Object) -> None:
    item.setdefault("type", "Opaque")
    for key, value in (item.pop("stringData", None) or {}).items():
        item.setdefault("data", {})[key] = base64.b64encode(value.encode()).decode()


def _fill_namespace(item: Object) -> None:
    item.setdefault("spec", {}).setdefault("finalizers", ["kubernetes"])
    labels = item["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = item["metadata"]["name"]


def _fill_volume(item: Object) -> None:
    item["spec"].setdefault("persistentVolumeReclaimPolicy", "Retain")
    item["spec"].setdefault("volumeMode", "Filesystem")


def _fill_claim(item: Object) -> None:
    item["spec"].setdefault("volumeMode", "Filesystem")


def _fill_binding(item: Object) -> None:
    item["roleRef"].setdefault("apiGroup", "rbac.authorization.k8s.io")
    for subject in item.get("subjects", ()):
        if subject["kind"] != "ServiceAccount":
            subject.setdefault("apiGroup", "rbac.authorization.k8s.io")


_FILLERS: dict[str, Callable[[Object], None]] = {
    "Pod": _fill_pod,
    "Deployment": _fill_deployment,
    "ReplicaSet": _fill_replicated,
    "StatefulSet": _fill_replicated,
    "DaemonSet": _fill_daemon_set,
    "Job": _fill_job,
    "Service": _fill_service,
    "Secret": _fill_secret,
    "Namespace": _fill_namespace,
    "PersistentVolume": _fill_volume,
    "PersistentVolumeClaim": _fill_claim,
    "RoleBinding": _fill_binding,
    "ClusterRoleBinding": _fill_binding,
}


def check(resource: Resource, item: Object) -> list[Cause]:
    """Return the rules of a built-in kind that an object breaks, beyond its schema."""
    if resource.custom:
        return []
    if resource.kind in ("Deployment", "ReplicaSet", "StatefulSet", "DaemonSet"):
        return _check_template_labels(item)
    if resource.kind == "Secret":
        return _check_base64(item)
    if resource.kind == "Pod":
        return _check_containers(item["spec"], "spec")
    if resource.kind == "Job":
        return _check_job(item)
    return []


def _check_template_labels(item: Object) -> list[Cause]:
    template = item["spec"].get("template", {})
    labels = template.get("metadata", {}).get("labels", {})
    causes = _check_containers(template.get("spec", {}), "spec.template.spec")
    if not matches_selector(item["spec"].get("selector"), labels):
        why = "`selector` does not match template `labels`"
        causes.append(invalid("spec.template.metadata.labels", labels, why))
    return causes


def _check_job(item: Object) -> list[Cause]:
    spec = _template(item)
    causes = _check_containers(spec, "spec.template.spec")
    if spec.get("restartPolicy") not in ("Never", "OnFailure"):
        why = f'Required value: valid values: "OnFailure", "Never"; got {spec.get("restartPolicy")!r}'
        causes.append(Cause("spec.template.spec.restartPolicy", "FieldValueRequired", why))
    return causes


def _check_containers(spec: Object, path: str) -> list[Cause]:
    causes = []
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind, ())):
            if not container.get("image"):
                causes.append(required(f"{path}.{kind}[{index}].image"))
    if not spec.get("containers"):
        causes.append(required(f"{path}.containers"))
    return causes


def _check_base64(item: Object) -> list[Cause]:
    causes = []
    for key, value in item.get("data", {}).items():
        try:
            base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            causes.append(invalid(f"data[{key}]", "<redacted>", "illegal base64 data"))
    return causes


def check_change(resource: Resource, old: Object, new: Object) -> list[Cause]:
    """Return changes of a built-in kind that are forbidden."""
    if resource.custom:
        return []
    causes = []
    for name in _IMMUTABLE.get(resource.kind, ()):
        before, after = old.get("spec", {}).get(name), new.get("spec", {}).get(name)
        if before is not None and before != after:
            causes.append(invalid(f"spec.{name}", after, "field is immutable"))
    if resource.kind in ("RoleBinding", "ClusterRoleBinding") and old["roleRef"] != new["roleRef"]:
        causes.append(invalid("roleRef", new["roleRef"], "cannot change roleRef"))
    if resource.kind in ("ConfigMap", "Secret") and old.get("immutable"):
        for name in ("data", "binaryData", "immutable"):
            if old.get(name) != new.get(name):
                why = "Forbidden: field is immutable when `immutable` is set"
                causes.append(Cause(name, "FieldValueForbidden", why))
    return causes
