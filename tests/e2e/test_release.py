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


def test_one_broken_cell_neither_stops_nor_hides_the_others(stack: Stack) -> None:
    conf = {"models": ["smollm2-135m", "no-such-model"], "workloads": ["smoke"], "cluster": "local"}
    state, folder = run(stack, "nightly_benchmark", conf)
    good, teardown = read_run(folder / "smollm2-135m--smoke--local")
    bad, _ = read_run(folder / "no-such-model--smoke--local")
    assert state == "failed"
    assert (good.state, teardown["absent"], len(good.results)) == ("success", True, 3)
    assert (bad.state, bad.failed_stage, bad.reason) == ("failed", "plan", "UnknownModel")
    assert stack.leftovers() == []


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
