"""The scheduler: binds pods to nodes that fit, tells why one does not."""

from __future__ import annotations

from include.local.agent.scheduler import preference, why_not
from include.local.controller.api import Api
from include.local.controller.clock import stamp
from include.local.controller.faultbook import FaultBook
from include.local.controller.informer import Informer
from include.local.controller.recorder import Recorder
from include.local.controller.resources import PODS, Key, Object, is_deleting, key_of
from include.local.faults import Fault
from include.local.node.kubelet import target_of

RETRY_SECONDS = 1.0


class Placement:
    """Places one pod at a time, so that two never count on the same room."""

    def __init__(self, api: Api, faults: FaultBook, pods: Informer, nodes: Informer) -> None:
        self._api = api
        self._faults = faults
        self._pods = pods
        self._nodes = nodes
        self._events = Recorder(api, "default-scheduler")
        self._assumed: dict[str, str] = {}

    async def reconcile(self, key: Key) -> float | None:
        """Bind a pod, or say why not and try again."""
        pod = self._pods.get(*key)
        if pod is None or pod["spec"].get("nodeName") or is_deleting(pod):
            return None
        if pod["spec"].get("schedulingGates"):
            return None
        reasons: dict[str, int] = {}
        for node in sorted(self._nodes.all(), key=lambda node: -preference(pod, node)):
            reason = await self._reason(pod, node)
            if reason is None:
                await self._bind(pod, node["metadata"]["name"])
                return None
            reasons[reason] = reasons.get(reason, 0) + 1
        await self._refuse(pod, reasons)
        return RETRY_SECONDS

    async def _reason(self, pod: Object, node: Object) -> str | None:
        name, uid = target_of(pod)
        namespace = pod["metadata"]["namespace"]
        if rule := await self._faults.active(Fault.UNSCHEDULABLE, namespace, name, uid):
            return f"Insufficient {rule.text('resource', 'nvidia.com/gpu')}"
        if await self._faults.active(Fault.TOO_MANY_PODS, namespace, name, uid):
            return "Too many pods"
        return why_not(pod, node, [self._placed(other) for other in self._pods.all() if other is not pod])

    def _placed(self, pod: Object) -> Object:
        """A pod with the node that it was just bound to, also while the watch has not said so yet."""
        uid = pod["metadata"]["uid"]
        if pod["spec"].get("nodeName"):
            self._assumed.pop(uid, None)
        elif uid in self._assumed:
            return {**pod, "spec": {**pod["spec"], "nodeName": self._assumed[uid]}}
        return pod

    async def _bind(self, pod: Object, node: str) -> None:
        condition = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp()}
        await self._api.patch(PODS, *key_of(pod), {"spec": {"nodeName": node}})
        self._assumed[pod["metadata"]["uid"]] = node
        status = {"phase": "Pending", "conditions": [condition]}
        await self._api.patch(PODS, *key_of(pod), {"status": status}, subresource="status")
        namespace, name = key_of(pod)
        await self._events.normal(pod, "Scheduled", f"Successfully assigned {namespace}/{name} to {node}")

    async def _refuse(self, pod: Object, reasons: dict[str, int]) -> None:
        total = sum(reasons.values())
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        message = f"0/{total} nodes are available: {listed}." if total else "no nodes available to schedule pods"
        old: Object = next(iter((pod.get("status") or {}).get("conditions") or ()), {})
        if old.get("message") != message:
            condition = {
                "type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message,
                "lastTransitionTime": stamp(),
            }  # fmt: skip
            status = {"phase": "Pending", "conditions": [condition]}
            await self._api.patch(PODS, *key_of(pod), {"status": status}, subresource="status")
        await self._events.warning(pod, "FailedScheduling", message)
