"""One try's measurements of one endpoint: from a load level to a result that is kept."""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from include.catalog.plan import ReleasePlan
    from include.catalog.specs import JsonObject, LoadPods, LoadSpec, Slo, WorkloadSpec
    from include.endpoint.clients import Clients
    from include.endpoint.invocation import Invocation
    from include.endpoint.model import EndpointRef
    from include.loadtest.api import LoadOutcome
    from include.loadtest.kubernetes_job import LoadJob, Order
    from include.loadtest.place import Place
    from include.loadtest.target import Target
    from include.results.schema import BenchmarkResult, Provenance
    from include.results.store import ResultsStore

STORE_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3")


@dataclass(frozen=True)
class Level:
    """One load level of one workload in one arm."""

    workload: WorkloadSpec
    load: LoadSpec
    arm: str

    @property
    def text(self) -> str:
        """For a log."""
        return f"{self.workload.name} {self.load.label} {self.arm}"

    def result_id(self, plan: ReleasePlan) -> str:
        """The same for every try."""
        return f"{plan.run.owner}-{self.workload.name}-{self.load.label.replace('=', '')}-{self.arm}"


def levels_of(plan: ReleasePlan) -> Iterator[Level]:
    """Yield the levels in the order in which they are measured."""
    for workload in plan.workloads:
        for arm in workload.arms:
            for load in workload.loads:
                yield Level(workload, load, arm)


def merged_slo(plan: ReleasePlan, workload: WorkloadSpec) -> Slo:
    """Return the SLO in force: the request's, over the model's, over the workload's."""
    from include.catalog.specs import Slo

    merged: dict[str, Any] = {}
    for slo in (workload.slo, plan.model.slo, plan.slo):
        merged |= slo.model_dump(exclude_none=True)
    return Slo.model_validate(merged)


