"""The benchmark operator with a load from pods: a real Job on the local cluster, deferred, merged, taken away."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
from airflow.sdk.exceptions import TaskDeferred

from include.canonical import digest
from include.catalog.loader import load_catalog
from include.catalog.plan import ReleasePlan, RunIdentity
from include.catalog.specs import ClusterSpec, LoadSpec, PromptSpec, SearchSpec, Slo, WorkloadSpec
from include.endpoint.model import EndpointRef
from include.errors import PipelineError
from include.loadtest.api import load_records, summarise
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.objects import Objects
from include.results.journal import RunJournal
from include.results.schema import BenchmarkResult, StageOutcome
from include.results.store import ResultsStore
from tests.include.local.stack import Stack, wait_for

NAME, SERVING, FREE = "pods-20261123-0badcafe", "node-serving", "node-free"
IMAGE = "hyperpod.local/loadtest:1"
DATA = Path(__file__).parents[1] / "include" / "loadtest" / "data" / "aiperf.jsonl"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API server, AWS stand-in and two nodes; one of them has the model server."""
    made = Stack(Path(tmp_path_factory.mktemp("load-pods")))
    (made.state / "node").mkdir()
    (made.state / "node" / "nodes.json").write_text(json.dumps({"nodes": [{"name": SERVING}, {"name": FREE}]}))
    try:
        made.up("kube", "aws")
        made.up("node")
        yield made
    finally:
        made.down()


@pytest.fixture(scope="module")
def model_server() -> Iterator[ReferenceServer]:
    with ReferenceServer(Script(ttft_ms=5, itl_ms=1)) as running:
        yield running


@pytest.fixture(scope="module")
def endpoint(stack: Stack, model_server: ReferenceServer) -> EndpointRef:
    """A Deployment on one of the nodes, behind whose Service the reference server answers."""
    labels = {"app": NAME}
    container = {"name": "c", "image": "hyperpod.local/echo:1", "ports": [{"containerPort": 8080}]}
    template = {
        "metadata": {"labels": labels},
        "spec": {"containers": [container], "nodeSelector": {"kubernetes.io/hostname": SERVING}},
    }
    body = {
        "metadata": {"name": NAME, "namespace": "default", "labels": labels},
        "spec": {"replicas": 1, "selector": {"matchLabels": labels}, "template": template},
    }
    made = stack.send("POST", "apis/apps/v1/namespaces/default/deployments", body)
    port = {"name": "http", "port": model_server.port, "protocol": "TCP"}
    address = {"addresses": ["127.0.0.1"], "conditions": {"ready": True}}
    piece = {
        "metadata": {"name": f"{NAME}-1", "labels": {"kubernetes.io/service-name": f"{NAME}-routing-service"}},
        "addressType": "IPv4",
        "ports": [port],
        "endpoints": [address],
    }
    stack.send("POST", "apis/discovery.k8s.io/v1/namespaces/default/endpointslices", piece)
    wait_for("the model server's pod has a node", lambda: [p for p in stack.pods(NAME) if p["spec"].get("nodeName")])
    now = dt.datetime.now(dt.UTC)
    return EndpointRef(
        cluster="two-nodes", namespace="default", kind="direct", name=NAME, uid=made["metadata"]["uid"], owner="o",
        spec_digest="d", created_at=now, expires_at=now + dt.timedelta(hours=1),
    )  # fmt: skip


