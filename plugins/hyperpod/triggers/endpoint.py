"""Wait in the triggerer for an endpoint to come and to go: one shared watch a cluster, nothing deleted."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class EndpointReadyTrigger(BaseTrigger):
    """Fires once: when the endpoint is ready, has failed, or time is up.

    :param plan: the run's plan as JSON values; names connections, never credentials.
    :param ref: the endpoint's reference as JSON values.
    :param timeout_seconds: from the trigger's first start.
    """

    def __init__(self, plan: dict[str, Any], ref: dict[str, Any], timeout_seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.plan = plan
        self.ref = ref
        self.timeout_seconds = timeout_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and its arguments."""
        arguments = {"plan": self.plan, "ref": self.ref, "timeout_seconds": self.timeout_seconds}
        return "hyperpod.triggers.endpoint.EndpointReadyTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event: status, reason, message, fix, evidence and the story so far."""
        import asyncio

        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.plan import ReleasePlan
        from include.endpoint.model import EndpointRef
        from include.endpoint.watch import wait_until_ready

        plan = ReleasePlan.from_xcom(self.plan)
        hook = HyperPodHook(plan.cluster)
        # Connections are read with blocking calls: never on the triggerer's loop.
        clients = await asyncio.to_thread(hook.clients)
        story: list[str] = []
        waiting = wait_until_ready(
            EndpointRef.model_validate(self.ref), plan, clients, timeout_seconds=self.timeout_seconds
        )
        # Closed here and now: the last waiter of a namespace ends its watches.
        async with contextlib.aclosing(waiting) as steps:
            async for step in steps:
                line = f"{step.phase}: {step.message}"
                if not story or story[-1] != line:
                    story.append(line)
                    self.log.info("%s %s", self.ref["name"], line)
                if step.state != "pending":
                    break
        yield TriggerEvent(  # type: ignore[no-untyped-call]
            {
                "status": step.state,
                "reason": step.reason,
                "message": step.message,
                "fix": step.fix,
                "failure_class": str(step.failure_class or ""),
                "evidence": list(step.evidence),
                "story": story,
            }
        )


class EndpointGoneTrigger(BaseTrigger):
    """Fires once: when the watch shows nothing of the endpoint any more, or time is up; the task then proves it.

    :param cluster: the cluster as JSON values; names connections, never credentials.
    :param ref: the endpoint's reference as JSON values.
    :param timeout_seconds: from the trigger's first start.
    """

    def __init__(self, cluster: dict[str, Any], ref: dict[str, Any], timeout_seconds: float) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cluster = cluster
        self.ref = ref
        self.timeout_seconds = timeout_seconds

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and its arguments."""
        arguments = {"cluster": self.cluster, "ref": self.ref, "timeout_seconds": self.timeout_seconds}
        return "hyperpod.triggers.endpoint.EndpointGoneTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event: whether it looks gone, and if it could not be watched why."""
        import asyncio

        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.specs import ClusterSpec
        from include.endpoint.model import EndpointRef
        from include.endpoint.watch import wait_until_gone
        from include.errors import PipelineError

        hook = HyperPodHook(ClusterSpec.model_validate(self.cluster))
        ref = EndpointRef.model_validate(self.ref)
        try:
            clients = await asyncio.to_thread(hook.clients)
            self.log.info("%s: waiting for its objects to go", ref.name)
            gone, why = await wait_until_gone(ref, clients, timeout_seconds=self.timeout_seconds), ""
        except PipelineError as error:
            gone, why = False, str(error)
        yield TriggerEvent({"gone": gone, "why": why})  # type: ignore[no-untyped-call]
