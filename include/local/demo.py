"""``make demo`` and ``make up``: the whole thing on this machine, once, or until Ctrl-C.

Starts the local HyperPod and a real Airflow, releases a small real model through ``release_model``, tells what
happens as it happens, and leaves nothing running.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from include.catalog.plan import RunIdentity
from include.local.airflow import AirflowApi, LocalAirflow
from include.local.faultcontrol import FaultControl
from include.local.processes import end_recorded
from include.local.progress import Story
from include.local.summary import read_run, render, summarise
from include.local.supervisor import LocalHyperPod
from include.objects import PROJECT_ROOT
from include.results.schema import BenchmarkResult

VAR = PROJECT_ROOT / "var"
DAGS_TO_RUN = (
    "release_model", "refresh_models", "nightly_benchmark", "judge_nights", "confirm_suspicion", "bisect_regression",
    "reap_endpoints",
)  # fmt: skip


def main(argv: list[str] | None = None) -> int:
    """Run the demo, or keep everything running; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m include.local.demo", description=__doc__)
    parser.add_argument("--keep-running", action="store_true", help="start everything and wait for Ctrl-C")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--workload", action="append", dest="workloads")
    parser.add_argument("--timeout", type=float, default=900, help="seconds that the run may take")
    arguments = parser.parse_args(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        if arguments.keep_running:
            return _keep_running()
        return _demo(arguments.model, arguments.workloads or ["smoke"], arguments.timeout)
    except KeyboardInterrupt:
        print("\nstopped")
        return 130


def _demo(model: str, workloads: list[str], timeout: float) -> int:
    started = time.monotonic()
    folder = VAR / "demo"
    end_recorded(folder / "airflow" / "processes.json")
    shutil.rmtree(folder, ignore_errors=True)
    conf = {"model": model, "cluster": "local", "workloads": workloads}
    story = Story(started)
    with Stack(folder / "airflow", story) as stack:
        run_id = stack.api.trigger("release_model", conf)
        story.say(f"release_model {run_id}: model {model}, workloads {', '.join(workloads)}")
        state = stack.follow("release_model", run_id, timeout)
        story.say(f"run {state}; stopping")
        leftovers = stack.leftovers()
    leftovers += stack.hyperpod.leftovers()
    try:
        record, teardown = read_run(run_folder("release_model", run_id))
    except FileNotFoundError as error:
        print(f"\nFAILED: the run {state} without a record ({error}). Logs: {folder / 'airflow'}", file=sys.stderr)
        return 1
    results = _results(record.results)
    wall = time.monotonic() - started
    summary = summarise(record, results, teardown, wall_seconds=wall, leftovers=leftovers)
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    print(render(summary))
    good = state == "success" and record.state == "success" and teardown.get("absent") and not leftovers
    if not good:
        print(f"\nFAILED: {record.message or state}. Logs: {folder / 'airflow' / 'logs'}", file=sys.stderr)
    return 0 if good else 1


def _keep_running() -> int:
    story = Story(time.monotonic())
    with Stack(VAR / "airflow", story) as stack:
        for dag_id in DAGS_TO_RUN:
            stack.api.wait_for_dag(dag_id)
        stack.api.call("PATCH", "/dags/release_model", {"is_paused": False})
        stack.api.call("PATCH", "/dags/reap_endpoints", {"is_paused": False})
        url = stack.airflow.url
        story.say(f"Airflow {url}   (no login on this machine)   results and reports: {VAR / 'results'}")
        story.say(f"release a model: {url}/dags/release_model   Ctrl-C stops everything")
        while True:
            for name in stack.airflow.restart_dead():
                story.say(f"{name} had died; started again")
            time.sleep(1)


class Stack:
    """The local HyperPod and Airflow together, as a context manager.

    :param home: AIRFLOW_HOME.
    :param state: folder of the local HyperPod.
    :param settings: environment variables of Airflow, over those of :mod:`include.local.airflow`.
    """

    def __init__(
        self, home: Path, story: Story, settings: Mapping[str, str] | None = None, state: Path = VAR / "local"
    ) -> None:
        self.story = story
        self.settings = dict(settings or {})
        self.hyperpod = LocalHyperPod(state)
        self.airflow = LocalAirflow(home, self.settings)
        self.api = AirflowApi(self.airflow.url)

    def __enter__(self) -> Stack:
        end_recorded(self.airflow.home / "processes.json")
        self.story.say("starting the local HyperPod and Airflow")
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        with _uninterrupted():
            self.airflow.stop()
            self.hyperpod.down()

    def _start(self) -> None:
        database = threading.Thread(target=self.airflow.prepare, daemon=True)
        database.start()
        self.hyperpod.up(say=self.story.say)
        self.airflow.environment = {**self.hyperpod.environment(), **self.settings}
        database.join()
        self.airflow.start()
        seconds = self.airflow.wait_healthy()
        self.story.say(f"Airflow healthy after {seconds:.0f} s at {self.airflow.url}")
        self.api.login()
        self.api.wait_for_dag("release_model")
        self._reap_left_over()

    def _reap_left_over(self) -> None:
        left = self.hyperpod.endpoints()
        if not left:
            return
        self.story.say(f"a killed session left {len(left)} endpoint objects; the reaper takes those whose run is over")
        self.api.wait_for_dag("reap_endpoints")
        self.follow("reap_endpoints", self.api.trigger("reap_endpoints", {}), timeout=300)

    def follow(self, dag_id: str, run_id: str, timeout: float) -> str:
        """Tell the run's story until it ends; return its final state.

        :raises TimeoutError: when it takes longer than ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            for name in self.airflow.restart_dead():
                self.story.say(f"{name} had died; started again")
            self.story.tasks(self.api.task_instances(dag_id, run_id))
            state = self.api.run_state(dag_id, run_id)
            if state in ("success", "failed"):
                self.story.tasks(self.api.task_instances(dag_id, run_id))
                return state
            time.sleep(0.5)
        raise TimeoutError(f"{dag_id} {run_id} did not end in {timeout:.0f} s; {self.story.waiting_for()}")

    @property
    def faults(self) -> FaultControl:
        """The scripted faults of the local HyperPod."""
        return FaultControl(self.hyperpod.layout)

    def leftovers(self) -> list[str]:
        """Endpoints of ours that still exist on the Kubernetes or the SageMaker plane."""
        return self.hyperpod.endpoints()


class _uninterrupted:  # noqa: N801 (reads as a statement)
    """Ctrl-C while stopping must not leave half of it running."""

    def __enter__(self) -> None:
        self.before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number in self.before:
            signal.signal(number, signal.SIG_IGN)

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def run_folder(dag_id: str, run_id: str) -> Path:
    """Return where the local cluster's results store keeps a run."""
    run = RunIdentity(dag_id=dag_id, run_id=run_id, started_at=dt.datetime.now(dt.UTC))
    return VAR / "results" / run.path


def _results(ids: tuple[str, ...]) -> list[BenchmarkResult]:
    from include.results.store import ResultsStore

    store = ResultsStore.open(str(VAR / "results"))
    wanted: dict[str, Any] = {result.result_id: result for result in store.results() if result.result_id in ids}
    return [wanted[result_id] for result_id in ids if result_id in wanted]


if __name__ == "__main__":
    os.environ.setdefault("NO_PROXY", "127.0.0.1,localhost")
    sys.exit(main())
