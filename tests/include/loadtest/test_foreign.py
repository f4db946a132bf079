"""Other tools' output, as the tools wrote it, becomes records; their commands carry the load that was asked."""

from __future__ import annotations

import contextlib
import json
import os
import select
import sys
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from botocore.stub import Stubber

from include.catalog.specs import LoadEngine, LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError, IntegrityError, PipelineError
from include.loadtest.api import LoadOutcome, Target, load_records, run_foreign_load, summarise
from include.loadtest.foreign import sagemaker_jobs
from include.loadtest.foreign.registry import ENGINES, engine
from include.loadtest.foreign.vllm_bench import export
from include.loadtest.latencies import chunk_gaps, latencies
from include.loadtest.records import write_parquet
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Fault, Script
from include.objects import PROJECT_ROOT
from tests.include.loadtest.conftest import Run

DATA = Path(__file__).with_name("data")
WORKLOAD = WorkloadSpec(
    name="w",
    prompts=(PromptSpec(input_tokens=100, output_tokens=20),),
    loads=(LoadSpec(mode="closed", concurrency=4, requests=40),),
)
TARGET = Target(base_url="http://127.0.0.1:1", model="m", headers={"Authorization": "Bearer sesame"})


def test_aiperf_output(tmp_path: Path) -> None:
    """Recorded against the reference server: TTFT 50 ms, 10 ms between chunks, 16 tokens."""
    (tmp_path / "profile_export.jsonl").write_bytes((DATA / "aiperf.jsonl").read_bytes())
    path = write_parquet(engine("aiperf").collect(tmp_path), tmp_path / "a.parquet")
    records = load_records(path)
    lines = [json.loads(line) for line in (DATA / "aiperf.jsonl").read_text().splitlines()]
    found = latencies(records)
    stated = [line["metrics"]["time_to_first_token"]["value"] for line in lines]
    assert found.ttft_sent == pytest.approx(stated, abs=0.01)
    assert np.all(found.ttft >= found.ttft_sent)
    assert records.table["chunks"].to_pylist() == [16] * 3
    assert records.table["output_tokens"].to_pylist() == [16] * 3
    assert chunk_gaps(records).mean() == pytest.approx(10, abs=0.5)
    assert records.workers[0]["meta"]["tool"] == "aiperf"


def test_guidellm_output(tmp_path: Path) -> None:
    path = write_parquet(engine("guidellm").collect(DATA / "guidellm.json"), tmp_path / "g.parquet")
    records = load_records(path)
    assert records.workers[0]["meta"]["tool_version"] == "0.8.1"
    content = json.loads((DATA / "guidellm.json").read_text())
    stated = sorted(r["time_to_first_token_ms"] for r in content["benchmarks"][0]["requests"]["successful"])
    assert sorted(latencies(records).ttft_sent) == pytest.approx(stated, abs=0.01)
    assert len(chunk_gaps(records)) == 0  # it does not keep them, so none are made up
    assert summarise(path).tpot_ms.mean == pytest.approx(10, abs=0.5)


def test_vllm_json_goes_out_and_comes_back_the_same(server: ReferenceServer, run: Run, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=10, itl_ms=2, faults=[Fault(kind="http", status=500, every=5)]))
    ours = load_records(run(load={"concurrency": 2, "requests": 20}).requests_path)
    (tmp_path / "vllm.json").write_text(json.dumps(export(ours, "m")))
    theirs = load_records(write_parquet(engine("vllm-bench").collect(tmp_path), tmp_path / "v.parquet"))
    first, second = latencies(ours.phase("measure")), latencies(theirs)
    assert second.ttft_sent[second.ok] == pytest.approx(first.ttft_sent[first.ok], abs=0.001)
    assert (second.ok == first.ok).all()
    assert chunk_gaps(theirs) == pytest.approx(chunk_gaps(ours.phase("measure")), abs=0.001)


