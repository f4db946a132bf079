"""Which difference between a good and a bad run is guilty: re-runs of plans between the two, kept in the store.

Delta debugging over the plans' factors (:func:`include.results.verdict.attribution.bisect`). The good and the bad plan
are run again first: what does not come again today was not in the plan, but in nodes, driver, operator or chance.
"""

from __future__ import annotations

import hashlib
import math
from statistics import median

from pydantic import Field

from include.catalog.mixing import factors
from include.catalog.plan import ReleasePlan
from include.catalog.specs import Spec
from include.errors import ConfigurationError
from include.objects import Objects
from include.results.index import Index
from include.results.journal import require_plan
from include.results.schema import Rerun
from include.results.series import METRICS
from include.results.store import parse
from include.results.verdict.attribution import Change, bisect

FOLDER = "verdicts/bisections"
# Tries of one mixture beyond its repeats; one that never runs (an image that needs the other arguments) is not guilty.
MORE_TRIES = 1


class Question(Spec):
    """What is asked.

    :param good_run, bad_run: folders of the two runs below the results store.
    :param load: as in the results (``c=4``); ``metric``: the figure that got worse.
    :param repeats: deployments of each mixture; their median counts.
    :param most_runs: no more are started after so many.
    """

    good_run: str = Field(pattern=r"^runs/")
    bad_run: str = Field(pattern=r"^runs/")
    workload: str
    load: str
    metric: str
    repeats: int = Field(2, ge=1, le=8)
    most_runs: int = Field(30, ge=4, le=200)


class Probe(Rerun):
    """One re-run: the good plan with these factors of the bad one."""

    mix: tuple[str, ...]


class Bisection(Spec):
    """A question, the re-runs asked for so far, and the answer once it is closed.

    :param changes: factor → its text in the good and in the bad plan.
    :param guilty: the smallest set of factors found that makes it bad; empty when none was found.
    :param closed: the answer in a sentence; empty while it is open.
    """

    question: Question
    model: str
    cluster: str
    changes: dict[str, tuple[str, str]]
    steps: tuple[Probe, ...] = ()
    guilty: tuple[str, ...] = ()
    closed: str = ""

    @property
    def id(self) -> str:
        """The same for the same question."""
        return hashlib.sha256(self.question.model_dump_json().encode()).hexdigest()[:12]

    @property
    def path(self) -> str:
        """Path below the results store."""
        return f"{FOLDER}/{self.id}.json"

    def request(self) -> dict[str, str]:
        """Params of the re-run that was asked for last."""
        return {
            "model": self.model, "workload": self.question.workload, "cluster": self.cluster, "case": self.path,
            "plan_of": self.question.good_run, "mix_from": self.question.bad_run, "mix": ",".join(self.steps[-1].mix),
        }  # fmt: skip

    @property
    def story(self) -> str:
        """What happened, or what is next."""
        return self.closed or f"next is the good plan with {', '.join(self.steps[-1].mix) or 'nothing'} of the bad one"


class _Needed(Exception):  # noqa: N818 (a question, no error)
    """A mixture that has to be run before anything more can be said."""

    def __init__(self, mix: tuple[str, ...]) -> None:
        super().__init__(mix)
        self.mix = mix


def begin(objects: Objects, question: Question) -> Bisection:
    """Return the bisection of a question, with its first re-run asked for; one that exists is gone on with.

    :raises ConfigurationError: for an unknown run, metric or workload, other clusters, or equal plans.
    """
    good, bad = (require_plan(objects, name, getattr(question, name)) for name in ("good_run", "bad_run"))
    _comparable(question, good, bad)
    made = Bisection(question=question, model=good.model.name, cluster=good.cluster.name, changes=factors(good, bad))
    if not made.changes:
        raise ConfigurationError(
            "PlansEqual",
            f"the plans of {question.good_run} and {question.bad_run} do not differ",
            fix="look at nodes, driver and operator: `python -m include.results show` lists what else changed",
        )
    return read_bisection(objects, made.path) or _ask(objects, made, ())


def read_bisection(objects: Objects, path: str) -> Bisection | None:
    """Return a bisection by its path; ``None`` when there is none there."""
    data = objects.get(path) if path.startswith(f"{FOLDER}/") and ".." not in path else None
    return None if data is None else parse(Bisection, data, path)