class Case:
    """One run of the benchmark task."""

    def __init__(
        self,
        stack: Stack,
        ref: EndpointRef,
        results: Path | str,
        run_id: str,
        engine: str = "ours",
        load: LoadSpec | None = None,
        search: SearchSpec | None = None,
        **cluster: Any,
    ) -> None:
        self.run = RunIdentity(dag_id="release_model", run_id=run_id, started_at=dt.datetime.now(dt.UTC))
        given = {
            "name": "two-nodes",
            "kubernetes_conn_id": "two_nodes",
            "aws_conn_id": None,
            "models_uri": "s3://m/m",
            "results_uri": str(results),
            "invocation": "endpoints",
        }
        load = load or LoadSpec(mode="open", rate=40, arrivals="constant", duration_s=1.5, workers=2)
        if engine != "ours":
            load = LoadSpec(mode="closed", concurrency=2, requests=3)
        workload = WorkloadSpec(
            name="w", prompts=(PromptSpec(output_tokens=4),), loads=(load,), request_timeout_s=20, engine=engine,
            warmup_requests=2 if engine == "ours" else 0, search=search, slo=Slo(ttft_ms=1000),
        )  # fmt: skip
        self.plan = ReleasePlan(
            run=self.run, model=load_catalog().model("smollm2-135m"), revision="r", endpoint_name=NAME, model_prefix="",
            cluster=ClusterSpec.model_validate(given | cluster), workloads=(workload,), custom_resource={},
        )  # fmt: skip
        self.objects = Objects.open(str(results))
        journal = RunJournal(self.objects, self.run)
        journal.write_plan(self.plan)
        done = {"stage": "create_endpoint", "state": "success", "data": ref.model_dump(mode="json")}
        journal.write_outcome(StageOutcome.model_validate(done | {"started_at": self.run.started_at}))
        self.stack = stack
        self.attempt = 1

    def task(self) -> Any:
        from hyperpod.operators.benchmark import BenchmarkEndpointOperator

        request = {"model": "smollm2-135m", "cluster": "two-nodes", "workloads": ["smoke"]}
        return BenchmarkEndpointOperator(task_id="benchmark", request=request)

    def context(self) -> Any:
        run = SimpleNamespace(
            dag_id=self.run.dag_id, run_id=self.run.run_id, run_after=self.run.started_at, start_date=None
        )
        return {
            "params": {},
            "dag_run": run,
            "ti": SimpleNamespace(try_number=self.attempt),
            "triggering_asset_events": {},
        }

    def defer(self) -> TaskDeferred:
        with pytest.raises(TaskDeferred) as caught:
            self.task().execute(self.context())
        return caught.value

    def fire(self, deferred: TaskDeferred) -> dict[str, Any]:
        """Run the trigger as a triggerer does: from what was stored of it."""
        from airflow.sdk.module_loading import import_string

        path, arguments = json.loads(json.dumps(deferred.trigger.serialize()))

        async def first() -> dict[str, Any]:
            async for event in import_string(path)(**arguments).run():
                return dict(event.payload)
            raise AssertionError("no event")

        return asyncio.run(asyncio.wait_for(first(), 90))

    def resume(self, deferred: TaskDeferred, event: dict[str, Any]) -> list[str]:
        kwargs = json.loads(json.dumps(deferred.kwargs))
        return list(self.task().resume(self.context(), event, **kwargs))

    def result(self) -> BenchmarkResult:
        (found,) = ResultsStore(self.objects).of_run(self.plan.run.path)
        return found

    def left(self) -> list[str]:
        """Jobs, Secrets and leases that are there."""
        places = ("apis/batch/v1", "jobs"), ("api/v1", "secrets"), ("apis/coordination.k8s.io/v1", "leases")
        return [
            item["metadata"]["name"]
            for base, kind in places
            for item in self.stack.items(f"{base}/namespaces/default/{kind}")
            if item["metadata"]["name"].startswith(("load-", "bench-"))
        ]


@pytest.fixture
def results(tmp_path: Path, stack: Stack, monkeypatch: pytest.MonkeyPatch) -> Path:
    connection = {"conn_type": "kubernetes", "extra": {"kube_config_path": stack.environment["KUBECONFIG"]}}
    for name, value in stack.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AIRFLOW_CONN_TWO_NODES", json.dumps(connection))
    monkeypatch.setenv("HYPERPOD_RESULTS_URI", str(tmp_path / "results"))
    return tmp_path / "results"


PODS = {"image": IMAGE, "invocation": "endpoints", "worker_processes": 1}


