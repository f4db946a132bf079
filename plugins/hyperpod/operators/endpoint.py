"""The endpoint's own stages: create, wait, validate."""

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


def _from_event(event: dict[str, Any]) -> PipelineError:
    return PipelineError(
        str(event.get("reason", "Unknown")),
        str(event.get("message", "")),
        fix=str(event.get("fix", "")),
        failure_class=FailureClass(event.get("failure_class") or FailureClass.INTERNAL),
        evidence=tuple(event.get("evidence", ())),
    )
