"""The control arm: the same job as people write it first, under the same faults, to show what our safeguards are worth.

Its DAG applies the custom resource under a name of its own, polls the phase, sends a few requests, and deletes with
a plain teardown task that does not verify. No intent, no owner, no proof, no reaper.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterable
from pathlib import Path

import requests

from include.local.demo import Stack
from include.objects import PROJECT_ROOT
from tests.chaos.campaign import Campaign
from tests.chaos.follow import Attacked
from tests.chaos.matrix import Injection

DAG_ID = "control_release"
STEP_OF_TASK = {
    "apply_endpoint": "announced",
    "wait": "waiting",
    "load": "benchmarking",
    "delete_endpoint": "deleting",
}
ORDER = ("staging", *STEP_OF_TASK.values())


def dags_folder(place: Path) -> Path:
    """Return a folder with the project's DAG files and the control arm's."""
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for file in (*(PROJECT_ROOT / "dags").glob("*.py"), Path(__file__).parent / "control_dag.py"):
        shutil.copy(file, place)
    return place


def comparable(injections: Iterable[Injection]) -> list[Injection]:
    """Return the injections at steps that the control arm has too."""
    return [one for one in injections if one.point.step in STEP_OF_TASK.values()]


class ControlRun(Attacked):
    """A run of the control arm; it keeps no journal, so Airflow is asked for its tasks."""

    stack: Stack
    asked: float = 0.0

    def look(self) -> None:
        """Note the steps that have begun."""
        if time.monotonic() - self.asked < 0.3:
            return
        self.asked = time.monotonic()
        with contextlib.suppress(requests.RequestException, RuntimeError):
            for task in self.stack.api.task_instances(self.dag_id, self.run_id):
                step = STEP_OF_TASK.get(task["task_id"])
                if step and task["start_date"]:
                    self.reached.setdefault("staging", self.asked)
                    self.reached.setdefault(step, self.asked)


class ControlCampaign(Campaign):
    """The same loop over runs of the control arm."""

    def attacked(self, run_id: str, planned: list[Injection]) -> Attacked:
        """Return the run as this arm follows it."""
        run = ControlRun(self.dag_id, run_id, planned, order=ORDER)
        run.stack = self.stack
        return run
