"""What the steps of a reconciliation share: API, AWS, faults, events, and ways to write objects."""

from __future__ import annotations

import logging
from dataclasses import dataclass

from include.canonical import digest
from include.local.controller.api import Api, ApiError
from include.local.controller.faultbook import FaultBook
from include.local.controller.recorder import Recorder
from include.local.controller.resources import Object, Resource, is_deleting, key_of
from include.local.faults import Fault, Rule
from include.local.operator.aws import Aws
from include.local.operator.statuses import same

logger = logging.getLogger(__name__)
DIGEST = "hyperpod-local/spec-digest"


@dataclass(frozen=True)
class World:
    """Access to the cluster and to AWS.

    :param resource: the kind of custom resource at hand.
    """

    api: Api
    resource: Resource
    faults: FaultBook
    events: Recorder
    aws: Aws

    async def fault(self, item: Object, kind: Fault) -> Rule | None:
        """Return the rule that hits an endpoint."""
        meta = item["metadata"]
        return await self.faults.active(kind, meta["namespace"], meta["name"], meta["uid"])

    async def status(self, item: Object, wanted: Object) -> bool:
        """Write what differs of a custom resource's status; true when something did."""
        wanted = wanted | {"observedGeneration": item["metadata"]["generation"]}
        if same(item.get("status") or {}, wanted):
            return False
        return await self.set_status(self.resource, item, wanted)

    async def set_status(self, resource: Resource, item: Object, status: Object) -> bool:
        """Merge into an object's status, unless it says so already or the object is gone."""
        live = await self.api.get(resource, *key_of(item))
        if live is None or same(live.get("status") or {}, status):
            return False
        try:
            await self.api.patch(resource, *key_of(item), {"status": status}, subresource="status")
        except ApiError as error:
            if error.status != 404:
                raise
            return False
        return True

    async def apply(self, resource: Resource, wanted: Object) -> Object:
        """Create an object, or bring its spec to the wanted one; return it as it is now.

        A spec is only written when what was last written differs, so that defaults and other writers' fields
        (an autoscaler's replicas) do not make a loop.
        """
        namespace, name = key_of(wanted)
        live = await self.api.get(resource, namespace, name)
        fingerprint = digest({k: v for k, v in wanted.items() if k != "metadata"})
        annotations = {**(wanted["metadata"].get("annotations") or {}), DIGEST: fingerprint}
        if live is None:
            made = wanted | {"metadata": wanted["metadata"] | {"annotations": annotations}}
            return await self.api.create(resource, made)
        if is_deleting(live) or (live["metadata"].get("annotations") or {}).get(DIGEST) == fingerprint:
            return live
        change = {k: v for k, v in wanted.items() if k != "metadata"} | {"metadata": {"annotations": annotations}}
        return await self.api.patch(resource, namespace, name, change)
