"""The benchmark stage: exclusive, resumable by level, every result kept as soon as it is measured."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyperpod.operators.base import StageOperator
from hyperpod.operators.endpoint import endpoint_ref, staged_model
from include.errors import FailureClass, PipelineError

if TYPE_CHECKING:
    from airflow.sdk import Context

    from include.catalog.plan import ReleasePlan
    from include.catalog.specs import LoadSpec, Slo, WorkloadSpec
    from include.results.schema import BenchmarkResult, Provenance


class BenchmarkEndpointOperator(StageOperator):
    """Measure every workload at every load level, holding the endpoint's lease.

    :param request: see :class:`StageOperator`.
    """

    stage = "benchmark"

    def execute(self, context: Context) -> list[str]:
        """Return the ids of the results; fails after measuring when requests failed beyond the SLO."""
        from include.endpoint.budget import check_budget
        from include.endpoint.invocation import resolve
        from include.endpoint.lease import EndpointLease
        from include.results.store import ResultsStore

        with self.journaled(context) as work:
            plan, ref = self.plan(context), endpoint_ref(self, context)
            clients = self.hook(plan).clients()
            journal = self.journal(context)
            store = ResultsStore(journal.objects)
            done = {result.result_id: result for result in store.of_run(plan.run.path) if result.validity.valid}
            attempt = int(context["ti"].try_number)
            results: list[BenchmarkResult] = []
            holder = f"{plan.run.owner}.{attempt}"
            with EndpointLease(clients, ref.namespace, f"bench-{ref.name}"[:63], holder) as lease:
                provenance = self._provenance(plan, context)
                for workload, load, arm in _levels(plan):
                    result_id = _result_id(plan, workload, load, arm)
                    if result_id in done:
                        self.log.info("%s %s: measured by an earlier try", workload.name, load.label)
                        results.append(done[result_id])
                        continue
                    check_budget(plan, ref, dt.datetime.now(dt.UTC))
                    result = self._measure(
                        plan, resolve(plan, ref, clients), workload, load, arm, lease, provenance, result_id, store
                    )
                    results.append(result)
                    work.data = {"results": [item.result_id for item in results]}
            work.work_seconds = sum((item.ended_at - item.started_at).total_seconds() for item in results)
            _raise_failures(results)
            return [result.result_id for result in results]

    def _measure(
        self,
        plan: ReleasePlan,
        invocation: Any,
        workload: WorkloadSpec,
        load: LoadSpec,
        arm: str,
        lease: Any,
        provenance: Provenance,
        result_id: str,
        store: Any,
    ) -> BenchmarkResult:
        from include.canonical import digest
        from include.loadtest.api import Target, run_load
        from include.results.cost import cost_usd, usd_per_million
        from include.results.schema import BenchmarkResult

        slo = merged_slo(plan, workload)
        target = Target(
            base_url=invocation.base_url,
            path=invocation.path,
            model=invocation.model,
            protocol=workload.protocol,
            stream=workload.stream,
            headers=invocation.headers,
            ca_file=invocation.ca_file,
        )
        self.log.info("measuring %s %s %s", workload.name, load.label, arm)
        with tempfile.TemporaryDirectory(prefix="hyperpod-bench-") as folder:
            outcome = run_load(
                target,
                workload,
                load,
                out_dir=Path(folder),
                seed=workload.seed,
                salt=f"{plan.run.owner}:{load.label}",
                arm=arm,
                slo=slo,
                progress=lambda said: self.log.info("load %s", said),
            )
            seconds = (outcome.ended_at - outcome.started_at).total_seconds()
            statistics = outcome.statistics
            good = statistics.output_tokens_per_s * (statistics.goodput_share or 0.0)
            validity = outcome.validity.model_copy(update={"lease_id": lease.lease_id})
            if lease.lost:
                reasons = (*validity.reasons, "CONTAMINATED: the lease was lost")
                validity = validity.model_copy(update={"valid": False, "reasons": reasons})
            result = BenchmarkResult(
                result_id=result_id if validity.valid else f"{result_id}-t{lease.holder.rsplit('.', 1)[-1]}",
                run=plan.run,
                workload=workload.name,
                load=load.label,
                arm=arm,
                load_spec=load.model_dump(mode="json"),
                workload_digest=digest(workload.model_dump(mode="json")),
                started_at=outcome.started_at,
                ended_at=outcome.ended_at,
                statistics=statistics,
                validity=validity,
                provenance=provenance.model_copy(update={"harness_version": outcome.harness_version}),
                slo=slo.model_dump(mode="json"),
                cost_usd=cost_usd(plan.hourly_price, seconds),
                usd_per_million_output_tokens=usd_per_million(plan.hourly_price, statistics.output_tokens_per_s),
                usd_per_million_good_tokens=usd_per_million(plan.hourly_price, good),
                extension=outcome.extension,
            )
            kept: BenchmarkResult = store.put_result(result, outcome.requests_path)
        self.log.info(
            "measured %s %s: %d ok, %d failed, TTFT p50 %s ms, %.1f tokens/s, %s",
            workload.name,
            load.label,
            statistics.requests_ok,
            statistics.requests_failed,
            statistics.ttft_ms.p50,
            statistics.output_tokens_per_s,
            "valid" if validity.valid else ", ".join(validity.reasons),
        )
        return kept

    def _provenance(self, plan: ReleasePlan, context: Context) -> Provenance:
        from include.results.schema import Provenance

        staged, ref = staged_model(self, context), endpoint_ref(self, context)
        deployment = plan.model.deployment
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
            instance_type=deployment.instance_type or "",
            replicas=deployment.replicas,
            price_id=plan.price_id,
        )


def merged_slo(plan: ReleasePlan, workload: WorkloadSpec) -> Slo:
    """Return the SLO in force: the request's, over the model's, over the workload's."""
    from include.catalog.specs import Slo

    merged: dict[str, Any] = {}
    for slo in (workload.slo, plan.model.slo, plan.slo):
        merged |= slo.model_dump(exclude_none=True)
    return Slo.model_validate(merged)


def _levels(plan: ReleasePlan) -> Iterator[tuple[WorkloadSpec, LoadSpec, str]]:
    for workload in plan.workloads:
        for arm in workload.arms:
            for load in workload.loads:
                yield workload, load, arm


def _result_id(plan: ReleasePlan, workload: WorkloadSpec, load: LoadSpec, arm: str) -> str:
    return f"{plan.run.owner}-{workload.name}-{load.label.replace('=', '')}-{arm}"


def _raise_failures(results: list[BenchmarkResult]) -> None:
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
