"""The last stage of every run: the endpoint goes, and that it has gone is proven."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from hyperpod.operators.base import StageOperator
from hyperpod.triggers.endpoint import EndpointGoneTrigger
from include.errors import PipelineError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.catalog.plan import ReleasePlan
    from include.endpoint.model import EndpointRef, TeardownReport
    from include.results.journal import RunJournal

    Made = tuple[EndpointRef, HyperPodHook]

# On top of the trigger's own limit: Airflow's ends the task without a word.
TRIGGER_MARGIN_S = 120
# For the last look at both planes, and for SageMaker's objects, which go after the rest.
PROOF_SECONDS = 120


class TeardownEndpointOperator(StageOperator):
    """Delete what this run made and prove that it is gone on both planes; with ``keep``, say until when it stays.

    :param request: see :class:`StageOperator`.
    :param deferrable: a deletion that takes long is waited for in the triggerer, without a worker slot.
    :param patience_seconds: for the deletion; then the task fails, saying what is still there and why.
    :param grace_seconds: how long the worker waits before it leaves the waiting to the triggerer.
    """

    stage = "teardown"

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        patience_seconds: float = 900,
        grace_seconds: float = 20,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable
        self.patience_seconds = patience_seconds
        self.grace_seconds = grace_seconds

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the proof of absence; fails when something is still there."""
        from include.endpoint.teardown import STILL_THERE

        with self.journaled(context) as work:
            made = self._made(context)
            try:
                patience = self.grace_seconds if self.deferrable else self.patience_seconds
                work.data = self._ended(context, made, patience)
            except PipelineError as error:
                if made is None or not self.deferrable or error.reason != STILL_THERE:
                    raise
                self.log.info("%s", error.message)
                work.unfinished = True
            else:
                return work.data
        ref, hook = made
        self.defer(
            trigger=EndpointGoneTrigger(
                cluster=hook.cluster.model_dump(mode="json"),
                ref=ref.model_dump(mode="json"),
                timeout_seconds=self.patience_seconds,
            ),
            method_name="resume",
            timeout=dt.timedelta(seconds=self.patience_seconds + TRIGGER_MARGIN_S),
        )
        raise AssertionError("defer does not return")

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Prove what the watch has seen: it may lag, and it does not see SageMaker."""
        with self.journaled(context) as work:
            said = event or {"why": "the trigger sent nothing"}
            if said["why"]:
                self.log.warning("the deletion could not be watched: %s", said["why"])
            patience = self.patience_seconds if said["why"] else PROOF_SECONDS
            work.data = self._ended(context, self._made(context), patience)
            return work.data

    def _ended(self, context: Context, made: Made | None, patience_s: float) -> dict[str, Any]:
        """Tear down or keep; write the report.

        :raises PipelineError: ``StillThere``, when the patience has passed.
        """
        from include.endpoint.model import TeardownReport

        journal = self.journal(context)
        if made is None:
            self.log.info("this run created no endpoint")
            plan = journal.readable_plan()
            report = TeardownReport(endpoint=plan.endpoint_name if plan else "", absent=True)
        else:
            report = self._gone_or_kept(journal, *made, patience_s)
        journal.write_teardown(report)
        for item in report.objects:
            self.log.info("%s %s: %s", item.kind, item.name, "absent" if item.absent else "STILL THERE")
        return report.model_dump(mode="json")

    def _gone_or_kept(
        self, journal: RunJournal, ref: EndpointRef, hook: HyperPodHook, patience_s: float
    ) -> TeardownReport:
        from include.endpoint.intents import IntentLog
        from include.endpoint.lifecycle import hold, mark_kept, promote
        from include.endpoint.model import TeardownReport
        from include.endpoint.teardown import teardown

        plan, record, clients = journal.readable_plan(), journal.read_record(), hook.clients()
        if plan is not None and plan.keep and record is not None and record.state == "success":
            mark_kept(ref, clients, results_uri=plan.cluster.results_uri)
            if promote(ref, plan, clients):
                self.log.info("autoscaling is on now; the benchmark ran without")
            self.log.info("kept as asked until %s; the reaper deletes it then", ref.expires_at)
            return TeardownReport(endpoint=ref.name, absent=False, kept=True)
        if plan is not None and plan.hold_failed_seconds and record is not None and record.state == "failed":
            until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=plan.hold_failed_seconds)
            hold(ref, clients, until)
            self.log.warning("the run failed: %s is held for debugging until %s", ref.name, until)
        return teardown(ref, clients, IntentLog(journal.objects), plan=plan, patience_s=patience_s)

    def _made(self, context: Context) -> Made | None:
        plan = self.journal(context).readable_plan()
        ref = self._created(context, plan)
        if ref is None:
            return None
        return ref, self.hook(plan) if plan is not None else self._hook_without_plan(context)

    def _hook_without_plan(self, context: Context) -> HyperPodHook:
        hook = self.hook_or_none(context)
        if hook is None:
            raise PipelineError("ClusterUnknown", "neither plan nor request name a cluster", fix="wait for the reaper")
        return hook

    def _created(self, context: Context, plan: ReleasePlan | None) -> EndpointRef | None:
        """Return what this run made: as it noted, or, when it died before it could, as the cluster has it."""
        from include.endpoint import names
        from include.endpoint.lifecycle import reference
        from include.endpoint.model import EndpointRef
        from include.endpoint.resources import ENDPOINT_KINDS

        outcome = self.journal(context).outcomes().get("create_endpoint")
        if outcome is None:
            return None
        if outcome.data:
            return EndpointRef.model_validate(outcome.data)
        if plan is None:
            raise PipelineError("PlanUnreadable", "create_endpoint died and so did its plan", fix="wait for the reaper")
        kind = ENDPOINT_KINDS[plan.model.deployment.kind]
        item = self.hook(plan).clients().api.get(kind, plan.endpoint_name, plan.cluster.namespace)
        ours = item is not None and names.label(item, names.OWNER) == plan.run.owner
        return reference(plan, item, adopted=True) if item is not None and ours else None
