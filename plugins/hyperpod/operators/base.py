"""What every stage has in common: plan, clients, journal, one way to fail."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from hyperpod.run import default_results_uri, request_of, run_of
from include.errors import FailureClass, PipelineError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.catalog.plan import ReleasePlan, RunIdentity
    from include.catalog.request import ReleaseRequest
    from include.results.journal import RunJournal


@dataclass
class StageWork:
    """What a stage notes while it works.

    :param data: goes into the journal's outcome.
    :param work_seconds: time of the work itself; ``None``: all of the stage.
    :param unfinished: the stage goes on in the triggerer; its outcome stays ``running``.
    """

    data: dict[str, Any] = field(default_factory=dict)
    work_seconds: float | None = None
    unfinished: bool = False


class StageOperator(BaseOperator):
    """Base of the stage operators: journals the stage, and fails so that a retry happens only where it can help.

    :param request: what was asked for, as a dict; ``None``: the Dag run's params (and the asset event's extra).
    """

    stage: ClassVar[str]
    template_fields: Sequence[str] = ("request",)
    ui_color = "#e8f0fe"

    def __init__(self, *, request: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.request = request

    def release_request(self, context: Context) -> ReleaseRequest:
        """Return what was asked for."""
        return request_of(self.request, context)

    def run_identity(self, context: Context) -> RunIdentity:
        """Return which run (and cell) this is; the same for every try."""
        return run_of(self.request, context)

    def journal(self, context: Context) -> RunJournal:
        """Return the run's journal at the cluster's results store."""
        from include.objects import Objects
        from include.results.journal import RunJournal

        hook = self.hook_or_none(context)
        uri = hook.cluster.results_uri if hook else default_results_uri()
        session = hook.session if hook and uri.startswith("s3://") else None
        return RunJournal(Objects.open(uri, session=session), self.run_identity(context))

    def plan(self, context: Context) -> ReleasePlan:
        """Return the run's plan from its journal.

        :raises PipelineError: when the run has none.
        """
        plan = self.journal(context).read_plan()
        if plan is None:
            raise PipelineError("PlanMissing", "the run has no plan", fix="clear the plan task")
        return plan

    def hook(self, plan: ReleasePlan) -> HyperPodHook:
        """Return the hook of the plan's cluster."""
        from hyperpod.hooks.hyperpod import HyperPodHook

        return HyperPodHook(plan.cluster)

    def hook_or_none(self, context: Context) -> HyperPodHook | None:
        """Return the hook of the cluster asked for; ``None`` when request or catalog are bad."""
        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.loader import load_catalog

        try:
            request = self.release_request(context)
            return HyperPodHook(load_catalog().cluster(request.cluster))
        except PipelineError:
            return None

    @contextmanager
    def journaled(self, context: Context) -> Iterator[StageWork]:
        """Write the stage's outcome, however it ends; turn a failure into what Airflow must do about it."""
        from include.results.schema import StageOutcome

        journal, work = self.journal(context), StageWork()
        attempt = int(context["ti"].try_number)
        before = journal.outcomes().get(self.stage)
        resumed = before is not None and before.state == "running" and before.attempt == attempt
        began = before.started_at if before is not None and resumed else dt.datetime.now(dt.UTC)
        started = time.monotonic()
        outcome = StageOutcome(stage=self.stage, state="running", attempt=attempt, started_at=began)
        journal.write_outcome(outcome)
        try:
            yield work
        except Exception as error:
            failed = _failed(outcome, error)
            journal.write_outcome(_ended(failed, work, started))
            self.log.error("stage %s failed. %s", self.stage, _sentence(failed))
            for line in failed.evidence:
                self.log.error("  evidence: %s", line)
            if isinstance(error, PipelineError) and not error.retryable:
                raise AirflowFailException(_sentence(failed)) from error
            raise
        else:
            if work.unfinished:
                self.log.info("stage %s goes on without a worker slot", self.stage)
                return
            done = _ended(outcome.model_copy(update={"state": "success"}), work, started)
            journal.write_outcome(done)
            self.log.info("stage %s succeeded after %.1f s", self.stage, done.seconds)


def _ended(outcome: Any, work: StageWork, started: float) -> Any:
    now = dt.datetime.now(dt.UTC)
    here = time.monotonic() - started
    return outcome.model_copy(
        update={
            "ended_at": now,
            "seconds": (now - outcome.started_at).total_seconds(),
            "work_seconds": here if work.work_seconds is None else work.work_seconds,
            "data": work.data,
        }
    )


def _failed(outcome: Any, error: Exception) -> Any:
    if isinstance(error, PipelineError):
        said = {
            "reason": error.reason,
            "message": error.message,
            "fix": error.fix,
            "failure_class": str(error.failure_class),
            "evidence": error.evidence,
        }
    else:
        said = {
            "reason": type(error).__name__,
            "message": str(error) or repr(error),
            "fix": "this is not a failure we know: read the traceback in this log",
            "failure_class": str(FailureClass.INTERNAL),
        }
    return outcome.model_copy(update={"state": "failed", **said})


def _sentence(outcome: Any) -> str:
    fix = f" Fix: {outcome.fix}" if outcome.fix else ""
    return f"{outcome.reason}: {outcome.message}{fix}"
