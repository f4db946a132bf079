"""Wait for endpoints without blocking an event loop; says each step of the story once.

All waiters of an event loop share one watch per cluster and namespace: what one more waiting endpoint costs is its
own changes. Only what no watch tells (SageMaker, load balancer, a completion, patience) is looked at from time to
time, in a thread.
"""

from __future__ import annotations

import asyncio
import dataclasses
import datetime as dt
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

from include.endpoint.facts import Facts
from include.endpoint.namespaceview import NamespaceView, shared_view
from include.endpoint.observe import complete, operator_deployments, own_nodes
from include.endpoint.readiness import Limits, Readiness, evaluate
from include.endpoint.resources import ENDPOINT_KINDS, WORKLOADS
from include.endpoint.snapshot import Snapshot, facts_from
from include.errors import FailureClass, PipelineError

if TYPE_CHECKING:
    from include.catalog.plan import ReleasePlan
    from include.endpoint.clients import Clients
    from include.endpoint.model import EndpointRef

SYNC_TIMEOUT_S = 60.0
# How often to look without being told: quickly at first, then less and less.
FIRST_PAUSE_S, MOST_PAUSE_S, PAUSE_GROWTH = 0.5, 10.0, 1.5
# How often the rest of the cluster (operator, queue, nodes) is asked about.
SURROUNDINGS_S = 15.0
OUTSIDE_PHASES = ("registration", "load balancer", "first completion", "operator")


async def wait_until_ready(
    ref: EndpointRef,
    plan: ReleasePlan,
    clients: Clients,
    *,
    timeout_seconds: float,
    limits: Limits | None = None,
) -> AsyncGenerator[Readiness]:
    """Yield each change of the verdict; the last one is ``ready`` or ``failed``."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_seconds
    said = ""
    try:
        async with shared_view(clients, ref.namespace) as view:
            await view.synced(min(SYNC_TIMEOUT_S, timeout_seconds))
            waiter = _Waiter(ref, plan, clients, view, limits)
            with view.subscribed(ref.name) as changed:
                while True:
                    changed.clear()
                    verdict = await waiter.look()
                    if verdict.line != said:
                        said = verdict.line
                        yield verdict
                    if verdict.state != "pending":
                        return
                    if loop.time() >= ends:
                        yield _too_late(ref, timeout_seconds, verdict)
                        return
                    await _changed_or(changed, min(waiter.pause, max(ends - loop.time(), 0)))
    except PipelineError as error:
        yield Readiness("failed", "failed", error.reason, error.message, error.fix, error.failure_class, error.evidence)


async def wait_until_gone(ref: EndpointRef, clients: Clients, *, timeout_seconds: float) -> bool:
    """Wait until the shared watch shows nothing of the endpoint any more; false when time was up before.

    A hint that it is worth looking, no proof: that is for :func:`include.endpoint.teardown.teardown`, which asks
    both planes.

    :raises PipelineError: when the API refuses to be watched.
    """
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_seconds
    async with shared_view(clients, ref.namespace) as view:
        await view.synced(min(SYNC_TIMEOUT_S, timeout_seconds))
        with view.subscribed(ref.name) as changed:
            while True:
                changed.clear()
                view.raise_failure()
                if view.snapshot(ref).without_objects:
                    return True
                if loop.time() >= ends:
                    return False
                await _changed_or(changed, max(ends - loop.time(), 0))


@dataclasses.dataclass
class _Waiter:
    """One waiting endpoint."""

    ref: EndpointRef
    plan: ReleasePlan
    clients: Clients
    view: NamespaceView
    limits: Limits | None
    pause: float = FIRST_PAUSE_S
    _known: Snapshot = dataclasses.field(default_factory=Snapshot)
    _asked_at: float = float("-inf")
    _phase: str = ""

    async def look(self) -> Readiness:
        """Judge what the watch has shown, and look where it cannot see when that may decide."""
        self.view.raise_failure()
        facts = await self._facts()
        verdict = evaluate(facts, facts.at, self.limits)
        if self._needs_more(facts, verdict):
            facts = await asyncio.to_thread(complete, facts, self.ref, self.plan, self.clients)
            verdict = evaluate(facts, dt.datetime.now(dt.UTC), self.limits)
        fresh = verdict.phase != self._phase
        self._phase = verdict.phase
        self.pause = FIRST_PAUSE_S if fresh else min(self.pause * PAUSE_GROWTH, MOST_PAUSE_S)
        return verdict

    async def _facts(self) -> Facts:
        await self._surroundings()
        seen = self.view.snapshot(self.ref)
        if seen.resource is None:
            # A watch may be behind: that an object is gone is for the API to say.
            seen = dataclasses.replace(seen, resource=await asyncio.to_thread(self._ask_resource))
        now = dt.datetime.now(dt.UTC)
        known = self._known
        snapshot = dataclasses.replace(seen, queue=known.queue, operator=known.operator, nodes=known.nodes)
        return facts_from(self.ref, self.plan, snapshot, now)

    async def _surroundings(self) -> None:
        """Ask for what is not watched: the operator, the queue, the nodes of our pods."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._asked_at < SURROUNDINGS_S:
            return
        first = self._asked_at == float("-inf")
        self._asked_at = loop.time()
        if first and not self.plan.cluster.queue_name:
            return
        self._known = await asyncio.to_thread(self._ask_surroundings, self.view.snapshot(self.ref))

    def _ask_resource(self) -> dict[str, Any] | None:
        return self.clients.api.get(ENDPOINT_KINDS[self.ref.kind], self.ref.name, self.ref.namespace)

    def _ask_surroundings(self, seen: Snapshot) -> Snapshot:
        settled = bool(((seen.resource or {}).get("status") or {}).get("state"))
        api, namespace = self.clients.api, self.ref.namespace
        return Snapshot(
            queue=tuple(api.list(WORKLOADS, namespace)) if self.plan.cluster.queue_name else (),
            operator=None if settled or self.ref.kind == "direct" else operator_deployments(self.clients),
            nodes=own_nodes(list(seen.pods), self.clients),
        )

    def _needs_more(self, facts: Facts, verdict: Readiness) -> bool:
        if verdict.state == "failed":
            return any(item.restarts or item.exit_code for pod in facts.pods for item in pod.containers)
        crashed = any(item.restarts for pod in facts.pods for item in pod.containers)
        return crashed or (bool(facts.workloads) and verdict.phase in OUTSIDE_PHASES)


async def _changed_or(changed: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return


def _too_late(ref: EndpointRef, seconds: float, verdict: Readiness) -> Readiness:
    return Readiness(
        "failed",
        "failed",
        "NotReadyInTime",
        f"{ref.name} was not ready after {seconds:.0f} s; last: {verdict.line}",
        verdict.fix or "raise deployment.max_deploy_seconds, or look at what the last line names",
        FailureClass.CAPACITY,
        verdict.evidence,
        verdict.row,
    )
