"""The benchmark stage: exclusive, resumable by level, every result kept as soon as it is measured."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperpod.measuring import Level, Measuring, levels_of
from hyperpod.operators.base import StageOperator, StageWork
from hyperpod.operators.endpoint import endpoint_ref, staged_model
from hyperpod.triggers.benchmark import LoadJobTrigger
from include.errors import FailureClass, PipelineError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.catalog.plan import ReleasePlan
    from include.endpoint.clients import Clients
    from include.endpoint.lease import EndpointLease
    from include.endpoint.model import EndpointRef
    from include.results.schema import BenchmarkResult, Provenance

# Long enough for a task to be handed between worker and triggerer without a heartbeat.
LEASE_SECONDS, HANDED_SECONDS = 15.0, 90.0


@dataclass(frozen=True)
class Waiting:
    """The load Job that a deferred task waits for.

    :param level: id of the level's result.
    :param lease_id: the holding of the lease under which it was started.
    """

    level: str
    job: str
    lease_id: str
    started: str
    managed: bool = False


class BenchmarkEndpointOperator(StageOperator):
    """Measure every workload at every load level, holding the endpoint's lease.

    A load that is too much for the worker comes from pods of the cluster; the task waits for them in the triggerer.

    :param request: see :class:`StageOperator`.
    """

    stage = "benchmark"

    def execute(self, context: Context) -> list[str]:
        """Return the ids of the results; fails after measuring when requests failed beyond the SLO."""
        return self._go(context, [], None, None)

    def resume(
        self, context: Context, event: dict[str, Any] | None, measured: list[str], waiting: dict[str, Any]
    ) -> list[str]:
        """Take what a load Job left, then go on with the next level."""
        return self._go(context, measured, Waiting(**waiting), event or {})

    def _go(
        self, context: Context, measured: list[str], waited: Waiting | None, event: dict[str, Any] | None
    ) -> list[str]:
        from include.endpoint.lease import EndpointLease

        with self.journaled(context) as work:
            bench = self._measuring(context)
            holder = f"{bench.plan.run.owner}.{bench.attempt}"
            seconds = HANDED_SECONDS if _any_away(bench.plan) else LEASE_SECONDS
            name = f"bench-{bench.ref.name}"[:63]
            with EndpointLease(bench.clients, bench.ref.namespace, name, holder, seconds) as lease:
                results, waiting = self._levels(bench, lease, work, measured, waited, event)
                if waiting is None:
                    self._searches(bench, lease, work)
            if waiting is None:
                work.work_seconds = sum((item.ended_at - item.started_at).total_seconds() for item in results)
                _raise_failures(results)
                return [result.result_id for result in results]
            work.unfinished = True
        self._defer(bench, waiting, [result.result_id for result in results], name, holder)
        raise AssertionError("defer does not return")

    def _levels(
        self,
        bench: Measuring,
        lease: EndpointLease,
        work: StageWork,
        measured: list[str],
        waited: Waiting | None,
        event: dict[str, Any] | None,
    ) -> tuple[list[BenchmarkResult], Waiting | None]:
        """Measure until all is done, or until a level's Job has to be waited for."""
        from include.endpoint.budget import check_budget
        from include.loadtest.place import place_of

        plan = bench.plan
        known = {result.result_id: result for result in bench.store.of_run(plan.run.path)}
        results = [known[name] for name in measured]
        done = {name: result for name, result in known.items() if result.validity.valid and name not in measured}
        past = {_level_id(name) for name in measured}
        for level in levels_of(plan):
            result_id = level.result_id(plan)
            if result_id in past:
                continue
            if result_id in done:
                self.log.info("%s: measured by an earlier try", level.text)
                results.append(done[result_id])
                continue
            place = place_of(level.workload, level.load, plan.cluster)
            if waited is not None and waited.level == result_id:
                results.append(self._collected(bench, lease, level, waited, event or {}))
            else:
                check_budget(plan, bench.ref, dt.datetime.now(dt.UTC))
                self.log.info("measuring %s: %s", level.text, place.text)
                if place.away:
                    started = dt.datetime.now(dt.UTC).isoformat()
                    job = bench.launch(level, place)
                    lease.hand_on()
                    return results, Waiting(result_id, job, lease.lease_id, started, place.managed)
                with (
                    tempfile.TemporaryDirectory(prefix="hyperpod-bench-") as folder,
                    bench.kept_when_broken(result_id, Path(folder)),
                ):
                    outcome = bench.here(level, place, Path(folder))
                    results.append(bench.keep(level, outcome, lease.lease_id, exclusive=not lease.lost))
            work.data = {"results": [item.result_id for item in results]}
        return results, None

    def _searches(self, bench: Measuring, lease: EndpointLease, work: StageWork) -> None:
        """After the levels, under the same lease: a search takes the endpoint beyond what it can do."""
        from include.endpoint.budget import check_budget

        for workload in bench.plan.workloads:
            if workload.search is not None:
                check_budget(bench.plan, bench.ref, dt.datetime.now(dt.UTC))
                with tempfile.TemporaryDirectory(prefix="hyperpod-search-") as folder:
                    found = bench.search(workload, Path(folder), lost=lambda: lease.lost)
                keep = {name: found[name] for name in ("by", "highest_met", "lowest_missed", "resolved", "stop")}
                work.data = work.data | {"search": work.data.get("search", {}) | {workload.name: keep}}

    def _collected(
        self, bench: Measuring, lease: EndpointLease, level: Level, waited: Waiting, event: dict[str, Any]
    ) -> BenchmarkResult:
        """Keep the result of a Job that has ended, and take the Job away whatever it left."""
        from include.loadtest.place import place_of

        exclusive = bool(event.get("exclusive")) and lease.continues(waited.lease_id) and not lease.lost
        place = place_of(level.workload, level.load, bench.plan.cluster)
        try:
            if event.get("phase") != "complete":
                raise PipelineError(
                    str(event.get("reason") or "NoEvent"),
                    f"the load of {level.text} did not run: {event.get('message') or 'the trigger sent nothing'}",
                    fix="read the evidence; the pods need nodes other than the model servers', and the image",
                    failure_class=FailureClass.TRANSIENT,
                    evidence=tuple(event.get("evidence") or ()),
                )
            started = dt.datetime.fromisoformat(waited.started)
            with tempfile.TemporaryDirectory(prefix="hyperpod-bench-") as folder:
                outcome = bench.collect(level, place, waited.job, started, Path(folder))
                return bench.keep(level, outcome, waited.lease_id, exclusive=exclusive)
        finally:
            bench.remove(place, waited.job)

    def _defer(self, bench: Measuring, waiting: Waiting, measured: list[str], lease: str, holder: str) -> None:
        plan = bench.plan
        pods = plan.cluster.load_pods
        self.defer(
            trigger=LoadJobTrigger(
                cluster=plan.cluster.model_dump(mode="json"),
                namespace=bench.ref.namespace,
                job=waiting.job,
                lease=lease,
                holder=holder,
                lease_id=waiting.lease_id,
                lease_seconds=HANDED_SECONDS,
                ready_seconds=pods.ready_seconds if pods else 600,
                managed=waiting.managed,
            ),
            method_name="resume",
            kwargs={"measured": measured, "waiting": asdict(waiting)},
        )

    def _measuring(self, context: Context) -> Measuring:
        from include.results.store import ResultsStore

        plan, ref = self.plan(context), endpoint_ref(self, context)
        hook = self.hook(plan)
        clients = hook.clients()
        return Measuring(
            plan=plan,
            ref=ref,
            clients=clients,
            store=ResultsStore(self.journal(context).objects),
            provenance=self._provenance(plan, ref, clients, context),
            attempt=int(context["ti"].try_number),
            session=hook.session if plan.cluster.results_uri.startswith("s3://") else None,
            log=self.log,
        )

    def _provenance(self, plan: ReleasePlan, ref: EndpointRef, clients: Clients, context: Context) -> Provenance:
        from include.endpoint.serving import observe_serving
        from include.results.schema import Provenance

        staged = staged_model(self, context)
        deployment = plan.model.deployment
        serving = observe_serving(ref, plan, clients)
        return Provenance(
            model=plan.model.name,
            revision=plan.revision,
            manifest_digest=staged.manifest_digest if staged else "",
            plan_digest=plan.digest,
            spec_digest=ref.spec_digest,
            image=deployment.image or "",
            engine=deployment.engine,
            endpoint_uid=ref.uid,
            cluster=plan.cluster.name,
            image_digest=serving.image_digest,
            engine_version=serving.engine_version,
            instance_type=serving.instance_type or deployment.instance_type or "",
            accelerators=serving.accelerators,
            replicas=deployment.replicas,
            node_names=serving.node_names,
            operator_version=serving.operator_version,
            driver_version=serving.driver_version,
            price_id=plan.price_id,
        )


def _level_id(result_id: str) -> str:
    """An invalid result's id ends in its try's number."""
    import re

    return re.sub(r"-t\d+$", "", result_id)


def _any_away(plan: ReleasePlan) -> bool:
    from include.loadtest.place import place_of

    return any(place_of(level.workload, level.load, plan.cluster).away for level in levels_of(plan))


def _raise_failures(results: Sequence[BenchmarkResult]) -> None:
    bad = []
    for result in results:
        s = result.statistics
        total = s.requests_ok + s.requests_failed
        allowed = float(result.slo.get("error_rate") or 0.0)
        if total == 0 or s.requests_failed / total > allowed:
            classes = ", ".join(f"{count} {name}" for name, count in s.failures.items()) or "no request was answered"
            bad.append(f"{result.workload} {result.load}: {s.requests_failed} of {total} requests failed ({classes})")
    if bad:
        raise PipelineError(
            "RequestsFailed",
            "; ".join(bad),
            fix="read the endpoint's events and log (evidence of the pod's restarts), or allow it by slo.error_rate",
            failure_class=FailureClass.RESULT,
            evidence=tuple(bad),
        )
