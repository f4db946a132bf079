"""What the pods of one node share: the API, events, faults, ports, settings."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from include.local.controller.api import Api
from include.local.controller.faultbook import FaultBook
from include.local.controller.recorder import Recorder
from include.local.controller.resources import Object, controller_of
from include.local.faults import Fault, Rule
from include.local.node.config import NodeConfig
from include.local.node.ports import PortAllocator


@dataclass
class Kubelet:
    """Shared parts of one node.

    :param folder: ``<state>/nodes/<node>``.
    :param lose: makes the node disappear for some seconds.
    """

    node: str
    folder: Path
    api: Api
    http: aiohttp.ClientSession
    recorder: Recorder
    book: FaultBook
    config: NodeConfig
    ports: PortAllocator
    heartbeat: Path
    fsx_root: Path
    lose: Callable[[float], Awaitable[None]]
    pulled: set[str] = field(default_factory=set)

    async def fault(self, kind: Fault, pod: Object) -> Rule | None:
        """Return the rule that hits a pod: by its endpoint, its Job, or its own name."""
        if not self.book.any(kind):
            return None
        name, uid = target_of(pod)
        return await self.book.active(kind, pod["metadata"]["namespace"], name, uid)


def target_of(pod: Object) -> tuple[str, str]:
    """Name and UID that a fault rule matches: the controlling Deployment or Job, else the pod itself."""
    owner = controller_of(pod)
    if owner is not None:
        return str(owner["name"]), str(owner["uid"])
    return str(pod["metadata"]["name"]), str(pod["metadata"]["uid"])
