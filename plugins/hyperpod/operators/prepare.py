"""Before anything is spent: plan, preflight, stage."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import TaskDeferred

from hyperpod.operators.base import StageOperator
from include.errors import ConfigurationError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.catalog.plan import ReleasePlan
    from include.catalog.request import ReleaseRequest
    from include.endpoint.model import ValidationReport
    from include.staging.delivery import Delivered, Place

LOOK_AGAIN = dt.timedelta(minutes=1)


class PlanOperator(StageOperator):
    """Resolve the request into a frozen plan: revision, custom resource, prices; refuses what cannot work.

    :param request: see :class:`StageOperator`.
    """

    stage = "plan"

    def execute(self, context: Context) -> dict[str, Any]:
        """Write the plan to the journal and return it."""
        from include.loadtest.place import places

        with self.journaled(context) as work:
            request = self.release_request(context)
            plan = self._repeated(context, request) if request.plan_of else self._planned(context, request)
            for line in places(plan.workloads, plan.cluster):
                self.log.info("%s", line)
            self.journal(context).write_plan(plan)
            work.data = {"plan_digest": plan.digest, "endpoint": plan.endpoint_name, "revision": plan.revision}
            self.log.info("plan %s: %s @ %s on %s", plan.digest, plan.model.name, plan.revision, plan.cluster.name)
            return plan.to_xcom()

    def _planned(self, context: Context, request: ReleaseRequest) -> ReleasePlan:
        from include.catalog.loader import load_catalog
        from include.endpoint.planning import make_plan
        from include.staging.api import resolve_revision

        catalog = load_catalog()
        model, cluster = catalog.model(request.model), catalog.cluster(request.cluster)
        workloads = tuple(catalog.workload(name) for name in request.workloads)
        hook = self.hook_or_none(context)
        revision = resolve_revision(model, hook.staging_of(model), request.revision) if hook else ""
        if request.revision and request.revision != revision:
            raise ConfigurationError(
                "RevisionUnavailable",
                f"revision = {request.revision!r}, but the source of {model.name!r} is at {revision}",
                fix="leave revision empty for the source's current one; of the Hub give the whole commit",
            )
        return make_plan(
            self.run_identity(context),
            model,
            cluster,
            workloads,
            revision,
            price_book=catalog.prices,
            slo=request.slo,
            keep=request.after_benchmark == "keep",
            ttl_seconds=int(request.ttl_hours * 3600),
            hold_failed_seconds=int(request.hold_failed_hours * 3600),
            budget_usd=request.budget_usd,
        )

    def _repeated(self, context: Context, request: ReleaseRequest) -> ReleasePlan:
        """Plan an earlier run again, whatever the catalog says today; only its name and owner are new."""
        from include.catalog.loader import load_catalog
        from include.catalog.mixing import mixed
        from include.endpoint.planning import make_plan

        old = self._earlier(context, "plan_of", request.plan_of, request.cluster)
        model, revision = old.model, old.revision
        if request.mix:
            other = self._earlier(context, "mix_from", request.mix_from, request.cluster)
            model, revision = mixed(old, other, request.mix.split(","))
        return make_plan(
            self.run_identity(context), model, old.cluster, old.workloads, revision, slo=old.slo,
            price_book=load_catalog().prices, ttl_seconds=int(request.ttl_hours * 3600), budget_usd=request.budget_usd,
        )  # fmt: skip

    def _earlier(self, context: Context, field: str, run_path: str, cluster: str) -> ReleasePlan:
        from include.results.journal import read_plan

        plan = read_plan(self.journal(context).objects, run_path)
        if plan is None or plan.cluster.name != cluster:
            raise ConfigurationError(
                "PlanUnknown",
                f"{field} = {run_path!r} has no plan for cluster {cluster!r}",
                fix="name a run whose folder in the results store holds plan.json",
            )
        return plan


class PreflightOperator(StageOperator):
    """Check everything that can be checked for free.

    A cell of a night whose only trouble is that there is no room waits in the triggerer and looks again, until the
    night's deadline; then its night counts as skipped.

    :param request: see :class:`StageOperator`.
    """

    stage = "preflight"

    def look_again(self, context: Context, event: Any = None) -> dict[str, Any]:  # noqa: ARG002 (the trigger's)
        """Go on after a wait."""
        return self._check(context)

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the report; fails when a check failed, with every failed check and its fix."""
        return self._check(context)

    def _check(self, context: Context) -> dict[str, Any]:
        from airflow.providers.standard.triggers.temporal import TimeDeltaTrigger

        from include.endpoint.preflight import preflight

        with self.journaled(context) as work:
            plan = self.plan(context)
            report = preflight(plan, self.hook(plan).clients())
            work.data = report.model_dump(mode="json")
            log_checks(self.log, report)
            until = self.release_request(context).capacity_until
            if not waits_for_room(report, until, dt.datetime.now(dt.UTC)):
                if error := report.error("PreflightFailed"):
                    raise error
                return report.model_dump(mode="json")
            work.unfinished = True
            self.log.info("no room yet; looking again every %d s until %s", LOOK_AGAIN.total_seconds(), until)
        raise TaskDeferred(trigger=TimeDeltaTrigger(LOOK_AGAIN), method_name="look_again")