def test_inference_perf_output(tmp_path: Path) -> None:
    """The shape of inference-perf 0.7.0's ``build_per_request_lifecycle_entry``."""
    usage = {"prompt_tokens": 5, "completion_tokens": 3}
    info = {
        "request_metrics": {"text": {"input_tokens": 5}},
        "response_metrics": {"output_tokens": 3, "chunk_times": [100.05, 100.06, 100.08], "server_usage": usage},
    }
    entries = [
        {"start_time": 100.0, "end_time": 100.09, "info": info, "error": None},
        {"start_time": 100.0, "end_time": 100.2, "info": {}, "error": {"error_type": "500", "error_msg": "no"}},
    ]
    (tmp_path / "per_request_lifecycle_metrics.json").write_text(json.dumps(entries))
    records = load_records(write_parquet(engine("inference-perf").collect(tmp_path), tmp_path / "i.parquet"))
    found = latencies(records)
    assert found.ttft_sent[0] == pytest.approx(50, abs=0.01)
    assert chunk_gaps(records) == pytest.approx([10, 20], abs=0.01)
    assert records.table["error_class"].to_pylist() == ["", "500"]


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_output_that_is_none_is_refused_by_name(name: str, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=name):
        engine(name).collect(tmp_path)
    for file in ("vllm.json", "guidellm.json", "profile_export.jsonl", "per_request_lifecycle_metrics.json"):
        (tmp_path / file).write_text('{"benchmarks": 3, "metadata": {}, "a": [1]}')
    with pytest.raises(IntegrityError, match=name):
        engine(name).collect(tmp_path)


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_commands_carry_the_load_and_no_secret(name: str, tmp_path: Path) -> None:
    command = engine(name).argv(TARGET, WORKLOAD, WORKLOAD.loads[0], tmp_path, "tok")
    text = " ".join(command) + "".join(path.read_text() for path in tmp_path.iterdir())
    assert "40" in text
    assert "http://127.0.0.1:1" in text
    assert "sesame" not in text
    several = WORKLOAD.model_copy(update={"prompts": WORKLOAD.prompts * 2})
    with pytest.raises(ConfigurationError, match=name):
        engine(name).argv(TARGET, several, WORKLOAD.loads[0], tmp_path, "tok")
    with pytest.raises(ConfigurationError, match="requests"):
        engine(name).argv(TARGET, WORKLOAD, LoadSpec(mode="closed", concurrency=4, duration_s=5), tmp_path, "tok")


FAKE = """#!{python}
import json, os, pathlib, shutil, subprocess, sys, time
folder = pathlib.Path(sys.argv[sys.argv.index("--artifact-dir") + 1])
(folder / "seen.json").write_text(json.dumps({{"argv": sys.argv, "env": dict(os.environ)}}))
{does}
"""
WORKS = 'shutil.copy({data!r}, folder / "profile_export.jsonl")'
HANGS = """child = subprocess.Popen(["sleep", "600"])
(folder / "child").write_text(str(child.pid))
time.sleep(600)"""


def installed(tmp_path: Path, does: str) -> LoadEngine:
    """Return an environment whose aiperf does as it is told."""
    program = tmp_path / "venv" / "bin" / "aiperf"
    program.parent.mkdir(parents=True)
    program.write_text(FAKE.format(python=sys.executable, does=does.format(data=str(DATA / "aiperf.jsonl"))))
    program.chmod(0o755)
    return LoadEngine(venv=str(tmp_path / "venv"), tokenizer="tok", timeout_seconds=2)


def ours(tmp_path: Path, install: LoadEngine, target: Target = TARGET) -> LoadOutcome:
    workload = WORKLOAD.model_copy(update={"engine": "aiperf"})
    return run_foreign_load(target, workload, workload.loads[0], install, out_dir=tmp_path / "out")


def test_an_engine_runs_from_its_own_environment_and_its_records_are_ours(tmp_path: Path) -> None:
    outcome = ours(tmp_path, installed(tmp_path, WORKS))
    assert outcome.statistics.requests_ok == 3
    assert outcome.harness_version == "aiperf"
    seen = json.loads((tmp_path / "out" / "aiperf" / "seen.json").read_text())
    assert seen["env"]["OPENAI_API_KEY"] == "sesame"
    assert "sesame" not in " ".join(seen["argv"])
    assert "AWS_SECRET_ACCESS_KEY" not in seen["env"]


def test_an_engine_that_fails_is_told_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="aiperf ended with code 3") as caught:
        ours(tmp_path, installed(tmp_path, "print('no tokenizer here'); sys.exit(3)"))
    assert caught.value.evidence == ("no tokenizer here",)


def test_an_engine_that_hangs_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match="ran out of time"):
        ours(tmp_path, installed(tmp_path, HANGS))
    child = int((tmp_path / "out" / "aiperf" / "child").read_text())
    with contextlib.suppress(ProcessLookupError):  # it is gone already
        ended = os.pidfd_open(child)
        assert select.select([ended], [], [], 30)[0]
        os.close(ended)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ({"headers": {"X-Api-Key": "sesame"}}, "cannot be given the header X-Api-Key"),
        ({"protocol": "sagemaker"}, "not sagemaker"),
    ],
)
def test_what_an_engine_cannot_do_is_refused(tmp_path: Path, target: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        ours(tmp_path, installed(tmp_path, WORKS), Target(base_url="http://127.0.0.1:1", model="m", **target))


def test_an_engine_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="nowhere/bin/aiperf"):
        ours(tmp_path, LoadEngine(venv="/nowhere"))


