"""The controller manager's part: Deployments, Jobs, Services, claims, service accounts."""

from __future__ import annotations

from typing import Any

from include.canonical import digest
from include.local.agent.endpoints import EndpointsController
from include.local.agent.jobs import Jobs
from include.local.agent.nodes import ensure
from include.local.agent.pods_of import collect_strays, from_template, is_ready, phase_of
from include.local.controller.api import Api
from include.local.controller.clock import stamp
from include.local.controller.informer import Informer
from include.local.controller.recorder import Recorder
from include.local.controller.resources import (
    CLAIMS,
    DEPLOYMENTS,
    PODS,
    SERVICE_ACCOUNTS,
    VOLUMES,
    Key,
    Object,
    is_deleting,
    key_of,
)

HASH = "pod-template-hash"
# A Deployment with this label shows a process of the local HyperPod that no kubelet runs.
SHOWN_LABEL = "hyperpod-local/shown"


class Workloads:
    """Reconciles what a cluster's controller manager would; Deployments own their pods without a ReplicaSet."""

    def __init__(self, api: Api, informers: dict[str, Informer]) -> None:
        self._api = api
        self._informers = informers
        self._events = Recorder(api, "deployment-controller")
        pods = informers["pods"]
        self.job = Jobs(api, informers["jobs"], pods).reconcile
        endpoints = EndpointsController(api, informers["services"], pods, informers["endpoints"], informers["slices"])
        self.service = endpoints.reconcile
        self.services_of = endpoints.services_of

    async def deployment(self, key: Key) -> float | None:
        """Make as many pods as asked for, of the current template, and report."""
        item = self._informers["deployments"].get(*key)
        if item is None:
            await collect_strays(self._api, self._informers["pods"], DEPLOYMENTS, key)
        if item is None or is_deleting(item) or SHOWN_LABEL in (item["metadata"].get("labels") or {}):
            return None
        version = digest(item["spec"]["template"]).removeprefix("sha256:")[:10]
        wanted = int(item["spec"].get("replicas", 1))
        # Asked, not taken from the watch: a pod that was just made must not be made twice.
        labels = item["spec"]["selector"].get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        listed = await self._api.list(PODS, key[0], selector=selector)
        uid = item["metadata"]["uid"]
        pods = [pod for pod in listed["items"] if _controlled(pod, uid) and not is_deleting(pod)]
        pods = [pod for pod in pods if phase_of(pod) not in ("Succeeded", "Failed")]
        pods.sort(key=lambda pod: (not is_ready(pod), pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))
        current = [pod for pod in pods if pod["metadata"]["labels"].get(HASH) == version]
        for pod in [*(pod for pod in pods if pod not in current), *current[wanted:]]:
            await self._api.delete(PODS, *key_of(pod), uid=pod["metadata"]["uid"])
        made = max(0, wanted - len(current))
        for _ in range(made):
            await self._api.create(PODS, from_template(item, item["spec"]["template"], {HASH: version}))
        if made:
            text = f"Scaled up {key[1]} from {len(current)} to {wanted}"
            await self._events.normal(item, "ScalingReplicaSet", text)
        await self._report(item, current[:wanted], wanted, len(current[:wanted]) + made)
        return 0.5 if made else None

    async def _report(self, item: Object, pods: list[Object], wanted: int, existing: int) -> None:
        ready = sum(map(is_ready, pods))
        before = {c["type"]: c for c in (item.get("status") or {}).get("conditions") or ()}
        status: dict[str, Any] = {
            "observedGeneration": item["metadata"]["generation"],
            "replicas": existing,
            "updatedReplicas": existing,
            "readyReplicas": ready,
            "availableReplicas": ready,
            "unavailableReplicas": max(0, wanted - ready),
            "conditions": [_available(before.get("Available"), ready=ready, wanted=wanted)],
        }
        if {name: value for name, value in (item.get("status") or {}).items() if name in status} != status:
            await self._api.patch(DEPLOYMENTS, *key_of(item), {"status": status}, subresource="status")

    async def claim(self, key: Key) -> float | None:
        """Bind a claim to the volume that it names."""
        item = self._informers["claims"].get(*key)
        if item is None or (item.get("status") or {}).get("phase") == "Bound":
            return None
        name = item["spec"].get("volumeName")
        volume = await self._api.get(VOLUMES, "", name) if name else None
        if volume is None:
            return 1.0 if name else None
        reference = {"kind": "PersistentVolumeClaim", "namespace": key[0], "name": key[1]}
        claimed = {"claimRef": {**reference, "uid": item["metadata"]["uid"]}}
        await self._api.patch(VOLUMES, "", str(name), {"spec": claimed})
        await self._api.patch(VOLUMES, "", str(name), {"status": {"phase": "Bound"}}, subresource="status")
        await self._api.patch(CLAIMS, *key, {"status": {"phase": "Bound"}}, subresource="status")
        return None

    async def namespace(self, key: Key) -> float | None:
        """Give every namespace its default service account."""
        if self._informers["namespaces"].get(*key) is not None:
            await ensure(self._api, SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": key[1]}})
        return None


def _controlled(pod: Object, uid: str) -> bool:
    owners = pod["metadata"].get("ownerReferences") or ()
    return any(owner.get("controller") and owner["uid"] == uid for owner in owners)


def _available(old: Object | None, *, ready: int, wanted: int) -> Object:
    value = str(ready >= wanted)
    since = old["lastTransitionTime"] if old and old["status"] == value and "lastTransitionTime" in old else stamp()
    return {
        "type": "Available",
        "status": value,
        "reason": "MinimumReplicasAvailable" if ready >= wanted else "MinimumReplicasUnavailable",
        "message": f"{ready} of {wanted} replicas are available",
        "lastTransitionTime": since,
    }
