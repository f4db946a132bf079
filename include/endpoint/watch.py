"""Wait for endpoints without blocking an event loop; says each step of the story once."""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from include.endpoint.observe import observe
from include.endpoint.readiness import Readiness, evaluate
from include.errors import FailureClass

if TYPE_CHECKING:
    from include.catalog.plan import ReleasePlan
    from include.endpoint.clients import Clients
    from include.endpoint.model import EndpointRef

POLL_SECONDS = 0.5


async def wait_until_ready(
    ref: EndpointRef, plan: ReleasePlan, clients: Clients, *, timeout_seconds: float
) -> AsyncIterator[Readiness]:
    """Yield each change of the verdict; the last one is ``ready`` or ``failed``."""
    loop = asyncio.get_running_loop()
    ends = loop.time() + timeout_seconds
    said = ""
    while True:
        verdict = await asyncio.to_thread(_look, ref, plan, clients)
        if verdict.line != said:
            said = verdict.line
            yield verdict
        if verdict.state != "pending":
            return
        if loop.time() > ends:
            yield Readiness(
                "failed",
                "failed",
                "NotReadyInTime",
                f"{ref.name} was not ready after {timeout_seconds:.0f} s; last: {verdict.line}",
                "raise deployment.max_deploy_seconds, or look at what the last line names",
                FailureClass.CAPACITY,
            )
            return
        await asyncio.sleep(POLL_SECONDS)


def _look(ref: EndpointRef, plan: ReleasePlan, clients: Clients) -> Readiness:
    return evaluate(observe(ref, plan, clients), dt.datetime.now(dt.UTC))
