"""The endpoint's own stages: create, wait, validate, tear down."""

from __future__ import annotations

import datetime as dt
import time
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from hyperpod.operators.base import StageOperator
from hyperpod.operators.prepare import log_checks
from hyperpod.triggers.endpoint import EndpointReadyTrigger
from include.errors import FailureClass, PipelineError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.catalog.plan import ReleasePlan
    from include.endpoint.model import EndpointRef
    from include.staging.model import StagedModel


def staged_model(operator: StageOperator, context: Context) -> StagedModel | None:
    """Return what the stage task handed on, from the journal."""
    from include.staging.model import StagedModel

    outcome = operator.journal(context).outcomes().get("stage")
    return StagedModel.model_validate(outcome.data) if outcome and outcome.data else None


def endpoint_ref(operator: StageOperator, context: Context) -> EndpointRef:
    """Return the endpoint that create_endpoint made, from the journal.

    :raises PipelineError: when there is none.
    """
    from include.endpoint.model import EndpointRef

    outcome = operator.journal(context).outcomes().get("create_endpoint")
    if outcome is None or not outcome.data:
        raise PipelineError("EndpointMissing", "create_endpoint has left no endpoint", fix="clear create_endpoint")
    return EndpointRef.model_validate(outcome.data)


class CreateEndpointOperator(StageOperator):
    """Create the endpoint's custom resource, or adopt the one this run made before; does nothing else.

    :param request: see :class:`StageOperator`.
    """

    stage = "create_endpoint"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the endpoint's reference."""
        from include.endpoint.intents import IntentLog
        from include.endpoint.lifecycle import create_endpoint

        with self.journaled(context) as work:
            plan = self.plan(context)
            clients = self.hook(plan).clients()
            intents = IntentLog(self.journal(context).objects)
            ref = create_endpoint(plan, staged_model(self, context), clients, intents)
            work.data = ref.model_dump(mode="json")
            self.log.info("%s %s, uid %s", "adopted" if ref.adopted else "created", ref.name, ref.uid)
            return ref.model_dump(mode="json")


