"""The triggerer's part of a wait, in a process of its own: many triggers on one event loop, an event a line.

    python -m bench.waiters ready|gone < {"plan": …, "ref": …} lines

Runs the project's own trigger classes with the connections of the environment, as Airflow's triggerer does.
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


async def _gone(item: dict[str, Any]) -> None:
    from hyperpod.triggers.endpoint import EndpointGoneTrigger

    trigger = EndpointGoneTrigger(cluster=item["plan"]["cluster"], ref=item["ref"], timeout_seconds=PATIENCE_S)
    async for event in trigger.run():
        _say(item["ref"]["name"], "gone" if event.payload["gone"] else event.payload["why"] or "still there")


def _say(name: str, status: str) -> None:
    # Marked: Airflow logs to standard output too.
    print(MARK + json.dumps({"name": name, "status": status, "at": time.time()}))


WAITS = {"ready": _ready, "gone": _gone}


async def _all(wait: str, items: list[dict[str, Any]]) -> None:
    waiting = [asyncio.create_task(WAITS[wait](item)) for item in items]
    await asyncio.gather(*waiting)


if __name__ == "__main__":
    asyncio.run(_all(sys.argv[1], [json.loads(line) for line in sys.stdin]))
