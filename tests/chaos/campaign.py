"""Run releases, a few at a time, and hit them until the whole matrix has been injected."""

from __future__ import annotations

import contextlib
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import requests

from include.local.demo import Stack
from include.local.summary import read_run
from tests.chaos.census import Bait, census
from tests.chaos.follow import Attacked
from tests.chaos.inject import Armed, arm, disarm, has_hit, kill
from tests.chaos.matrix import ORDER_OF, Injection

AT_ONCE, PER_RUN = 3, 3
LONGEST_RUN_S = 600
MOST_TRIES = 5
# The reaper leaves intents alone that are younger than two minutes.
GRACE_S = 125
ENDS = ("success", "failed")


@dataclass
class Tally:
    """What was injected, and what came of the runs."""

    by_point: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    runs: list[Attacked] = field(default_factory=list)

    @property
    def injections(self) -> int:
        """Number of faults that met their target."""
        return sum(self.by_point.values())


class Campaign:
    """Injects a matrix into runs of one DAG.

    :param conf: makes the conf of the next run.
    :param until: monotonic second after which no new run is started.
    """

    def __init__(self, stack: Stack, dag_id: str, conf: Callable[[], dict[str, object]], until: float) -> None:
        self.stack, self.dag_id, self.conf, self.until = stack, dag_id, conf, until
        self.tally = Tally()
        self._armed: list[Armed] = []
        self._tries: Counter[int] = Counter()
        self._asked = 0.0

    def run(self, injections: Iterable[Injection]) -> Tally:
        """Inject all; returns when every run has ended."""
        todo = deque(injections)
        live: list[Attacked] = []
        while todo or live:
            self._revive()
            while todo and len(live) < AT_ONCE and time.monotonic() < self.until:
                begun = self._begin(todo)
                if begun is None:
                    break
                live.append(begun)
            for run in live:
                run.look()
                for injection in run.due():
                    self._inject(injection, todo)
            self._ends(live, todo)
            if not live and time.monotonic() > self.until:
                break
            time.sleep(0.05)
        self.tally.missed.update(str(injection.point) for injection in todo)
        disarm(self.stack)
        return self.tally

    def attacked(self, run_id: str, planned: list[Injection]) -> Attacked:
        """Return a run as this campaign follows it."""
        return Attacked(self.dag_id, run_id, planned)

    def _revive(self) -> None:
        for name in self.stack.airflow.restart_dead():
            self.stack.story.say(f"{name} had died; started again")

    def _begin(self, todo: deque[Injection]) -> Attacked | None:
        with contextlib.suppress(requests.RequestException, RuntimeError):
            run_id = self.stack.api.trigger(self.dag_id, self.conf())
            run = self.attacked(run_id, _take(todo))
            self.stack.story.say(f"{run_id}: {', '.join(str(one.point) for one in run.planned)}")
            self.tally.runs.append(run)
            return run
        return None

    def _inject(self, injection: Injection, todo: deque[Injection]) -> None:
        try:
            if not injection.is_kill:
                self._armed.append(arm(self.stack, injection))
                return
            hit = kill(self.stack, injection)
        except OSError:
            hit = False
        if hit:
            self._count(injection)
        else:
            self._again([injection], todo)

    def _count(self, injection: Injection) -> None:
        self.tally.by_point[str(injection.point)] += 1
        self.stack.story.say(f"injected {self.tally.injections}: {injection.point}")

    def _again(self, injections: Iterable[Injection], todo: deque[Injection]) -> None:
        """Plan what did not happen for another run, a few times."""
        for injection in injections:
            self._tries[id(injection)] += 1
            if self._tries[id(injection)] < MOST_TRIES:
                todo.append(injection)
            else:
                self.tally.missed[str(injection.point)] += 1

    def _ends(self, live: list[Attacked], todo: deque[Injection]) -> None:
        if time.monotonic() - self._asked < 1:
            return
        self._asked = time.monotonic()
        with contextlib.suppress(OSError):
            for armed in [armed for armed in self._armed if has_hit(self.stack, armed)]:
                self._armed.remove(armed)
                self._count(armed.injection)
        for run in list(live):
            with contextlib.suppress(requests.RequestException, RuntimeError):
                run.state = self.stack.api.run_state(run.dag_id, run.run_id)
            overdue = time.monotonic() - run.started > LONGEST_RUN_S
            if run.state in ENDS or overdue:
                live.remove(run)
                self._again(run.planned, todo)
                took = time.monotonic() - run.started
                self.stack.story.say(f"{run.run_id}: {run.state if not overdue else 'STUCK'} after {took:.0f} s")
        if not live:
            # What never met a call did not happen: another run gets it.
            self._again([armed.injection for armed in self._armed], todo)
            self._armed.clear()
            with contextlib.suppress(OSError):
                disarm(self.stack)


def _take(todo: deque[Injection]) -> list[Injection]:
    """Take the next injections for a run, each at another step, in the order of the steps."""
    taken: list[Injection] = []
    for injection in list(todo):
        steps = {one.point.step for one in taken}
        if len(taken) < PER_RUN and injection.point.step not in steps:
            taken.append(injection)
            todo.remove(injection)
    return sorted(taken, key=lambda one: ORDER_OF[one.point.step])


def lost_results(stack: Stack, runs: Iterable[Attacked]) -> list[str]:
    """Return what is wrong with the runs' records: absent, red under a green run, no reason, no results."""
    from include.local.demo import VAR
    from include.results.store import ResultsStore

    known = {result.result_id for result in ResultsStore.open(str(VAR / "results")).results()}
    wrong = []
    for run in runs:
        try:
            record, _ = read_run(run.folder)
        except FileNotFoundError:
            wrong.append(f"{run.run_id}: no record")
            continue
        if record.state == "failed" and not (record.failed_stage and record.reason):
            wrong.append(f"{run.run_id}: failed without a stage and a reason")
        if run.state == "success" and record.state != "success":
            wrong.append(f"{run.run_id}: the run is green, its record says {record.state}")
        if record.state == "success" and not record.results:
            wrong.append(f"{run.run_id}: success without results")
        missing = set(record.results) - known
        wrong += [f"{run.run_id}: result {result} is not in the store" for result in missing]
        if run.state not in ENDS:
            wrong.append(f"{run.run_id}: still {run.state}")
    return wrong


def settle(stack: Stack, seconds: float) -> None:
    """Keep everything alive for a while."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        stack.airflow.restart_dead()
        time.sleep(0.2)


def one_tick_of_the_reaper(stack: Stack) -> str:
    """Let the reaper run once, after the grace that it gives to creations; return its state."""
    settle(stack, GRACE_S)
    stack.airflow.wait_healthy()
    stack.api.wait_for_dag("reap_endpoints")
    return stack.follow("reap_endpoints", stack.api.trigger("reap_endpoints", {}), timeout=300)


def what_is_left(stack: Stack, bait: Bait) -> list[str]:
    """Return what exists beyond the baits, given some seconds for what is just going."""
    deadline = time.monotonic() + 30
    while True:
        left = bait.leaked(census(stack))
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(1)