class WaitUntilReadyOperator(StageOperator):
    """Wait until the endpoint is provably serving; tells the story as it changes; fails early with the cause.

    :param request: see :class:`StageOperator`.
    :param deferrable: wait in the triggerer, without a worker slot.
    """

    stage = "wait_until_ready"

    def __init__(
        self,
        *,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.deferrable = deferrable

    def execute(self, context: Context) -> dict[str, Any]:
        """Look once; when it is not ready yet, wait in the triggerer or here."""
        with self.journaled(context) as work:
            plan, ref = self.plan(context), endpoint_ref(self, context)
            ready = self._look(plan, ref)
            if ready is None and not self.deferrable:
                ready = self._poll(plan, ref)
            work.unfinished = ready is None
            if ready is not None:
                work.data, work.work_seconds = ready, ready["cold_start"]["total"]
                return ready
        trigger = EndpointReadyTrigger(
            plan=plan.to_xcom(), ref=ref.model_dump(mode="json"), timeout_seconds=self._limit(plan)
        )
        self.defer(
            trigger=trigger,
            method_name="resume",
            timeout=dt.timedelta(seconds=self._limit(plan) + 120),
        )
        raise AssertionError("defer does not return")

    def resume(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Take the trigger's event: the story, then ready, or the failure with its cause."""
        with self.journaled(context) as work:
            said = event or {"status": "failed", "reason": "NoEvent", "message": "the trigger sent nothing"}
            for line in said.get("story", ()):
                self.log.info("%s", line)
            if said["status"] != "ready":
                raise _from_event(said)
            plan, ref = self.plan(context), endpoint_ref(self, context)
            ready = self._look(plan, ref) or self._poll(plan, ref)
            work.data, work.work_seconds = ready, ready["cold_start"]["total"]
            return ready

    def _look(self, plan: ReleasePlan, ref: EndpointRef) -> dict[str, Any] | None:
        from include.endpoint.coldstart import split
        from include.endpoint.observe import observe
        from include.endpoint.readiness import evaluate

        facts = observe(ref, plan, self.hook(plan).clients())
        verdict = evaluate(facts, dt.datetime.now(dt.UTC))
        if verdict.state == "failed":
            raise PipelineError(
                verdict.reason,
                verdict.message,
                fix=verdict.fix,
                failure_class=verdict.failure_class or FailureClass.INTERNAL,
                evidence=verdict.evidence,
            )
        if verdict.state != "ready":
            self.log.info("%s: %s", verdict.phase, verdict.message)
            return None
        return {"ready": True, "cold_start": split(facts).model_dump(mode="json")}

    def _poll(self, plan: ReleasePlan, ref: EndpointRef) -> dict[str, Any]:
        deadline = time.monotonic() + self._limit(plan)
        while time.monotonic() < deadline:
            ready = self._look(plan, ref)
            if ready is not None:
                return ready
            time.sleep(1)
        raise PipelineError(
            "NotReadyInTime",
            f"{ref.name} was not ready after {self._limit(plan)} s",
            fix="raise deployment.max_deploy_seconds, or read the lines above",
        )

    def _limit(self, plan: ReleasePlan) -> int:
        # The operator gives up at max_deploy_seconds; registration with SageMaker comes on top.
        return plan.model.deployment.max_deploy_seconds + 900


class ValidateEndpointOperator(StageOperator):
    """Ask the live endpoint: is it healthy, is it the model, does it stream, is it configured as asked.

    :param request: see :class:`StageOperator`.
    """

    stage = "validate"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the report; fails when a check failed."""
        from include.endpoint.invocation import resolve
        from include.endpoint.validation import validate

        with self.journaled(context) as work:
            plan, ref = self.plan(context), endpoint_ref(self, context)
            clients = self.hook(plan).clients()
            report = validate(plan, ref, staged_model(self, context), clients, resolve(plan, ref, clients))
            work.data = report.model_dump(mode="json")
            log_checks(self.log, report)
            if error := report.error("ValidationFailed"):
                raise error
            return report.model_dump(mode="json")


class TeardownEndpointOperator(StageOperator):
    """Delete what this run made and prove that it is gone on both planes; with ``keep``, say until when it stays.

    :param request: see :class:`StageOperator`.
    """

    stage = "teardown"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the proof of absence; fails when something is still there."""
        from include.endpoint.intents import IntentLog
        from include.endpoint.lifecycle import hold, mark_kept, promote
        from include.endpoint.model import TeardownReport
        from include.endpoint.teardown import teardown

        with self.journaled(context) as work:
            journal = self.journal(context)
            plan, record = journal.readable_plan(), journal.read_record()
            ref = self._created(context, plan)
            if ref is None:
                self.log.info("this run created no endpoint")
                report = TeardownReport(endpoint=plan.endpoint_name if plan else "", absent=True)
            elif plan is None:
                report = teardown(ref, self._hook_without_plan(context).clients(), IntentLog(journal.objects))
            elif plan.keep and record is not None and record.state == "success":
                clients = self.hook(plan).clients()
                mark_kept(ref, clients, results_uri=plan.cluster.results_uri)
                if promote(ref, plan, clients):
                    self.log.info("autoscaling is on now; the benchmark ran without")
                self.log.info("kept as asked until %s; the reaper deletes it then", ref.expires_at)
                report = TeardownReport(endpoint=ref.name, absent=False, kept=True)
            else:
                if plan.hold_failed_seconds and record is not None and record.state == "failed":
                    until = dt.datetime.now(dt.UTC) + dt.timedelta(seconds=plan.hold_failed_seconds)
                    hold(ref, self.hook(plan).clients(), until)
                    self.log.warning("the run failed: %s is held for debugging until %s", ref.name, until)
                report = teardown(ref, self.hook(plan).clients(), IntentLog(journal.objects), plan=plan)
            journal.write_teardown(report)
            for item in report.objects:
                self.log.info("%s %s: %s", item.kind, item.name, "absent" if item.absent else "STILL THERE")
            work.data = report.model_dump(mode="json")
            return report.model_dump(mode="json")

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


def _from_event(event: dict[str, Any]) -> PipelineError:
    return PipelineError(
        str(event.get("reason", "Unknown")),
        str(event.get("message", "")),
        fix=str(event.get("fix", "")),
        failure_class=FailureClass(event.get("failure_class") or FailureClass.INTERNAL),
        evidence=tuple(event.get("evidence", ())),
    )