def test_a_load_too_large_for_the_worker_comes_from_pods(stack: Stack, endpoint: EndpointRef, results: Path) -> None:
    case = Case(stack, endpoint, results, "pods", load_pods=PODS)
    deferred = case.defer()
    event = case.fire(deferred)
    assert (event["phase"], event["exclusive"]) == ("complete", True), event
    job = deferred.kwargs["waiting"]["job"]
    assert [pod["spec"]["nodeName"] for pod in stack.pods(job)] == [FREE, FREE]
    assert [pod["spec"]["nodeName"] for pod in stack.pods(NAME)] == [SERVING]
    ids = case.resume(deferred, event)
    found = case.result()
    assert [found.result_id] == ids
    never = ("CONTAMINATED", "INCOMPLETE", "ERRORS", "NO_TOKEN_COUNT")  # others may be a busy machine's
    assert not [reason for reason in found.validity.reasons if reason.startswith(never)]
    assert found.validity.lease_id
    assert found.validity.server_side_requests == found.validity.client_side_requests == 60 + 2
    records = load_records(Path(str(found.requests_uri).removeprefix("file://"))).phase("measure")
    assert records.table.num_rows == 60
    assert set(records.table["worker"].to_pylist()) == {0, 1}
    # Each pod has every other arrival of one schedule: together they are even only if both count from one start.
    assert np.allclose(np.diff(np.sort(records.times("scheduled_ns"))), 1 / 40, atol=0.005)
    wait_for("Job, Secret and lease are gone", lambda: not case.left())
    outcome = RunJournal(case.objects, case.run).outcomes()["benchmark"]
    assert (outcome.state, outcome.data) == ("success", {"results": ids})


def test_metrics_come_from_the_endpoints_pods_and_the_gpus_of_their_nodes_only(
    stack: Stack, endpoint: EndpointRef, results: Path, model_server: ReferenceServer, tmp_path: Path
) -> None:
    from hyperpod.hooks.hyperpod import HyperPodHook
    from include.endpoint.metricspages import metrics_pages
    from include.loadtest.scrape import Scraper

    for node in (SERVING, FREE):
        meta = {"name": f"dcgm-{node}", "namespace": "default", "labels": {"app": "nvidia-dcgm-exporter"}}
        container = {"name": "c", "image": "hyperpod.local/echo:1"}
        spec = {"containers": [container], "nodeSelector": {"kubernetes.io/hostname": node}}
        stack.send("POST", "api/v1/namespaces/default/pods", {"metadata": meta, "spec": spec})
    path = "api/v1/namespaces/default/pods/dcgm-"
    for node in (SERVING, FREE):
        wait_for("the exporter has an address", lambda at=path + node: stack.get(at)["status"].get("podIP"))
    case = Case(stack, endpoint, results, "metrics")
    clients = HyperPodHook(case.plan.cluster).clients()
    own, gpus = (page.url for page in metrics_pages(case.plan, endpoint, clients))
    assert own == f"http://127.0.0.1:{model_server.port}/metrics"
    address = stack.get(path + SERVING)["status"]["podIP"]
    assert gpus == f"http://{address}:9400/metrics"
    away = case.plan.model_copy(update={"cluster": case.plan.cluster.model_copy(update={"invocation": "alb"})})
    (pod,) = (pod["metadata"]["name"] for pod in stack.pods(NAME))
    wait_for("the pod runs", lambda: stack.get(f"api/v1/namespaces/default/pods/{pod}")["status"]["phase"] == "Running")
    # From outside by the API server; what runs in the cluster goes to the pods whatever the worker's way is.
    server, gpu = metrics_pages(away, endpoint, clients)
    assert f"/api/v1/namespaces/default/pods/{pod}:8080/proxy/metrics" in server.url
    assert f"/pods/dcgm-{SERVING}:9400/proxy/metrics" in gpu.url
    assert [page.url for page in metrics_pages(away, endpoint, clients, "service")] == [own, gpus]
    with Scraper([server], tmp_path / "metrics.parquet") as scraper:
        pass
    assert scraper.answered[server.url] == {0, scraper.last}, scraper.errors


def test_pods_that_find_no_node_fail_the_task_with_the_schedulers_reason(
    stack: Stack, endpoint: EndpointRef, results: Path
) -> None:
    nowhere = PODS | {"node_selector": {"kubernetes.io/hostname": SERVING}, "ready_seconds": 3}
    case = Case(stack, endpoint, results, "nowhere", load_pods=nowhere)
    deferred = case.defer()
    event = case.fire(deferred)
    assert event["reason"] == "LoadPodsNotStarted"
    with pytest.raises(PipelineError, match="anti-affinity"):
        case.resume(deferred, event)
    wait_for("Job, Secret and lease are gone", lambda: not case.left())
    assert RunJournal(case.objects, case.run).outcomes()["benchmark"].reason == "LoadPodsNotStarted"