def waits_for_room(report: ValidationReport, until: dt.datetime | None, now: dt.datetime) -> bool:
    """Return whether to wait: only room is missing, and the deadline has not come.

    :param until: deadline; ``None``: never wait.
    :raises PipelineError: only room is missing, and the deadline has passed.
    """
    from include.errors import FailureClass, PipelineError
    from include.results.schema import NO_CAPACITY

    failures = report.failures
    if until is None or not failures or any(one.failure_class != FailureClass.CAPACITY for one in failures):
        return False
    if now < until:
        return True
    said = "; ".join(f"{one.name}: {one.observed}, needed {one.expected}" for one in failures)
    raise PipelineError(
        NO_CAPACITY,
        f"no room until {until:%Y-%m-%d %H:%M} UTC; {said}",
        fix="nothing for tonight; for longer waits raise capacity_wait_hours in nightly.yaml, or add instances",
        failure_class=FailureClass.RESULT,
        evidence=tuple(f"{one.name}: {one.observed}" for one in failures),
    )


class StageModelOperator(StageOperator):
    """Move the planned revision to the cluster's store, or verify that it is there.

    :param request: see :class:`StageOperator`.
    """

    stage = "stage"

    def execute(self, context: Context) -> dict[str, Any]:
        """Return the staged model."""
        from include.staging.api import stage
        from include.staging.delivery import place_of, require_room

        with self.journaled(context) as work:
            plan = self.plan(context)
            hook = self.hook(plan)
            place = place_of(plan.model, plan.cluster)
            staging = hook.staging_of(plan.model)
            if place is not None:
                # Asked here too: weights that have no room there need not go to the bucket first.
                require_room(plan.model, plan.revision, plan.cluster.models_uri, staging, place)
            staged = stage(
                plan.model,
                plan.revision,
                plan.cluster.models_uri,
                staging,
                owner=plan.run.owner,
                progress=lambda progress: self.log.info("staging %s", progress),
                budget_bytes=plan.cluster.max_staged_bytes,
                notice=lambda sentence: self.log.warning("%s", sentence),
            )
            work.data, work.work_seconds = staged.model_dump(mode="json"), staged.seconds
            how = "already there, verified" if staged.reused else f"{staged.moved_bytes} bytes moved"
            self.log.info("staged %s: %s, manifest %s", staged.uri, how, staged.manifest_digest)
            if place is not None:
                delivered = self._deliver(plan, hook, place)
                work.data |= {"delivered": delivered.model_dump(mode="json")}
                work.work_seconds += delivered.seconds
            return staged.model_dump(mode="json")

    def _deliver(self, plan: ReleasePlan, hook: HyperPodHook, place: Place) -> Delivered:
        """Bring the staged revision onto the cluster's FSx file system."""
        from dataclasses import replace

        from include.staging.delivery import deliver
        from include.staging.target import Target

        context = replace(hook.staging(), kube=hook.kube)
        target = Target.open(plan.cluster.models_uri, plan.model.name, plan.revision, context)
        delivered = deliver(target, place, lambda sentence: self.log.info("%s", sentence))
        self.log.info("%s bytes at %s:/%s", delivered.bytes, delivered.file_system_id, delivered.location)
        return delivered


def log_checks(log: Any, report: ValidationReport) -> None:
    """Log one line a check."""
    for check in report.checks:
        said = f"{check.verdict:<4} {check.name}: {check.observed}"
        if check.verdict == "fail":
            log.error("%s (expected %s). Fix: %s", said, check.expected, check.fix)
        else:
            log.info("%s", said)
