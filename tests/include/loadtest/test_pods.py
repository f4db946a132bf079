"""Loads from pods: where they come from, how pods agree on a start, and that their records merge exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from include.catalog.specs import ClusterSpec, LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError, PipelineError
from include.loadtest import kubernetes_job, pod
from include.loadtest.api import Target, judge, load_records
from include.loadtest.place import place_of, places
from include.loadtest.planning import make_jobs
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script


def pod_orders(server: ReferenceServer, tmp_path: Path, pods: int) -> list[kubernetes_job.Order]:
    load = LoadSpec(mode="open", rate=60, duration_s=1, arrivals="constant")
    spec = WorkloadSpec(name="w", prompts=(PromptSpec(output_tokens=4),), loads=(load,), warmup_requests=0)
    target = Target(base_url=server.url, headers={"Authorization": "Bearer t"})
    job = make_jobs(target, spec, load, out_dir=tmp_path, seed=1, salt="pods", arm="cold", workers=1)[0]
    return kubernetes_job.orders_for(job, pods, 30.0, (f"{server.url}/metrics",))


def load_job(**changes: Any) -> kubernetes_job.LoadJob:
    given = {"name": "load", "namespace": "ns", "image": "i:1", "pods": 4, "results_uri": "s3://b/p"}
    return kubernetes_job.LoadJob(**(given | {"serving": {"app": "m"}, "deadline_s": 600} | changes))


def run_pods(orders: list[kubernetes_job.Order], indexes: list[int], tmp_path: Path) -> list[int]:
    import subprocess
    import sys

    from include.objects import PROJECT_ROOT

    tmp_path.mkdir(exist_ok=True)
    file = tmp_path / kubernetes_job.ORDERS_FILE
    file.write_text(load_job().secret(orders)["stringData"][kubernetes_job.ORDERS_FILE])
    results = f"file://{tmp_path}/results"
    command = [sys.executable, "-m", "include.loadtest", "pod", "--orders", str(file), "--results", results]
    pods = [
        subprocess.Popen(
            command,
            env={"JOB_COMPLETION_INDEX": str(index), "PATH": "/usr/bin:/bin"},
            cwd=PROJECT_ROOT,
            stderr=(tmp_path / f"pod-{index}.log").open("wb"),
        )
        for index in indexes
    ]
    return [pod.wait(60) for pod in pods]


def test_pods_start_together_and_their_records_merge_exactly(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=5, itl_ms=1))
    assert run_pods(pod_orders(server, tmp_path, 2), [0, 1], tmp_path) == [0, 0]
    results = f"file://{tmp_path}/results"
    merged = load_records(pod.collect_pods(results, 2, tmp_path / "merged"))
    parts = [load_records(tmp_path / "results" / f"worker-{index}.parquet").table.to_pylist() for index in range(2)]
    by_id = sorted((row for part in parts for row in part), key=lambda row: str(row["request_id"]))
    assert sorted(merged.table.to_pylist(), key=lambda row: str(row["request_id"])) == by_id
    assert merged.table.num_rows == 60
    assert len({r["worker"] for r in merged.table.to_pylist()}) == 2
    # Each pod has every other arrival of one schedule: together they are even only if both count from one start.
    gaps = np.diff(np.sort(merged.times("scheduled_ns")))
    assert np.allclose(gaps, 1 / 60, atol=0.005)
    server_said = pod.collected_metrics(results)
    assert server_said.summary["series"]["vllm:num_requests_running"]["max"] >= 0
    # Pod 0 alone scrapes, and yet counts what both sent, and nothing else.
    assert server_said.requests == 60 == merged.table.num_rows
    assert judge(merged).server_side_requests == 60
    assert (tmp_path / "merged" / pod.METRICS).exists()
    with pytest.raises(PipelineError, match="worker-2"):
        pod.collect_pods(results, 3, tmp_path / "merged")


def test_pods_that_wait_for_one_that_never_comes_say_which_and_send_nothing(
    server: ReferenceServer, tmp_path: Path
) -> None:
    server.play(Script(ttft_ms=5, itl_ms=1))
    orders = [msgspec.structs.replace(order, ready_s=1.0) for order in pod_orders(server, tmp_path, 2)]
    assert run_pods(orders, [0], tmp_path) == [2]
    # Nor does one whose turn to be scraped never comes, however ready it is.
    assert run_pods(orders, [1], tmp_path / "alone") == [2]
    assert "load pod 0 of 2 did not begin to scrape within 1 s" in (tmp_path / "alone" / "pod-1.log").read_text()
    assert "1 of 2 load pods were not ready within 1 s: 1" in (tmp_path / "pod-0.log").read_text()
    assert server.log()["answers"] == []


def test_the_jobs_manifest_keeps_away_from_the_model_servers(server: ReferenceServer, tmp_path: Path) -> None:
    owner = {"apiVersion": "v1", "kind": "K", "name": "e", "uid": "u"}
    manifest = load_job(labels={"o": "r"}, owner=owner, node_selector={"pool": "load"}).manifest()
    spec = manifest["spec"]
    asked = (spec["completionMode"], spec["completions"], spec["parallelism"], spec["backoffLimit"])
    assert asked == ("Indexed", 4, 4, 0)
    pod_spec = spec["template"]["spec"]
    apart = pod_spec["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0]
    assert apart["labelSelector"]["matchLabels"] == {"app": "m"}
    assert (pod_spec["restartPolicy"], pod_spec["nodeSelector"]) == ("Never", {"pool": "load"})
    assert manifest["metadata"]["ownerReferences"] == [owner]
    assert "Bearer" not in json.dumps(manifest)


@pytest.mark.parametrize("file", ["ca_file", "client_cert_file", "client_key_file"])
def test_files_that_pods_do_not_have_are_refused_before_any_pod_is_made(
    server: ReferenceServer, tmp_path: Path, file: str
) -> None:
    (order, *_) = pod_orders(server, tmp_path, 2)
    assert order.job is not None
    endpoint = msgspec.structs.replace(order.job.endpoint, **{file: "/worker/only.pem"})
    with pytest.raises(ConfigurationError, match=r"pods cannot read /worker/only\.pem"):
        load_job().secret([msgspec.structs.replace(order, job=msgspec.structs.replace(order.job, endpoint=endpoint))])


@pytest.mark.parametrize(
    ("load", "dataset", "pods"),
    [
        (LoadSpec(mode="open", rate=100, duration_s=1), None, 0),
        (LoadSpec(mode="open", rate=5000, duration_s=1), None, 6),
        (LoadSpec(mode="closed", concurrency=2000, requests=1), None, 4),
        (LoadSpec(mode="open", rate=5, duration_s=1, workers=3), None, 3),
        (LoadSpec(mode="open", rate=5000, duration_s=1), "prompts.jsonl", 0),
    ],
)
def test_the_rate_asked_for_decides_where_the_load_comes_from(load: LoadSpec, dataset: str | None, pods: int) -> None:
    spec = WorkloadSpec(name="w", prompts=(PromptSpec(output_tokens=32, dataset=dataset),), loads=(load,))
    assert place_of(spec, load, cluster(load_pods={"image": "i:1"})).pods == pods
    assert place_of(spec, load, cluster()).pods == 0


def test_a_load_for_too_many_pods_or_an_engine_that_is_nowhere_is_refused_before_anything_is_spent() -> None:
    load = LoadSpec(mode="open", rate=50_000, requests=100)
    spec = WorkloadSpec(name="w", loads=(load,))
    with pytest.raises(ConfigurationError, match=r"needs \d+ load pods, cluster c allows 16"):
        list(places((spec,), cluster(load_pods={"image": "i:1"})))
    with pytest.raises(ConfigurationError, match=r"load_engines\.guidellm"):
        list(places((spec.model_copy(update={"engine": "guidellm"}),), cluster()))


def cluster(**more: Any) -> ClusterSpec:
    return ClusterSpec.model_validate({"name": "c", "models_uri": "s3://models/m", "results_uri": "r"} | more)
