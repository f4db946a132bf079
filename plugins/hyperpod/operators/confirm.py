"""Suspicions are re-run before anyone is told: which run is next, as arguments of ``TriggerDagRunOperator``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseOperator

from hyperpod.run import default_results_uri

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.objects import Objects
    from include.results.bisection import Bisection
    from include.results.index import Index
    from include.results.reruns import Case
    from include.results.trials import Trial

    Asked = TypeVar("Asked", Bisection, Trial)
JUDGE_DAG = "judge_nights"


class PlanRerunsOperator(BaseOperator):
    """List the re-runs that a judged night needs now: one for each suspect cell, within the catalog's limits.

    :param night: ``YYYY-MM-DD``; empty: the newest judged one (templated).
    """

    template_fields: Sequence[str] = ("night",)
    ui_color = "#fff4e5"

    def __init__(self, *, night: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.night = night

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002 (Airflow's)
        """Return one set of arguments for each re-run."""
        from include.catalog.loader import load_catalog
        from include.results.reruns import open_cases
        from include.results.series import load_series
        from include.results.verdicts import read_night

        index = _index()
        made = read_night(index.store.objects, self.night)
        if made is None:
            return []
        series = load_series(index, ids=sorted({one.series for one in made.to_confirm}), until=made.night)
        cases = open_cases(index, made, series, load_catalog().nightly.confirm)
        self.log.info("%d suspicions, %d cells to run again", len(made.to_confirm), len(cases))
        return [_rerun(case) for case in cases]


class SettleRerunOperator(BaseOperator):
    """Take in the re-run that ended: name the next one, or judge the night again once the case is closed.

    :param case: path of the case below the results store (templated).
    """

    template_fields: Sequence[str] = ("case",)
    ui_color = "#fff4e5"

    def __init__(self, *, case: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.case = case

    def execute(self, context: Context) -> list[dict[str, Any]]:
        """Return the arguments of the one Dag run that follows; none when this run belongs to no open case."""
        from include.catalog.loader import load_catalog
        from include.results import bisection, trials
        from include.results.reruns import advance, read_case

        index = _index()
        objects = index.store.objects
        if self.case.startswith(f"{bisection.FOLDER}/"):
            question = bisection.read_bisection(objects, self.case)
            return self._asked(context, question, lambda one: bisection.advance(index, one))
        if self.case.startswith(f"{trials.FOLDER}/"):
            return self._asked(context, trials.read_trial(objects, self.case), lambda one: trials.advance(index, one))
        case = read_case(index.store.objects, self.case)
        dag_run: Any = context["dag_run"]
        if case is None or not case.steps or case.steps[-1].run_id != dag_run.run_id:
            # A retry whose predecessor already asked for the next run, or a run that a person started.
            if case is None or case.closed or dag_run.run_id not in {step.run_id for step in case.steps}:
                self.log.info("run %s settles nothing", dag_run.run_id)
                return []
            return [_rerun(case)]
        case = advance(index, case, load_catalog().nightly.confirm)
        if not case.closed:
            self.log.info("%s: re-run %d of %d is next", case.cell, len(case.steps), len(case.order) + 1)
            return [_rerun(case)]
        self.log.info("%s: %s after %d re-runs; judging %s again", case.cell, case.closed, len(case.steps), case.night)
        name = f"confirmed__{case.night}__{case.id}"
        return [{"trigger_dag_id": JUDGE_DAG, "trigger_run_id": name, "conf": {"night": case.night}}]

    def _asked(self, context: Context, one: Asked | None, advance: Callable[[Asked], Asked]) -> list[dict[str, Any]]:
        """Settle a re-run of a question that a person asked."""
        dag_run: Any = context["dag_run"]
        run_id = dag_run.run_id
        if one is None or run_id not in {step.run_id for step in one.steps}:
            self.log.info("run %s settles nothing", run_id)
            return []
        if one.steps[-1].run_id == run_id:
            one = advance(one)
        self.log.info("%s: %s", one.path, one.story)
        return [] if one.closed else [_rerun(one)]


class _BeginOperator(BaseOperator):
    """Begin what a person asks: name the first re-run, or go on with an open one.

    :param question: fields of the question (templated).
    """

    template_fields: Sequence[str] = ("question",)
    ui_color = "#fff4e5"

    def __init__(self, *, question: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.question = question

    def execute(self, context: Context) -> list[dict[str, Any]]:  # noqa: ARG002 (Airflow's)
        """Return the arguments of the one Dag run that follows; none when the question has its answer."""
        from airflow.sdk.exceptions import AirflowFailException
        from pydantic import ValidationError

        from include.errors import ConfigurationError

        try:
            one = self.begin(_index().store.objects)
        except (ConfigurationError, ValidationError) as error:
            raise AirflowFailException(str(error)) from error
        self.log.info("%s: %s", one.path, one.story)
        return [] if one.closed else [_rerun(one)]

    def begin(self, objects: Objects) -> Bisection | Trial:
        """Return the open or answered question."""
        raise NotImplementedError


class BeginBisectionOperator(_BeginOperator):
    """Ask which difference between two runs made a figure worse.

    :param question: fields of :class:`include.results.bisection.Question` (templated).
    """

    def begin(self, objects: Objects) -> Bisection:
        """Return the open or answered bisection."""
        from include.results.bisection import Question, begin

        one = begin(objects, Question.model_validate(self.question))
        for name, (before, after) in one.changes.items():
            self.log.info("differs: %s: %s -> %s", name, before, after)
        return one


class BeginTrialOperator(_BeginOperator):
    """Compare two plans by deploying them in pairs.

    :param question: fields of :class:`include.results.trials.Contest` (templated).
    """

    def begin(self, objects: Objects) -> Trial:
        """Return the open or ended trial."""
        from include.results.trials import Contest, begin

        return begin(objects, Contest.model_validate(self.question))


def _rerun(case: Case | Bisection | Trial) -> dict[str, Any]:
    from include.results.schema import RERUN_DAG

    return {"trigger_dag_id": RERUN_DAG, "trigger_run_id": case.steps[-1].run_id, "conf": case.request()}


def _index() -> Index:
    from include.results.index import Index
    from include.results.store import ResultsStore

    index = Index(ResultsStore.open(default_results_uri()))
    index.refresh()
    return index