def test_another_projects_engine_runs_behind_the_same_operator(
    stack: Stack, endpoint: EndpointRef, results: Path, tmp_path: Path
) -> None:
    program = tmp_path / "venv" / "bin" / "aiperf"
    program.parent.mkdir(parents=True)
    program.write_text(
        f"#!{sys.executable}\nimport shutil, sys\n"
        f"shutil.copy({str(DATA)!r}, sys.argv[sys.argv.index('--artifact-dir') + 1] + '/profile_export.jsonl')\n"
    )
    program.chmod(0o755)
    engines = {"aiperf": {"venv": str(program.parents[1]), "tokenizer": "t"}}
    here = Case(stack, endpoint, results, "venv", "aiperf", load_engines=engines)
    assert len(here.task().execute(here.context())) == 1
    assert here.result().statistics.requests_ok == 3
    engines["aiperf"]["image"] = IMAGE
    pod = Case(stack, endpoint, results, "image", "aiperf", load_engines=engines, load_pods=PODS)
    deferred = pod.defer()
    pod.resume(deferred, pod.fire(deferred))
    found = pod.result()
    assert found.provenance.harness_version == here.result().provenance.harness_version == "aiperf"
    assert found.statistics == here.result().statistics
    ours = pod.plan.workloads[0].model_copy(update={"engine": "ours"})
    assert found.workload_digest != digest(ours.content)  # its history is never compared with ours


class Managed(BaseHTTPRequestHandler):
    """SageMaker's part of a benchmark job: it "runs" as soon as it is asked for a second time."""

    calls: ClassVar[list[tuple[str, dict[str, Any]]]] = []

    def do_POST(self) -> None:
        action = self.headers["X-Amz-Target"].partition(".")[2]
        given = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = sum(name == action for name, _ in self.calls)
        self.calls.append((action, given))
        answer: dict[str, Any] = {"AIBenchmarkJobArn": "arn:aws:sagemaker:us-west-2:123456789012:ai-benchmark-job/x"}
        if action == "DescribeAIBenchmarkJob":
            if asked:
                (uri,) = (g["OutputConfig"]["S3OutputLocation"] for n, g in self.calls if n == "CreateAIBenchmarkJob")
                Objects.open(uri).put("x/profile_export.jsonl", DATA.read_bytes())
            answer |= {"AIBenchmarkJobStatus": "Completed" if asked else "InProgress"}
        elif action.endswith("WorkloadConfig"):
            answer = {"AIWorkloadConfigArn": "arn:aws:sagemaker:us-west-2:123456789012:ai-workload-config/x"}
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None: ...


