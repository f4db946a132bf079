"""One run under attack: which step it is at, read from its journal on disk, so that no API has to answer for it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from pathlib import Path

from include.local.demo import VAR, run_folder
from tests.chaos.matrix import STEPS, Injection

STAGES = {
    "stage": "staging",
    "create_endpoint": "staging",
    "wait_until_ready": "waiting",
    "validate": "validating",
    "benchmark": "benchmarking",
    "record": "recording",
    "teardown": "deleting",
}
ORDER = ("staging", *STEPS)


@dataclass
class Attacked:
    """One run and what is planned for it.

    :param order: the steps that a run goes through.
    :param reached: step → when it was first seen (monotonic seconds).
    """

    dag_id: str
    run_id: str
    planned: list[Injection]
    started: float = field(default_factory=time.monotonic)
    reached: dict[str, float] = field(default_factory=dict)
    state: str = "running"
    order: tuple[str, ...] = ORDER

    @property
    def folder(self) -> Path:
        """The run's journal."""
        return run_folder(self.dag_id, self.run_id)

    def look(self) -> None:
        """Note the steps that have begun."""
        for step in self._steps():
            self.reached.setdefault(step, time.monotonic())

    def _steps(self) -> set[str]:
        found = set()
        for stage, step in STAGES.items():
            if (self.folder / "stages" / f"{stage}.json").exists():
                found.add(step)
        name = _read(self.folder / "plan.json").get("endpoint_name")
        if name and (VAR / "results" / "intents" / "local" / f"{name}.json").exists():
            found.add("announced")
        if _read(self.folder / "stages" / "create_endpoint.json").get("state") == "success":
            found.add("applied")
        return found

    def due(self) -> list[Injection]:
        """Return what has to be injected now, and forget it; a refusal is armed one step early, to be there in time."""
        now = time.monotonic()
        due = []
        for injection in list(self.planned):
            step = injection.point.step if injection.is_kill else self.order[self.order.index(injection.point.step) - 1]
            begun = self.reached.get(step)
            if begun is not None and now - begun >= (injection.delay_s if injection.is_kill else 0):
                due.append(injection)
                self.planned.remove(injection)
        return due


def _read(path: Path) -> dict[str, str]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError):
        return {}