@dataclass(frozen=True)
class Measuring:
    """Measures levels for one try.

    :param attempt: the try's number; no two tries of a level share a prompt or a results folder.
    :param session: for the results store.
    """

    plan: ReleasePlan
    ref: EndpointRef
    clients: Clients
    store: ResultsStore
    provenance: Provenance
    attempt: int
    session: Any
    log: Any

    def here(self, level: Level, place: Place, folder: Path) -> LoadOutcome:
        """Run the load from this machine; its files go to ``folder``."""
        from include.endpoint.invocation import resolve
        from include.endpoint.metricspages import metrics_pages
        from include.loadtest.api import run_foreign_load, run_load

        slo = merged_slo(self.plan, level.workload)
        target = self._target(level, resolve(self.plan, self.ref, self.clients))
        if place.install is not None:
            return run_foreign_load(
                target, self._own_prompts(level), level.load, place.install, out_dir=folder, slo=slo,
                metrics_urls=metrics_pages(self.plan, self.ref, self.clients),
            )  # fmt: skip
        return run_load(
            target,
            level.workload,
            level.load,
            out_dir=folder,
            seed=level.workload.seed,
            salt=f"{self.plan.run.owner}:{level.load.label}:{self.attempt}",
            arm=level.arm,
            slo=slo,
            progress=lambda said: self.log.info("load %s", said),
            metrics_urls=metrics_pages(self.plan, self.ref, self.clients),
            session=self.clients.session,
        )

    @contextlib.contextmanager
    def kept_when_broken(self, name: str, folder: Path) -> Iterator[None]:
        """Whatever ends the block early, its records go to ``partial/<name>-t<try>.parquet`` of the run.

        :param folder: where the block writes them.
        """
        from obstore.exceptions import BaseError

        from include.errors import PipelineError
        from include.loadtest.partial import keep_partial

        try:
            yield
        except BaseException:
            path = f"{self.plan.run.path}/partial/{name}-t{self.attempt}.parquet"
            try:
                count = keep_partial(folder, self.store.objects, path)
            except (OSError, ValueError, BaseError, PipelineError) as error:  # what ended the load is what is told
                self.log.warning("the records of %s until then are lost: %s", name, error)
            else:
                if count:
                    self.log.warning("%s records of %s until then are kept in %s", count, name, path)
            raise

    def search(self, workload: WorkloadSpec, folder: Path, *, lost: Callable[[], bool]) -> JsonObject:
        """Look for the highest load that meets the workload's SLO; keep what was found beside the run's results.

        Until it ends, and if it never does, its probes lie in ``partial/search-<workload>-t<try>.json``.

        :param lost: true once others may use the endpoint; then the search ends, and proves nothing from there on.
        """
        import json

        from include.catalog.specs import SearchSpec
        from include.endpoint.invocation import resolve
        from include.endpoint.metricspages import metrics_pages
        from include.loadtest.search import Probe
        from include.loadtest.sweep import found_json, probes_json, search_goodput, sentence

        search, slo = workload.search or SearchSpec(), merged_slo(self.plan, workload)
        level = Level(workload, workload.loads[0], "cold")
        target = self._target(level, resolve(self.plan, self.ref, self.clients))
        until_then, probes = f"{self.plan.run.path}/partial/search-{workload.name}-t{self.attempt}.json", list[Probe]()

        def keep(probe: Probe) -> None:
            self.log.info("search %s: %s", workload.name, probe)
            probes.append(probe)
            self.store.objects.put(until_then, json.dumps(probes_json(probes), indent=1).encode())

        found = search_goodput(
            target,
            workload,
            slo,
            search,
            out_dir=folder,
            salt=f"{self.plan.run.owner}:{self.attempt}",
            session=self.clients.session,
            on_probe=keep,
            metrics_urls=metrics_pages(self.plan, self.ref, self.clients),
            broken=lambda: "the lease was lost: others may have used the endpoint" if lost() else "",
        )
        self.log.info("search %s: %s", workload.name, sentence(found, search))
        content = found_json(found, search, slo)
        path = f"{self.plan.run.path}/search/{workload.name}.json"
        self.store.objects.put(path, json.dumps(content, indent=1).encode())
        self.store.objects.delete(until_then)
        return content

    def launch(self, level: Level, place: Place) -> str:
        """Start the load's Job, of the cluster or of SageMaker; return its name.

        :raises ConfigurationError: pods cannot do this load as it is, or SageMaker does not know the endpoint.
        """
        from include.endpoint.invocation import resolve
        from include.loadtest.podrun import start

        if place.managed:
            return self._launch_managed(level, place)
        # Within the cluster there is no private certificate, a file of the worker that pods would not have.
        way = self._pods(place).invocation
        target = self._target(level, resolve(self.plan, self.ref, self.clients, way))
        job = self._job(level, place)
        start(self.clients.kube, job, list(self._orders(level, place, target)))
        return job.name

    def _launch_managed(self, level: Level, place: Place) -> str:
        from include.errors import ConfigurationError
        from include.loadtest.foreign import sagemaker_jobs

        install, name, endpoint = place.install, self._job_name(level), self.ref.sagemaker_endpoint
        if endpoint is None or install is None or install.role_arn is None:
            raise ConfigurationError(
                "NotRegistered",
                f"SageMaker runs benchmarks on endpoints of its own only, {self.ref.name} has none",
                fix="set deployment.sagemaker_endpoint to true, or use another engine",
            )
        parameters = sagemaker_jobs.parameters_of(level.workload, level.load, install.parameters)
        uri = self._results_uri(name)
        sagemaker_jobs.start(
            self.clients.sagemaker, name, parameters, endpoint=endpoint, output_uri=uri, role_arn=install.role_arn
        )
        return name

    def collect(self, level: Level, place: Place, job: str, started: dt.datetime, folder: Path) -> LoadOutcome:
        """Read what the Job left.

        :raises PipelineError: it, or one of its pods, left nothing.
        """
        from include.loadtest.api import outcome_of
        from include.loadtest.foreign import sagemaker_jobs
        from include.loadtest.foreign.base import Asked
        from include.loadtest.pod import collect_pods, collected_metrics
        from include.loadtest.records import write_parquet
        from include.loadtest.serverside import ServerSide

        uri, server = self._results_uri(job), ServerSide()
        if place.managed:
            asked = Asked(workload=level.workload, load=level.load)
            table = sagemaker_jobs.collect(uri, folder, session=self.session, asked=asked)
            path = write_parquet(table, folder / "requests.parquet")
        else:
            path = collect_pods(uri, place.pods, folder, session=self.session)
            server = collected_metrics(uri, session=self.session)
        wall = (dt.datetime.now(dt.UTC) - started).total_seconds()
        return outcome_of(path, merged_slo(self.plan, level.workload), started, wall, server)

    def remove(self, place: Place, job: str) -> None:
        """Take a load Job away."""
        from include.loadtest.foreign import sagemaker_jobs
        from include.loadtest.podrun import remove

        if place.managed:
            sagemaker_jobs.remove(self.clients.sagemaker, job)
        else:
            remove(self.clients.kube, self.ref.namespace, job)

    def keep(self, level: Level, outcome: LoadOutcome, lease_id: str, *, exclusive: bool) -> BenchmarkResult:
        """Write the level's result with its requests; an invalid one under a name of this try."""
        from include.canonical import digest
        from include.results.cost import cost_usd, usd_per_million
        from include.results.schema import BenchmarkResult

        plan, statistics = self.plan, outcome.statistics
        seconds = (outcome.ended_at - outcome.started_at).total_seconds()
        good = statistics.output_tokens_per_s * (statistics.goodput_share or 0.0)
        validity = outcome.validity.model_copy(update={"lease_id": lease_id})
        if not exclusive:
            reasons = (*validity.reasons, "CONTAMINATED: the lease was lost")
            validity = validity.model_copy(update={"valid": False, "reasons": reasons})
        result_id = level.result_id(plan)
        result = BenchmarkResult(
            result_id=result_id if validity.valid else f"{result_id}-t{self.attempt}",
            run=plan.run,
            workload=level.workload.name,
            load=level.load.label,
            arm=level.arm,
            load_spec=level.load.model_dump(mode="json"),
            workload_digest=digest(level.workload.content),
            started_at=outcome.started_at,
            ended_at=outcome.ended_at,
            statistics=statistics,
            validity=validity,
            provenance=self.provenance.model_copy(update={"harness_version": outcome.harness_version}),
            slo=merged_slo(plan, level.workload).model_dump(mode="json"),
            cost_usd=cost_usd(plan.hourly_price, seconds),
            usd_per_million_output_tokens=usd_per_million(plan.hourly_price, statistics.output_tokens_per_s),
            usd_per_million_good_tokens=usd_per_million(plan.hourly_price, good),
            extension=outcome.extension,
        )
        if outcome.metrics_path is not None:
            path = f"{plan.run.path}/metrics/{result.result_id}.parquet"
            self.store.objects.put_file(path, outcome.metrics_path)
        kept: BenchmarkResult = self.store.put_result(result, outcome.requests_path)
        self.log.info(
            "measured %s: %d ok, %d failed, TTFT p50 %s ms, %.1f tokens/s, %s",
            level.text,
            statistics.requests_ok,
            statistics.requests_failed,
            statistics.ttft_ms.p50,
            statistics.output_tokens_per_s,
            "valid" if validity.valid else ", ".join(validity.reasons),
        )
        return kept

    def _target(self, level: Level, invocation: Invocation) -> Target:
        from include.loadtest.target import Target

        workload = level.workload
        common = {
            "base_url": invocation.base_url,
            "model": invocation.model,
            "stream": workload.stream,
            "headers": invocation.headers,
            "ca_file": invocation.ca_file,
        }
        if invocation.protocol == "sagemaker":
            # The path depends on the stream, the body on the workload; requests are signed for the cluster's region.
            body = {} if workload.protocol in ("invocations", "sagemaker") else {"body_format": workload.protocol}
            name, region = self.ref.sagemaker_endpoint, self.plan.cluster.region
            return Target(**common, **body, protocol="sagemaker", endpoint_name=name, region=region)
        # A server of OpenAI's interfaces has a path for each; any other takes every body at its own.
        own = invocation.protocol != workload.protocol and invocation.protocol.startswith("openai")
        return Target(**common, protocol=workload.protocol, path="" if own else invocation.path)

    def _job(self, level: Level, place: Place) -> LoadJob:
        import os

        from include.endpoint import names
        from include.endpoint.resources import ENDPOINT_KINDS
        from include.loadtest.kubernetes_job import LoadJob

        ref, kind, pods = self.ref, ENDPOINT_KINDS[self.ref.kind], self._pods(place)
        name = self._job_name(level)
        bound = level.load.duration_s or 0.0
        engine = place.install.timeout_seconds if place.install else 3600
        deadline = pods.ready_seconds + bound + 2 * level.workload.request_timeout_s + engine
        return LoadJob(
            name=name,
            namespace=ref.namespace,
            image=place.image,
            pods=place.pods,
            results_uri=self._results_uri(name),
            serving={"app": ref.name},
            deadline_s=int(deadline),
            labels={names.MANAGED_BY: names.MANAGER, "app.kubernetes.io/component": "load"},
            owner={"apiVersion": kind.api_version, "kind": kind.kind, "name": ref.name, "uid": ref.uid},
            service_account=pods.service_account,
            # A node has its own region and endpoints; a local one is told the worker's.
            environment={name: os.environ[name] for name in STORE_VARIABLES if name in os.environ},
            node_selector=pods.node_selector,
            cpu=pods.cpu,
            memory=pods.memory,
        )

    def _orders(self, level: Level, place: Place, target: Target) -> Iterator[Order]:
        from include.endpoint.metricspages import metrics_pages
        from include.loadtest.kubernetes_job import ForeignRun, Order, orders_for
        from include.loadtest.planning import make_jobs

        if place.install is not None:
            run = ForeignRun(
                engine=place.engine,
                target=target.model_dump(mode="json"),
                workload=self._own_prompts(level).model_dump(mode="json"),
                load=level.load.model_dump(mode="json"),
                install=place.install.model_dump(mode="json"),
            )
            pages = metrics_pages(self.plan, self.ref, self.clients, self._pods(place).invocation)
            yield Order(foreign=run, metrics_urls=[page.url for page in pages])
            return
        # No file is written for a load without data set and trace, and only such a load is for pods.
        common = make_jobs(
            target, level.workload, level.load, out_dir=Path(), seed=level.workload.seed,
            salt=f"{self.plan.run.owner}:{level.load.label}:{self.attempt}", arm=level.arm, workers=1,
        )[0]  # fmt: skip
        pods = self._pods(place)
        pages = metrics_pages(self.plan, self.ref, self.clients, pods.invocation)
        yield from orders_for(common, place.pods, pods.ready_seconds, [page.url for page in pages])

    def _pods(self, place: Place) -> LoadPods:
        """Return how load pods are made; an engine's image needs no more than the defaults."""
        from include.catalog.specs import LoadPods

        return self.plan.cluster.load_pods or LoadPods(image=place.image)

    def _own_prompts(self, level: Level) -> WorkloadSpec:
        """Return the workload with a seed of this level and try: a tool knows no salt, its prompts are by the seed."""
        mark = hashlib.sha256(f"{level.result_id(self.plan)}|{self.attempt}|{level.workload.seed}".encode())
        return level.workload.model_copy(update={"seed": int(mark.hexdigest()[:7], 16)})

    def _job_name(self, level: Level) -> str:
        """No two tries of a level share a Job or its folder."""
        mark = hashlib.sha256(f"{level.result_id(self.plan)}|{self.attempt}".encode())
        return f"load-{mark.hexdigest()[:12]}"

    def _results_uri(self, job: str) -> str:
        base = self.plan.cluster.results_uri.rstrip("/")
        if "://" not in base:
            from include.objects import PROJECT_ROOT

            base = f"file://{PROJECT_ROOT / base}"
        return f"{base}/{self.plan.run.path}/load/{job}"
