"""A against B, on purpose: two plans deployed again in pairs close in time, ABBA, until there is an interval.

KV cache on or off, one routing strategy or another, image X or Y: release both once, then ask. What drifts from hour
to hour hits both plans of a pair and cancels (:mod:`include.results.verdict.paired`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from include.catalog.plan import ReleasePlan
from include.catalog.specs import Spec
from include.errors import ConfigurationError
from include.objects import Objects
from include.results.index import Index
from include.results.journal import require_plan
from include.results.reruns import Step
from include.results.series import METRICS, figure
from include.results.store import parse
from include.results.verdict.paired import LEAST_PAIRS, Pair, compare, plan_order

FOLDER = "verdicts/trials"
MOST_FAILED = 2


class Contest(Spec):
    """What is asked.

    :param a_run, b_run: folders of two runs below the results store, whose plans are deployed again.
    :param load: as in the results (``c=4``).
    :param pairs: deployments of each plan.
    """

    a_run: str = Field(pattern=r"^runs/")
    b_run: str = Field(pattern=r"^runs/")
    workload: str
    load: str
    pairs: int = Field(6, ge=LEAST_PAIRS, le=20)


class Difference(Spec):
    """B over A in one metric, relative: 0.03 for 3 % above; ``detectable``: the smallest that so many pairs find."""

    metric: str
    verdict: Literal["higher", "lower", "inconclusive"]
    effect: float
    low: float
    high: float
    detectable: float
    pairs: int

    def __str__(self) -> str:
        interval = f"{self.effect:+.1%} [{self.low:+.1%}, {self.high:+.1%}]"
        return f"{self.metric} {interval} {self.verdict} (detectable {self.detectable:.1%}, {self.pairs} pairs)"


class Trial(Spec):
    """A contest, the deployments asked for so far, and the differences once it is closed.

    :param models: name in the catalog of A's and of B's model.
    """

    contest: Contest
    models: tuple[str, str]
    cluster: str
    steps: tuple[Step, ...] = ()
    differences: tuple[Difference, ...] = ()
    closed: str = ""

    @property
    def id(self) -> str:
        """The same for the same contest."""
        return hashlib.sha256(self.contest.model_dump_json().encode()).hexdigest()[:12]

    @property
    def path(self) -> str:
        """Path below the results store."""
        return f"{FOLDER}/{self.id}.json"

    def request(self) -> dict[str, str]:
        """Params of the deployment that was asked for last."""
        first = self.steps[-1].arm == "a"
        return {
            "model": self.models[0 if first else 1], "workload": self.contest.workload, "cluster": self.cluster,
            "case": self.path, "plan_of": self.contest.a_run if first else self.contest.b_run,
        }  # fmt: skip

    @property
    def story(self) -> str:
        """What happened, or what is next."""
        return self.closed or f"next is {self.steps[-1].arm.upper()}, {len(self.steps)} of {2 * self.contest.pairs}"


def begin(objects: Objects, contest: Contest) -> Trial:
    """Return the trial of a contest, with its first deployment asked for; one that exists is gone on with.

    :raises ConfigurationError: for an unknown run, another cluster, or a workload or load that both do not have.
    """
    a, b = (require_plan(objects, name, getattr(contest, name)) for name in ("a_run", "b_run"))
    _comparable(contest, a, b)
    made = Trial(contest=contest, models=(a.model.name, b.model.name), cluster=a.cluster.name)
    return read_trial(objects, made.path) or _ask(objects, made)


def read_trial(objects: Objects, path: str) -> Trial | None:
    """Return a trial by its path; ``None`` when there is none there."""
    data = objects.get(path) if path.startswith(f"{FOLDER}/") and ".." not in path else None
    return None if data is None else parse(Trial, data, path)


def read_trials(objects: Objects) -> list[Trial]:
    """Return all."""
    found = (read_trial(objects, info.path) for info in objects.list(FOLDER))
    return [one for one in found if one is not None]


def advance(index: Index, one: Trial) -> Trial:
    """Take in the deployments so far; return the trial with the next one asked for, or closed with the differences."""
    objects = index.store.objects
    if one.closed:
        return one
    figures = [_figures(index, one, step) for step in one.steps]
    failed = sum(not found for found in figures)
    if failed > MOST_FAILED:
        return _keep(objects, one, closed=f"{failed} of {len(one.steps)} deployments brought no valid result")
    if len(one.steps) < 2 * one.contest.pairs:
        return _ask(objects, one)
    found = tuple(made for metric in METRICS if (made := _difference(one, figures, metric)) is not None)
    said = "B over A: " + "; ".join(map(str, found)) if found else f"fewer than {LEAST_PAIRS} whole pairs"
    return _keep(objects, one, closed=said, differences=found)


def _difference(one: Trial, figures: list[Mapping[str, float]], metric: str) -> Difference | None:
    pairs = []
    for place in range(0, len(one.steps), 2):
        values = {one.steps[at].arm: figures[at].get(metric) for at in (place, place + 1)}
        if values["a"] and values["b"]:
            pairs.append(Pair(values["a"], values["b"], one.steps[place].arm))
    if len(pairs) < LEAST_PAIRS:
        return None
    seen = compare(pairs)
    return Difference(
        metric=metric, verdict=seen.verdict, effect=seen.effect, low=seen.low, high=seen.high,
        detectable=seen.detectable, pairs=seen.pairs,
    )  # fmt: skip


def _figures(index: Index, one: Trial, step: Step) -> Mapping[str, float]:
    """Return a deployment's valid figures at the contest's load; of several arms of a workload the first."""
    rows = index.query(
        "SELECT * FROM results WHERE run_path = $path AND workload = $workload AND load = $load AND valid"
        " ORDER BY arm LIMIT 1",
        {"path": step.run_path, "workload": one.contest.workload, "load": one.contest.load},
    )
    return {name: value for row in rows for name in METRICS if (value := figure(row, name)) is not None}


def _comparable(contest: Contest, a: ReleasePlan, b: ReleasePlan) -> None:
    workloads = {load.name: load for load in a.workloads}
    mine = workloads.get(contest.workload)
    wrong = []
    if a.cluster.name != b.cluster.name:
        wrong.append(f"a_run and b_run: they ran on {a.cluster.name} and {b.cluster.name}")
    if mine is None or mine not in b.workloads:
        wrong.append(f"workload = {contest.workload!r}: both runs must have measured the same one")
    elif contest.load not in (labels := [load.label for load in mine.loads]):
        wrong.append(f"load = {contest.load!r}: there are {', '.join(labels)}")
    if wrong:
        raise ConfigurationError("TrialInvalid", "; ".join(wrong), fix="correct these fields in the trigger form")


def _ask(objects: Objects, one: Trial) -> Trial:
    place = len(one.steps)
    arm = plan_order(one.contest.pairs)[place]
    return _keep(objects, one, steps=(*one.steps, Step(arm=arm, run_id=f"trial__{one.id}__{place:02d}{arm}")))


def _keep(objects: Objects, one: Trial, **changes: object) -> Trial:
    made = one.model_copy(update=changes)
    objects.put(made.path, made.model_dump_json(indent=1).encode())
    return made