TOKENIZER = PROJECT_ROOT / "var" / "bench" / "tokenizer"


@pytest.mark.parametrize("name", ["aiperf", "guidellm", "inference-perf"])
def test_real_engines_measure_the_reference_server(server: ReferenceServer, tmp_path: Path, name: str) -> None:
    venv = PROJECT_ROOT / f".venv-bench-{name}"
    if not (venv / "bin" / name).exists() or not TOKENIZER.exists():
        pytest.skip(f"{venv.name} is not here; make bench AREA=loadtest installs it")
    server.play(Script(ttft_ms=20, itl_ms=5))
    load = LoadSpec(mode="closed", concurrency=4, requests=40)
    prompts = (PromptSpec(input_tokens=32, output_tokens=16),)
    its_own = {"protocol": "openai-completions"} if name == "inference-perf" else {}
    more = {"warmup_requests": 2 if name == "aiperf" else 0, **its_own}
    workload = WorkloadSpec.model_validate({"name": "w", "prompts": prompts, "loads": (load,), "engine": name} | more)
    install = LoadEngine(venv=str(venv), tokenizer=str(TOKENIZER), timeout_seconds=240)
    target = Target(base_url=server.url, model="reference")
    pages = (f"{server.url}/metrics",)
    outcome = run_foreign_load(target, workload, load, install, out_dir=tmp_path, metrics_urls=pages)
    assert outcome.statistics.requests_ok == 40
    assert len(server.log()["answers"]) == 40 + workload.warmup_requests
    assert outcome.validity.server_side_requests == 40 + workload.warmup_requests
    assert not [reason for reason in outcome.validity.reasons if reason.startswith(("CONTAMINATED", "SHORT", "LONG"))]
    assert outcome.validity.details["numbers"]["peak_streams"] == 4
    assert outcome.validity.client_cpu_share is not None
    assert (outcome.statistics.ttft_ms.p50 or 0) > 20
    assert outcome.statistics.output_tokens == 40 * 16


def test_an_unknown_engine_is_named() -> None:
    with pytest.raises(ConfigurationError, match="wrk3"):
        engine("wrk3")


def test_sagemaker_job_parameters_pass_the_services_own_model() -> None:
    client = boto3.client("sagemaker", region_name="us-west-2", aws_access_key_id="a", aws_secret_access_key="b")
    config = sagemaker_jobs.workload_config("run: a/b", {"concurrency": 4})
    job = sagemaker_jobs.benchmark_job(
        "run: a/b", config_name=config["AIWorkloadConfigName"], endpoint="e", output_uri="s3://b/p",
        role_arn="arn:aws:iam::123456789012:role/bench", tags={"owner": "run"},
    )  # fmt: skip
    arn = "arn:aws:sagemaker:us-west-2:123456789012:ai-workload-config/x"
    with Stubber(client) as stub:
        stub.add_response("create_ai_workload_config", {"AIWorkloadConfigArn": arn}, config)
        stub.add_response("create_ai_benchmark_job", {"AIBenchmarkJobArn": arn.replace("workload-config", "job")}, job)
        client.create_ai_workload_config(**config)
        client.create_ai_benchmark_job(**job)


def test_sagemaker_job_states_and_records(tmp_path: Path) -> None:
    assert not sagemaker_jobs.finished({"AIBenchmarkJobStatus": "InProgress"})
    assert sagemaker_jobs.finished({"AIBenchmarkJobStatus": "Completed"})
    with pytest.raises(PipelineError, match="no quota"):
        sagemaker_jobs.finished({"AIBenchmarkJobStatus": "Failed", "FailureReason": "no quota"})
    store = tmp_path / "store" / "run" / "deep"
    store.mkdir(parents=True)
    with pytest.raises(PipelineError, match="profile_export"):
        sagemaker_jobs.collect(f"file://{tmp_path}/store", tmp_path / "out")
    (store / "profile_export.jsonl").write_bytes((DATA / "aiperf.jsonl").read_bytes())
    assert sagemaker_jobs.collect(f"file://{tmp_path}/store", tmp_path / "out").num_rows == 3