def read_bisections(objects: Objects) -> list[Bisection]:
    """Return all."""
    found = (read_bisection(objects, info.path) for info in objects.list(FOLDER))
    return [one for one in found if one is not None]


def advance(index: Index, one: Bisection) -> Bisection:
    """Take in the re-runs so far; return it with the next one asked for, or closed with the answer."""
    objects = index.store.objects
    if one.closed:
        return one
    try:
        guilty, said = _answer(index, one)
    except _Needed as needed:
        if len(one.steps) >= one.question.most_runs:
            return _keep(objects, one.model_copy(update={"closed": f"not decided within {len(one.steps)} re-runs"}))
        return _ask(objects, one, needed.mix)
    return _keep(objects, one.model_copy(update={"guilty": guilty, "closed": said}))


def _answer(index: Index, one: Bisection) -> tuple[tuple[str, ...], str]:
    """Return the guilty factors and the sentence.

    :raises _Needed: when a mixture must be run first.
    """
    metric, every = one.question.metric, tuple(one.changes)
    good, bad = _figures(index, one, ()), _figures(index, one, every)
    if not good or not bad:
        return (), f"the {'good' if not good else 'bad'} plan does not run any more: nothing can be compared"
    seen = f"{metric} {_text(good)} with the good plan, {_text(bad)} with the bad one"
    apart = min(bad) > max(good) if METRICS[metric] == "higher" else max(bad) < min(good)
    if not apart:
        return (), f"{seen}: it did not come again, so it is not in the plan (nodes, driver, operator or chance)"
    middle = (math.log(median(good)) + math.log(median(bad))) / 2
    toward = 1 if METRICS[metric] == "higher" else -1

    def is_bad(part: tuple[Change, ...]) -> bool:
        found = _figures(index, one, tuple(change.factor for change in part))
        return bool(found) and (math.log(median(found)) - middle) * toward > 0

    changes = tuple(Change(name, *texts) for name, texts in one.changes.items())
    guilty = bisect(changes, is_bad)
    return tuple(change.factor for change in guilty), f"{seen}; guilty: " + "; ".join(map(str, guilty))


def _figures(index: Index, one: Bisection, mix: tuple[str, ...]) -> list[float]:
    """Return the figure of every valid re-run of a mixture; none when it never ran, after some tries.

    :raises _Needed: when it has not been run often enough.
    """
    asked = one.question
    paths = [step.run_path for step in one.steps if step.mix == mix]
    rows = index.query(
        "SELECT * FROM results WHERE run_path IN (SELECT unnest($paths)) AND workload = $workload AND load = $load"
        " AND valid",
        {"paths": paths, "workload": asked.workload, "load": asked.load},
    )
    found = [float(row[asked.metric]) for row in rows if row[asked.metric]]
    if len(found) < asked.repeats and len(paths) < asked.repeats + MORE_TRIES:
        raise _Needed(mix)
    return found


def _text(figures: list[float]) -> str:
    return f"{median(figures):.4g} (of {len(figures)})"


def _comparable(question: Question, good: ReleasePlan, bad: ReleasePlan) -> None:
    workloads = {load.name: load for load in good.workloads}
    wrong = []
    if question.metric not in METRICS:
        wrong.append(f"metric = {question.metric!r}: there are {', '.join(METRICS)}")
    if (good.model.name, good.cluster.name) != (bad.model.name, bad.cluster.name):
        wrong.append("good_run and bad_run: they are of another model or cluster")
    if workloads.get(question.workload) not in bad.workloads:
        wrong.append(f"workload = {question.workload!r}: both runs must have measured the same one")
    if wrong:
        raise ConfigurationError("BisectionInvalid", "; ".join(wrong), fix="correct these fields in the trigger form")


def _ask(objects: Objects, one: Bisection, mix: tuple[str, ...]) -> Bisection:
    probe = Probe(mix=mix, run_id=f"bisect__{one.id}__{len(one.steps):02d}")
    return _keep(objects, one.model_copy(update={"steps": (*one.steps, probe)}))


def _keep(objects: Objects, one: Bisection) -> Bisection:
    objects.put(one.path, one.model_dump_json(indent=1).encode())
    return one
