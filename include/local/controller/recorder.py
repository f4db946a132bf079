"""Events, counted as the kubelet and the controllers count them: one object per (object, reason, message)."""

from __future__ import annotations

import hashlib
import logging

from include.local.controller.api import Api, ApiError
from include.local.controller.clock import stamp
from include.local.controller.resources import EVENTS, Object

logger = logging.getLogger(__name__)


class Recorder:
    """Writes events of one component; a failed write is logged, never raised.

    :param host: node name, for the kubelet's events.
    """

    def __init__(self, api: Api, component: str, host: str = "") -> None:
        self._api = api
        self._source = {"component": component} | ({"host": host} if host else {})

    async def normal(self, item: Object, reason: str, message: str, field: str = "") -> None:
        """Record that something went as it should."""
        await self._record(item, "Normal", reason, message, field)

    async def warning(self, item: Object, reason: str, message: str, field: str = "") -> None:
        """Record that something went wrong."""
        await self._record(item, "Warning", reason, message, field)

    async def _record(self, item: Object, kind: str, reason: str, message: str, field: str) -> None:
        event = self._event(item, kind, reason, message, field)
        namespace, name = event["metadata"]["namespace"], event["metadata"]["name"]
        try:
            old = await self._api.get(EVENTS, namespace, name)
            if old is None:
                await self._api.create(EVENTS, event)
            else:
                seen = {"count": old.get("count", 1) + 1, "lastTimestamp": event["lastTimestamp"]}
                await self._api.patch(EVENTS, namespace, name, seen)
        except ApiError as error:
            if not (error.status == 403 and "being terminated" in error.message):
                logger.info("event %s of %s: %s", reason, name, error)

    def _event(self, item: Object, kind: str, reason: str, message: str, field: str) -> Object:
        meta = item["metadata"]
        involved = {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            "name": meta["name"],
            "uid": meta.get("uid", ""),
        }
        if meta.get("namespace"):
            involved["namespace"] = meta["namespace"]
        if field:
            involved["fieldPath"] = field
        identity = "|".join((meta.get("uid", ""), reason, message, field))
        suffix = hashlib.sha256(identity.encode()).hexdigest()[:16]
        now = stamp()
        return {
            "metadata": {"name": f"{meta['name']}.{suffix}", "namespace": meta.get("namespace") or "default"},
            "involvedObject": involved,
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "source": self._source,
            "reportingComponent": self._source["component"],
            "reportingInstance": self._source.get("host", ""),
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
