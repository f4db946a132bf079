"""The triggerer's part of a wait, in a process of its own: many triggers on one event loop, an event a line.

    python -m bench.waiters ready|absent < {"plan": …, "ref": …} lines

Runs the project's own trigger class (``ready``) or the watch that it stands on (``absent``), with the connections of
the environment, as Airflow's triggerer does.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import Any

PATIENCE_S = 900.0
MARK = "told "


async def _ready(item: dict[str, Any]) -> None:
    from hyperpod.triggers.endpoint import EndpointReadyTrigger

    trigger = EndpointReadyTrigger(plan=item["plan"], ref=item["ref"], timeout_seconds=PATIENCE_S)
    async for event in trigger.run():
        _say(item["ref"]["name"], event.payload["status"])


async def _absent(item: dict[str, Any]) -> None:
    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.catalog.plan import ReleasePlan
    from include.endpoint.model import EndpointRef
    from include.endpoint.watch import wait_until_absent

    clients = HyperPodHook(ReleasePlan.from_xcom(item["plan"]).cluster).clients()
    ref = EndpointRef.model_validate(item["ref"])
    async for step in wait_until_absent(ref, clients, timeout_seconds=PATIENCE_S):
        print(step.message)
        if step.absent:
            _say(ref.name, "absent")


def _say(name: str, status: str) -> None:
    # Marked: Airflow logs to standard output too.
    print(MARK + json.dumps({"name": name, "status": status, "at": time.time()}))


async def _all(kind: str, items: list[dict[str, Any]]) -> None:
    waits = {"ready": _ready, "absent": _absent}[kind]
    await asyncio.gather(*(waits(item) for item in items))


if __name__ == "__main__":
    asyncio.run(_all(sys.argv[1], [json.loads(line) for line in sys.stdin]))
