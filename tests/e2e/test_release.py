"""The main job under the real scheduler and triggerer, on the local HyperPod, with a real model."""

from __future__ import annotations

import json

import pytest

from include.local.demo import VAR, Stack
from include.local.summary import read_run
from tests.e2e.running import run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900), pytest.mark.xdist_group("e2e")]


def test_a_release_is_staged_measured_recorded_and_torn_down(stack: Stack) -> None:
    state, folder = run(stack, "release_model", {"model": "smollm2-135m", "workloads": ["smoke"]})
    record, teardown = read_run(folder)
    assert state == "success", record.message
    assert {name: outcome.state for name, outcome in record.stages.items()} == dict.fromkeys(
        ("plan", "preflight", "stage", "create_endpoint", "wait_until_ready", "validate", "benchmark"), "success"
    )
    assert len(record.results) == 3
    assert record.model["manifest_digest"].startswith("sha256:")
    assert teardown["absent"] is True
    assert {item["plane"] for item in teardown["objects"]} == {"kubernetes", "sagemaker", "aws"}
    assert stack.leftovers() == []
    html = (folder / "report.html").read_text()
    assert "smoke" in html
    assert "<script" not in html


def test_one_broken_cell_of_four_neither_stops_nor_hides_the_others(stack: Stack) -> None:
    fault = stack.faults.add_cluster("image-pull", "smollm2-135m-long-*", {"message": "manifest unknown"}, times=1)
    try:
        state, folder = run(stack, "nightly_benchmark", {})
    finally:
        stack.faults.clear(fault.id)
    ends = {cell.name: read_run(cell) for cell in folder.iterdir() if (cell / "record.json").exists()}
    assert set(ends) == {
        f"{model}--{workload}--local"
        for model in ("smollm2-135m", "smollm2-135m-long")
        for workload in ("smoke", "smoke-prefix")
    }
    good = {cell: record for cell, (record, _) in ends.items() if record.state == "success"}
    (broken,) = (record for record, _ in ends.values() if record.state == "failed")
    assert len(good) == 3
    assert all(record.results for record in good.values())
    assert state == "failed"
    assert broken.model["name"] == "smollm2-135m-long"
    assert broken.failed_stage == "wait_until_ready"
    assert broken.reason in ("ErrImagePull", "ImagePullBackOff")
    assert "manifest unknown" in broken.message
    assert not broken.results
    assert all(teardown["absent"] for _, teardown in ends.values())
    assert stack.leftovers() == []


def test_a_cell_of_an_unknown_model_is_recorded_with_its_reason(stack: Stack) -> None:
    conf = {"models": ["no-such-model"], "workloads": ["smoke"], "cluster": "local"}
    state, folder = run(stack, "nightly_benchmark", conf)
    bad, _ = read_run(folder / "no-such-model--smoke--local")
    assert (state, bad.state, bad.failed_stage, bad.reason) == ("failed", "failed", "plan", "UnknownModel")


def test_a_flipped_byte_stops_the_release_at_staging_and_is_named(stack: Stack) -> None:
    import boto3

    environment = stack.hyperpod.environment()
    s3 = boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_REGION"],
    )
    listed = s3.list_objects_v2(Bucket="hyperpod-models", Prefix="models/smollm2-135m/")["Contents"]
    key = next(item["Key"] for item in listed if item["Key"].endswith(".gguf"))
    original = s3.get_object(Bucket="hyperpod-models", Key=key)["Body"].read()
    flipped = bytearray(original)
    flipped[len(flipped) // 2] ^= 1
    s3.put_object(Bucket="hyperpod-models", Key=key, Body=bytes(flipped))
    try:
        state, folder = run(stack, "release_model", {"model": "smollm2-135m", "workloads": ["smoke"]})
        record, _ = read_run(folder)
        assert state == "failed"
        assert (record.failed_stage, record.reason) == ("stage", "StagedFileChanged")
        assert "SmolLM2-135M-Instruct.Q4_1.gguf" in record.message
        assert stack.leftovers() == []
    finally:
        # The whole revision goes, so that the next staging starts clean.
        for item in listed:
            s3.delete_object(Bucket="hyperpod-models", Key=item["Key"])


def test_results_of_the_runs_are_in_the_store(stack: Stack) -> None:
    from include.results.store import ResultsStore

    found = list(ResultsStore.open(str(VAR / "results")).results(model="smollm2-135m"))
    assert found
    newest = found[-1]
    assert newest.requests_uri.endswith(".parquet")
    assert json.loads(newest.model_dump_json())["provenance"]["manifest_digest"].startswith("sha256:")
