"""The controllers' part: Deployments and Jobs to pods, Services to Endpoints."""

from __future__ import annotations

from typing import Any

from include.canonical import digest
from include.local.controller.api import Api
from include.local.controller.clock import seconds_since, stamp
from include.local.controller.informer import Informer
from include.local.controller.resources import (
    DEPLOYMENTS,
    ENDPOINTS,
    JOBS,
    PODS,
    Object,
    controller_of,
    is_deleting,
    key_of,
    matches_labels,
    owner_reference,
)

OPERATOR_NAMESPACE = "hyperpod-inference-system"  # the operator shows its own Deployment; no pod runs for it


class Workloads:
    """Reconciles Deployments, Jobs and Services."""

    def __init__(self, api: Api, informers: dict[str, Informer]) -> None:
        self._api = api
        self._informers = informers

    def pods_of(self, owner: Object) -> list[Object]:
        """The owner's pods, oldest first."""
        uid = owner["metadata"]["uid"]
        found = [p for p in self._informers["pods"].all() if (controller_of(p) or {}).get("uid") == uid]
        return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))

    async def deployment(self, key: tuple[str, str]) -> float | None:
        """Make as many pods as asked for, of the current template, and report."""
        item = self._informers["deployments"].get(*key)
        if item is None or is_deleting(item) or key[0] == OPERATOR_NAMESPACE:
            return None
        template = item["spec"]["template"]
        version = digest(template).removeprefix("sha256:")[:10]
        wanted = int(item["spec"].get("replicas", 1))
        pods = self.pods_of(item)
        stale = [pod for pod in pods if pod["metadata"]["labels"].get("pod-template-hash") != version]
        current = [pod for pod in pods if pod not in stale]
        for pod in [*stale, *current[wanted:]]:
            await self._api.delete(PODS, *key_of(pod), uid=pod["metadata"]["uid"])
        if not stale:
            for _ in range(wanted - len(current)):
                await self._api.create(PODS, _pod(item, template, {"pod-template-hash": version}))
        await self._report(item, current[:wanted], wanted)
        return 0.5 if stale or len(current) != wanted else None

    async def _report(self, item: Object, pods: list[Object], wanted: int) -> None:
        ready = sum(_ready(pod) for pod in pods)
        available = ready >= wanted
        status: dict[str, Any] = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": len(pods),
            "updatedReplicas": len(pods),
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": [
                {
                    "type": "Available",
                    "status": str(available),
                    "reason": "MinimumReplicasAvailable" if available else "MinimumReplicasUnavailable",
                    "message": f"{ready} of {wanted} replicas are available",
                }
            ],
        }
        if {key: value for key, value in (item.get("status") or {}).items() if key in status} != status:
            await self._api.patch(DEPLOYMENTS, *key_of(item), {"status": status}, subresource="status")

    async def job(self, key: tuple[str, str]) -> float | None:
        """Run a Job's pods to completion, within its limits."""
        item = self._informers["jobs"].get(*key)
        if item is None or is_deleting(item):
            return None
        spec, status = item["spec"], item.get("status") or {}
        if status.get("completionTime") or any(c["type"] == "Failed" for c in status.get("conditions") or ()):
            return await self._expire(item)
        pods = self.pods_of(item)
        phase = {pod["metadata"]["name"]: (pod.get("status") or {}).get("phase") for pod in pods}
        completions = int(spec.get("completions") or 1)
        done = {_index(pod) for pod in pods if phase[pod["metadata"]["name"]] == "Succeeded"}
        failed = sum(value == "Failed" for value in phase.values())
        active = [pod for pod in pods if phase[pod["metadata"]["name"]] not in ("Succeeded", "Failed")]
        late = spec.get("activeDeadlineSeconds")
        if failed > int(spec.get("backoffLimit", 6)) or (late and seconds_since(_began(item)) > int(late)):
            for pod in active:
                await self._api.delete(PODS, *key_of(pod), uid=pod["metadata"]["uid"])
            reason = "BackoffLimitExceeded" if failed > int(spec.get("backoffLimit", 6)) else "DeadlineExceeded"
            await self._finish(item, "Failed", reason, len(done), failed)
            return 1.0
        if len(done) >= completions:
            await self._finish(item, "Complete", "CompletionsReached", len(done), failed)
            return 1.0
        busy = {_index(pod) for pod in active}
        room = int(spec.get("parallelism") or 1) - len(active)
        for index in [i for i in range(completions) if i not in done | busy][: max(0, room)]:
            await self._api.create(PODS, _job_pod(item, index))
        change = {"active": len(active), "succeeded": len(done), "failed": failed, "startTime": _began(item)}
        if {name: status.get(name) for name in change} != change:
            await self._api.patch(JOBS, *key_of(item), {"status": change}, subresource="status")
        return 1.0

    async def _finish(self, item: Object, kind: str, reason: str, succeeded: int, failed: int) -> None:
        condition = {"type": kind, "status": "True", "reason": reason, "message": reason, "lastTransitionTime": stamp()}
        status: dict[str, Any] = {
            "active": 0, "succeeded": succeeded, "failed": failed, "conditions": [condition], "startTime": _began(item),
        }  # fmt: skip
        if kind == "Complete":
            status["completionTime"] = stamp()
        await self._api.patch(JOBS, *key_of(item), {"status": status}, subresource="status")

    async def _expire(self, item: Object) -> float | None:
        ttl = item["spec"].get("ttlSecondsAfterFinished")
        if ttl is None:
            return None
        ended = (item["status"].get("conditions") or [{}])[-1].get("lastTransitionTime")
        left = int(ttl) - (seconds_since(ended) if ended else 0)
        if left > 0:
            return float(left)
        await self._api.delete(JOBS, *key_of(item), uid=item["metadata"]["uid"])
        return None

    async def service(self, key: tuple[str, str]) -> float | None:
        """Keep a Service's Endpoints: one subset for each ready pod, since each has its own host port."""
        item = self._informers["services"].get(*key)
        existing = self._informers["endpoints"].get(*key)
        if item is None or is_deleting(item):
            return None
        selector = item["spec"].get("selector") or {}
        pods = [
            pod
            for pod in self._informers["pods"].all()
            if pod["metadata"]["namespace"] == key[0] and matches_labels(selector, pod) and _ready(pod)
        ]
        subsets = [_subset(item, pod) for pod in sorted(pods, key=lambda pod: str(pod["metadata"]["name"]))]
        if existing is None:
            meta = {"name": key[1], "namespace": key[0], "ownerReferences": [owner_reference(item)]}
            await self._api.create(ENDPOINTS, {"metadata": meta, "subsets": subsets})
        elif (existing.get("subsets") or []) != subsets:
            await self._api.patch(ENDPOINTS, *key, {"subsets": subsets})
        return None