def test_sagemakers_own_benchmark_jobs_run_behind_the_same_operator(
    stack: Stack, endpoint: EndpointRef, results: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    boto3.client("s3").create_bucket(Bucket="managed", CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    monkeypatch.setenv("HYPERPOD_RESULTS_URI", "s3://managed/results")
    with ThreadingHTTPServer(("127.0.0.1", 0), Managed) as service:
        threading.Thread(target=service.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL_SAGEMAKER", f"http://127.0.0.1:{service.server_port}")
        engines = {"sagemaker-benchmark": {"role_arn": "arn:aws:iam::123456789012:role/bench"}}
        ref = endpoint.model_copy(update={"sagemaker_endpoint": "registered"})
        place = "s3://managed/results"
        case = Case(stack, ref, place, "managed", "sagemaker-benchmark", load_engines=engines)
        deferred = case.defer()
        case.resume(deferred, case.fire(deferred))
        service.shutdown()
    found = case.result()
    assert (found.statistics.requests_ok, found.provenance.harness_version) == (3, "aiperf")
    calls = dict(Managed.calls)
    asked = json.loads(calls["CreateAIWorkloadConfig"]["AIWorkloadConfigs"]["WorkloadSpec"]["Inline"])
    assert asked["benchmark"] == {"type": "aiperf"}
    assert (asked["parameters"]["concurrency"], asked["parameters"]["output_tokens_mean"]) == (2, 4)
    assert calls["CreateAIBenchmarkJob"]["BenchmarkTarget"] == {"Endpoint": {"Identifier": "registered"}}
    assert {"DeleteAIBenchmarkJob", "DeleteAIWorkloadConfig"} <= calls.keys()


def test_a_load_whose_endpoint_was_taken_meanwhile_is_kept_and_never_ranked(
    stack: Stack, endpoint: EndpointRef, results: Path
) -> None:
    case = Case(stack, endpoint, results, "taken", load_pods=PODS)
    deferred = case.defer()
    path = f"apis/coordination.k8s.io/v1/namespaces/default/leases/bench-{NAME}"
    stack.send("DELETE", path, {})
    event = case.fire(deferred)
    assert (event["phase"], event["exclusive"]) == ("complete", False)
    case.resume(deferred, event)
    found = case.result()
    assert found.result_id.endswith("-t1")
    assert any(reason.startswith("CONTAMINATED") for reason in found.validity.reasons)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Take SIGINT as a terminal's process does; a shell's background jobs ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupt(case: Case, what: str, happened: Any) -> None:
    """Run the task, and interrupt it once something has happened."""

    def kill() -> None:
        wait_for(what, happened)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(KeyboardInterrupt):
        case.task().execute(case.context())
    killer.join()


@pytest.mark.usefixtures("interruptible")
def test_what_was_measured_until_the_task_was_killed_is_kept(
    stack: Stack, endpoint: EndpointRef, results: Path, model_server: ReferenceServer
) -> None:
    case = Case(stack, endpoint, results, "killed", load=LoadSpec(mode="closed", concurrency=2, duration_s=60))
    tries = []
    for case.attempt in (1, 2):
        least = len(model_server.log()["answers"]) + 300
        interrupt(case, "some requests are answered", lambda least=least: len(model_server.log()["answers"]) > least)
        (path,) = (item.path for item in case.objects.list() if item.path.endswith(f"-t{case.attempt}.parquet"))
        (results / "kept.parquet").write_bytes(case.objects.get(path) or b"")
        tries.append(load_records(results / "kept.parquet"))
        assert "/partial/" in path
        assert tries[-1].phase("measure").table.num_rows >= 200
        assert summarise(tries[-1]).requests_ok >= 200
        wait_for("the lease is gone", lambda: not case.left())
    # A retry that asked the same again would meet the caches that the first try has warmed.
    first, second = (found.workers[0]["meta"]["job"]["salt"] for found in tries)
    assert first != second


FEW = LoadSpec(mode="closed", concurrency=1, requests=3)
SEARCH = SearchSpec(by="concurrency", start=1, limit=4, duration_s=1, max_probes=6)


def kept(case: Case, name: str) -> Any:
    """What lies in a file of the run, ``None`` when it is not there."""
    found = {item.path.rpartition("/")[2]: item.path for item in case.objects.list()}
    return json.loads(case.objects.get(found[name]) or b"null") if name in found else None


def test_a_search_follows_the_levels_and_its_probes_are_kept(
    stack: Stack, endpoint: EndpointRef, results: Path
) -> None:
    case = Case(stack, endpoint, results, "search", load=FEW, search=SEARCH)
    case.task().execute(case.context())
    found = kept(case, "w.json")
    # The client may have been the limit on a busy machine; what was run is there in any case.
    assert [probe["level"] for probe in found["probes"]][:1] == [1]
    assert found["by"] == "concurrency"
    assert kept(case, "search-w-t1.json") is None, "the probes are in the finding"


@pytest.mark.usefixtures("interruptible")
def test_the_probes_of_a_search_that_was_killed_are_kept(stack: Stack, endpoint: EndpointRef, results: Path) -> None:
    search = SearchSpec(by="concurrency", start=1, limit=2, duration_s=3)
    case = Case(stack, endpoint, results, "killed-search", load=FEW, search=search)
    interrupt(case, "the first probe is kept", lambda: kept(case, "search-w-t1.json"))
    assert [probe["level"] for probe in kept(case, "search-w-t1.json")] == [1]
    assert kept(case, "w.json") is None
    wait_for("the lease is gone", lambda: not case.left())
