"""Live progress of a run for a terminal: a line for each change, and a sign of life in between."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

QUIET_SECONDS = 10.0
WAITING = ("queued", "scheduled", "running", "deferred", "up_for_retry", "restarting", "awaiting_input")
WHAT_FOR = {
    "plan": "the catalog and the source's revision",
    "preflight": "the cluster's answers",
    "stage": "weights to be moved and verified",
    "create_endpoint": "the Kubernetes API",
    "wait_until_ready": "the operator, the image, the weights and a first completion",
    "validate": "the endpoint's answers",
    "benchmark": "the load phases to end",
    "record": "records and report to be written",
    "teardown": "proof that every object is gone",
}


class Story:
    """Prints what changes, with the seconds since the start."""

    def __init__(self, started: float) -> None:
        self.started = started
        self.states: dict[str, str] = {}
        self.begun: dict[str, float] = {}
        self.last_said = time.monotonic()

    def say(self, text: str) -> None:
        """Print one line."""
        self.last_said = time.monotonic()
        print(f"[{self.last_said - self.started:6.1f} s] {text}", flush=True)

    def tasks(self, instances: Sequence[Mapping[str, Any]]) -> None:
        """Tell which tasks changed their state; after a silence, what the run waits for."""
        for instance in sorted(instances, key=lambda item: str(item.get("start_date") or "9")):
            name, state = _name(instance), str(instance["state"])
            if self.states.get(name) == state or state in ("None", "scheduled", "queued"):
                continue
            self.states[name] = state
            self._changed(name, state, instance)
        if time.monotonic() - self.last_said > QUIET_SECONDS:
            self.say(self.waiting_for())

    def waiting_for(self) -> str:
        """Return one line: which tasks are under way, since when, and what each waits for."""
        now = time.monotonic()
        under_way = [
            f"{name} ({now - self.begun.get(name, now):.0f} s): {_what_for(name)}"
            for name, state in self.states.items()
            if state in WAITING
        ]
        return "waiting: " + ("; ".join(under_way) or "the scheduler to start the next task")

    def _changed(self, name: str, state: str, instance: Mapping[str, Any]) -> None:
        if state in WAITING:
            self.begun.setdefault(name, time.monotonic())
            self.say(f"{name:<18} {state}: waits for {_what_for(name)}")
            return
        seconds = instance.get("duration")
        took = f" after {float(seconds):.1f} s" if seconds else ""
        tries = f", try {instance['try_number']}" if int(instance.get("try_number") or 0) > 1 else ""
        self.say(f"{name:<18} {state}{took}{tries}")


def _what_for(name: str) -> str:
    return WHAT_FOR.get(name.partition("[")[0], "its work")


def _name(instance: Mapping[str, Any]) -> str:
    index = int(instance.get("map_index", -1))
    name = str(instance["task_id"]).split(".")[-1]
    return name if index < 0 else f"{name}[{index}]"
