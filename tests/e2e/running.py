"""Start runs on the shared stack and look at them."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from include.local.demo import Stack, run_folder


def start(stack: Stack, dag_id: str, conf: dict[str, Any]) -> str:
    """Trigger a run; return its id."""
    stack.api.wait_for_dag(dag_id)
    return stack.api.trigger(dag_id, conf)


def run(stack: Stack, dag_id: str, conf: dict[str, Any]) -> tuple[str, Path]:
    """Trigger a run and wait for its end; return its state and its folder."""
    run_id = start(stack, dag_id, conf)
    return stack.follow(dag_id, run_id, timeout=420), run_folder(dag_id, run_id)


def wait_for_task(stack: Stack, dag_id: str, run_id: str, task: str, state: str, timeout: float = 180) -> None:
    """Wait until a task of a run is in a state."""

    def there() -> bool:
        found = {item["task_id"]: item["state"] for item in stack.api.task_instances(dag_id, run_id)}
        return found.get(task) == state

    wait_until(f"{task} {state}", there, timeout)


def wait_until(what: str, true: Callable[[], bool], timeout: float = 120) -> None:
    """Poll until something holds.

    :raises TimeoutError: naming what did not come to hold.
    """
    deadline = time.monotonic() + timeout
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not after {timeout:.0f} s")
        time.sleep(0.3)
