"""The journal of a run: each stage writes what it does as it does it, so that a killed task leaves a trace."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TypeVar

from include.catalog.plan import ReleasePlan, RunIdentity
from include.catalog.specs import Spec
from include.endpoint.model import TeardownReport
from include.errors import ConfigurationError, FailureClass, PipelineError
from include.objects import Objects
from include.results.pending import note
from include.results.schema import RunRecord, StageOutcome
from include.results.store import ResultsStore, parse

S = TypeVar("S", bound=Spec)


@dataclass(frozen=True)
class RunJournal:
    """Files of one run below ``<results_uri>/<run.path>``.

    :param objects: rooted at the cluster's ``results_uri``.
    """

    objects: Objects
    run: RunIdentity

    def path(self, name: str) -> str:
        """Path of one of the run's files below ``results_uri``."""
        return f"{self.run.path}/{name}"

    def write_plan(self, plan: ReleasePlan) -> None:
        """Keep the plan."""
        self.objects.put(self.path("plan.json"), json.dumps(plan.to_xcom(), indent=1).encode())

    def read_plan(self) -> ReleasePlan | None:
        """Return the plan, ``None`` when the run never had one.

        :raises PipelineError: reason PlanUnreadable, when it was changed or another release wrote it.
        """
        return read_plan(self.objects, self.run.path)

    def readable_plan(self) -> ReleasePlan | None:
        """Return the plan, ``None`` also when it cannot be read: for what must be done whatever happened."""
        try:
            return self.read_plan()
        except PipelineError:
            return None

    def write_outcome(self, outcome: StageOutcome) -> None:
        """Keep a stage's outcome; the last attempt's stands."""
        self._write(f"stages/{outcome.stage}.json", outcome)

    def outcomes(self) -> dict[str, StageOutcome]:
        """Return every stage's outcome by stage; one that is still ``running`` was killed or is under way."""
        found: dict[str, StageOutcome] = {}
        for info in self.objects.list(self.path("stages")):
            data = self.objects.get(info.path)
            if data is not None and info.path.endswith(".json"):
                outcome = parse(StageOutcome, data, info.path)
                found[outcome.stage] = outcome
        return found

    def write_record(self, record: RunRecord) -> None:
        """Keep the run's record; the query index picks it up."""
        ResultsStore(self.objects).put_record(record)

    def read_record(self) -> RunRecord | None:
        """Return the run's record, ``None`` when there is none yet."""
        return self._read("record.json", RunRecord)

    def write_teardown(self, report: TeardownReport) -> None:
        """Keep the proof of absence; the index reads the run again, for its final cost."""
        note(self.objects, "runs", self.path("record.json"))
        self._write("teardown.json", report)

    def read_teardown(self) -> TeardownReport | None:
        """Return the proof of absence, ``None`` when the teardown has not ended."""
        return self._read("teardown.json", TeardownReport)

    def _write(self, name: str, value: Spec) -> None:
        self.objects.put(self.path(name), value.model_dump_json(indent=1).encode())

    def _read(self, name: str, kind: type[S]) -> S | None:
        data = self.objects.get(self.path(name))
        return None if data is None else parse(kind, data, self.path(name))


def read_plan(objects: Objects, run_path: str) -> ReleasePlan | None:
    """Return the plan in a run's folder, ``None`` when there is none.

    :raises PipelineError: reason PlanUnreadable, when it was changed or another release wrote it.
    """
    path = f"{run_path}/plan.json"
    data = objects.get(path)
    try:
        return None if data is None else ReleasePlan.from_xcom(json.loads(data))
    except ValueError as error:
        raise PipelineError(
            "PlanUnreadable",
            f"{path}: {error}",
            fix="start a new run: the plan was changed, or another release of this project wrote it",
            failure_class=FailureClass.INTEGRITY,
        ) from error


def require_plan(objects: Objects, field: str, run_path: str) -> ReleasePlan:
    """Return the plan of a run that a person named.

    :param field: where it was named, for the error.
    :raises ConfigurationError: there is none.
    """
    plan = read_plan(objects, run_path)
    if plan is None:
        fix = "name the run's folder below the results store: runs/<dag>/<run>[/<cell>]"
        raise ConfigurationError("RunUnknown", f"{field} = {run_path!r} has no plan", fix=fix)
    return plan