def _pod(owner: Object, template: Object, labels: dict[str, str]) -> Object:
    meta = template.get("metadata") or {}
    return {
        "metadata": {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": template["spec"],
    }


def _job_pod(job: Object, index: int) -> Object:
    labels = {"job-name": job["metadata"]["name"], "batch.kubernetes.io/job-name": job["metadata"]["name"]}
    pod = _pod(job, job["spec"]["template"], labels)
    pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = str(index)
    spec = {"restartPolicy": "Never", **pod["spec"]}
    env = [{"name": "JOB_COMPLETION_INDEX", "value": str(index)}]
    spec["containers"] = [{**c, "env": [*(c.get("env") or ()), *env]} for c in spec["containers"]]
    pod["spec"] = spec
    return pod


def _index(pod: Object) -> int:
    annotations = pod["metadata"].get("annotations") or {}
    return int(annotations.get("batch.kubernetes.io/job-completion-index", 0))


def _began(job: Object) -> str:
    return str((job.get("status") or {}).get("startTime") or job["metadata"]["creationTimestamp"])


def _ready(pod: Object) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _subset(service: Object, pod: Object) -> Object:
    meta = pod["metadata"]
    target = {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    address = {"ip": "127.0.0.1", "nodeName": pod["spec"].get("nodeName"), "targetRef": target}
    ports = []
    for port in service["spec"].get("ports") or ():
        wanted = port.get("targetPort", port["port"])
        container = _container_port(pod, wanted)
        host = (meta.get("annotations") or {}).get(f"hyperpod-local/port.{container}", container)
        ports.append({"name": port.get("name", ""), "port": int(host), "protocol": "TCP"})
    return {"addresses": [address], "ports": ports}


def _container_port(pod: Object, wanted: Any) -> int:
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if wanted in (port.get("name"), port["containerPort"]):
                return int(port["containerPort"])
    return int(wanted) if str(wanted).isdigit() else 0
