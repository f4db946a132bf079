"""The pod template of an endpoint: container, model volume, probes, cache and placement. Pure."""

from __future__ import annotations

import copy
from typing import Any

from include.local.controller.resources import Object
from include.local.operator.source import claim_of

JUMPSTART_IMAGE = "hyperpod.local/llama-cpp:1"
DOWNLOADER_IMAGE = "hyperpod.local/hf-model-downloader:1"
JUMPSTART_PORT = 8080
MODEL_PATH = "/opt/ml/model"
DPD_ROLE = "inference.sagemaker.aws.amazon.com/dpd-role"
DEEP_CHECK = {"key": "sagemaker.amazonaws.com/deep-health-check-status", "operator": "NotIn", "values": ["Failed"]}
INSTANCE_TYPE = "node.kubernetes.io/instance-type"


def _worker(item: Object) -> Object:
    """The worker section; a JumpStart model gets the one that its hub entry would give."""
    if item["kind"] != "JumpStartModel":
        return dict(item["spec"]["worker"])
    return {
        "image": JUMPSTART_IMAGE,
        "args": [MODEL_PATH, "--served-model-name", item["spec"]["model"]["modelId"]],
        "modelInvocationPort": {"containerPort": JUMPSTART_PORT, "name": "http"},
        "modelVolumeMount": {"name": "model-weights", "mountPath": MODEL_PATH},
        "environmentVariables": item["spec"].get("environmentVariables") or [],
        "resources": {"requests": {"cpu": "500m", "memory": "512Mi"}},
    }


def port_of(item: Object) -> int:
    """Container port of the model server."""
    return int(_worker(item)["modelInvocationPort"]["containerPort"])


def image_of(item: Object) -> str:
    """Image of the model server."""
    return str(_worker(item)["image"])


def instance_type_of(item: Object) -> str:
    """The instance type, the first of an ordered list, or a placeholder for an affinity."""
    spec = item["spec"]
    server = spec.get("server") or {}
    chosen = server.get("instanceType") or spec.get("instanceType") or next(iter(spec.get("instanceTypes") or ()), "")
    return str(chosen or "ml.local.cpu")


def template(item: Object, *, role: str = "", part: Object | None = None) -> Object:
    """Return the pod template.

    :param role: ``prefill`` or ``decode`` of a disaggregated endpoint, with its ``part`` of the spec.
    """
    name, spec, worker = item["metadata"]["name"], item["spec"], _worker(item)
    mount = worker["modelVolumeMount"]
    main = _container(item, worker, part or {})
    labels = {"app": name} | ({DPD_ROLE: role} if role else {})
    extra = spec.get("kubernetes") or {}
    pod: dict[str, Any] = {
        "containers": [main],
        "initContainers": [*_downloader(item, mount), *(extra.get("initContainers") or [])],
        "volumes": _volumes(item, mount["name"], extra.get("volumes") or []),
        "affinity": {"nodeAffinity": _affinity(item)},
        "terminationGracePeriodSeconds": 30,
    }
    for field in ("schedulerName", "serviceAccountName"):
        if extra.get(field):
            pod[field] = extra[field]
    if part and part.get("nodeSelector"):
        pod["nodeSelector"] = part["nodeSelector"]
    return {"metadata": {"labels": labels}, "spec": {key: value for key, value in pod.items() if value}}


def _container(item: Object, worker: Object, part: Object) -> Object:
    name, spec = item["metadata"]["name"], item["spec"]
    port, mount = worker["modelInvocationPort"], worker["modelVolumeMount"]
    health = (spec.get("loadBalancer") or {}).get("healthCheckPath", "/ping")
    default = {"httpGet": {"path": health, "port": port["containerPort"]}, "periodSeconds": 1, "timeoutSeconds": 2}
    container: Object = {
        "name": name,
        "image": worker["image"],
        "ports": [{"containerPort": port["containerPort"], "name": port.get("name", "http")}],
        "resources": part.get("resources") or worker.get("resources") or {},
        "env": [*(worker.get("environmentVariables") or []), *_cache_environment(spec)],
        "volumeMounts": [{"name": mount["name"], "mountPath": mount.get("mountPath", MODEL_PATH)}],
        "readinessProbe": default,
    }
    container |= {probe: value for probe, value in (worker.get("probes") or {}).items() if value}
    for field in ("args", "command", "workingDir"):
        if part.get(field) or worker.get(field):
            container[field] = part.get(field) or worker[field]
    return container


def _cache_environment(spec: Object) -> list[Object]:
    cache = spec.get("kvCacheSpec")
    if not cache:
        return []
    level2 = cache.get("l2CacheSpec") or {}
    values = {
        "LMCACHE_LOCAL_CPU": str(cache.get("enableL1Cache", True)),
        "LMCACHE_CONFIG_FILE": cache.get("cacheConfigFile", ""),
        "LMCACHE_REMOTE_URL": level2.get("l2CacheLocalUrl", "") if cache.get("enableL2Cache") else "",
        "LMCACHE_L2_BACKEND": level2.get("l2CacheBackend", "") if cache.get("enableL2Cache") else "",
    }
    return [{"name": name, "value": value} for name, value in values.items() if value]


def _downloader(item: Object, mount: Object) -> list[Object]:
    source = item["spec"].get("modelSourceConfig") or {}
    if source.get("modelSourceType") != "huggingface":
        return []
    model = source["huggingFaceModel"]
    env: list[Object] = [
        {"name": "HF_MODEL_ID", "value": model["modelId"]},
        {"name": "HF_COMMIT_SHA", "value": model.get("commitSHA", "")},
    ]
    if model.get("tokenSecretRef"):
        env.append({"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": model["tokenSecretRef"]}})
    return [
        {
            "name": "hf-model-downloader",
            "image": DOWNLOADER_IMAGE,
            "args": ["--target", MODEL_PATH],
            "env": env,
            "volumeMounts": [{"name": mount["name"], "mountPath": MODEL_PATH}],
        }
    ]


def _volumes(item: Object, name: str, extra: list[Object]) -> list[Object]:
    kind = (item["spec"].get("modelSourceConfig") or {}).get("modelSourceType", "s3")
    if kind == "kubernetesVolume" or any(volume["name"] == name for volume in extra):
        return extra
    if kind == "huggingface":
        return [{"name": name, "emptyDir": {}}, *extra]
    return [{"name": name, "persistentVolumeClaim": {"claimName": claim_of(item["metadata"]["name"])}}, *extra]


def _affinity(item: Object) -> Object:
    """Node affinity: what was asked for, and never a node that failed its deep health check."""
    spec = item["spec"]
    affinity: Object = copy.deepcopy(spec.get("nodeAffinity") or {})
    required = affinity.setdefault("requiredDuringSchedulingIgnoredDuringExecution", {})
    terms = required.setdefault("nodeSelectorTerms", []) or [{}]
    types = list(spec.get("instanceTypes") or ())
    if not spec.get("nodeAffinity") and not types:
        types = [instance_type_of(item)]
    for term in terms:
        found = term.setdefault("matchExpressions", [])
        found.append(dict(DEEP_CHECK))
        if types:
            found.append({"key": INSTANCE_TYPE, "operator": "In", "values": types})
    required["nodeSelectorTerms"] = terms
    if len(types) > 1:
        affinity["preferredDuringSchedulingIgnoredDuringExecution"] = [
            {
                "weight": 100 - position,
                "preference": {"matchExpressions": [{"key": INSTANCE_TYPE, "operator": "In", "values": [kind]}]},
            }
            for position, kind in enumerate(types)
        ]
    return affinity
