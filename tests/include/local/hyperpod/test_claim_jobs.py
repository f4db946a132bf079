"""Jobs on a claim: an API that fails now and then does not end them, and a pod that waits in vain is told why."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from include.errors import FailureClass, PipelineError
from include.staging.pvcjob import ClaimJob, run_job
from tests.include.local.hyperpod.conftest import CLAIM, IMAGE, until

pytestmark = pytest.mark.local
Fault = Callable[..., None]


def job(**fields: Any) -> ClaimJob:
    """Lists the claim's root."""
    known: dict[str, Any] = {
        "name": f"looks-{uuid.uuid4().hex[:8]}", "namespace": "default", "image": IMAGE, "claim": CLAIM,
        "arguments": ("explore", "--folder", "/fsx"), "read_only": True, "memory": "256Mi", "cpu": "100m",
    }  # fmt: skip
    return ClaimJob(**(known | fields))


def is_there(kube: Any, made: ClaimJob) -> bool:
    from kubernetes.client import BatchV1Api

    return made.name in [one.metadata.name for one in BatchV1Api(kube).list_namespaced_job("default").items]


def test_a_job_outlives_an_api_that_fails_a_call_of_every_kind(kube: Any, kube_fault: Fault) -> None:
    made = job()
    mine = {"resource": "jobs", "name": made.name}
    kube_fault(match={"resource": "jobs", "verb": "create"}, action="reset", after=True, times=1)
    kube_fault(match={**mine, "verb": "get"}, action="status", code=503, times=2)
    kube_fault(match={**mine, "verb": "get"}, action="reset", times=1)
    kube_fault(match={**mine, "verb": "get"}, action="status", code=429, times=1)
    kube_fault(match={**mine, "verb": "delete"}, action="status", code=500, times=1)
    kube_fault(match={"resource": "pods", "subresource": "log"}, action="status", code=503, times=1)
    assert "files, " in run_job(kube, made)
    until("the Job is gone", lambda: not is_there(kube, made))


def test_a_job_goes_on_while_the_api_is_lost_and_the_retry_finds_it(kube: Any, kube_fault: Fault) -> None:
    made = job(outage_seconds=0)
    kube_fault(match={"resource": "jobs", "verb": "get", "name": made.name}, action="status", code=503, times=1)
    with pytest.raises(PipelineError, match="503") as caught:
        run_job(kube, made)
    assert caught.value.retryable
    assert is_there(kube, made)
    assert "files, " in run_job(kube, made)


def test_an_image_that_is_not_there_fails_at_once_with_its_name(kube: Any) -> None:
    made = job(image="hyperpod.local/stager:absent")
    said: list[str] = []
    with pytest.raises(PipelineError, match="stager:absent") as caught:
        run_job(kube, made, said.append)
    assert (caught.value.reason, caught.value.failure_class) == ("ImageUnusable", FailureClass.CONFIGURATION)
    assert any("ErrImagePull" in line for line in said)
    until("the Job is gone", lambda: not is_there(kube, made))


def test_a_pod_without_room_is_told_and_ends_as_a_want_of_room(kube: Any) -> None:
    said: list[str] = []
    with pytest.raises(PipelineError, match="node affinity/selector") as caught:
        run_job(kube, job(node_selector={"no": "such-node"}, deadline_seconds=4), said.append)
    assert (caught.value.reason, caught.value.failure_class) == ("NoRoomForPod", FailureClass.CAPACITY)
    assert any(line.startswith("its pod waits: Unschedulable") for line in said)


def test_a_job_that_somebody_deletes_is_missed(kube: Any) -> None:
    from kubernetes.client import BatchV1Api, V1DeleteOptions

    made = job(node_selector={"no": "such-node"})
    seen = threading.Event()
    caught: list[PipelineError] = []

    def run() -> None:
        try:
            run_job(kube, made, lambda _: seen.set())
        except PipelineError as error:
            caught.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    assert seen.wait(60)
    BatchV1Api(kube).delete_namespaced_job(made.name, "default", body=V1DeleteOptions())
    thread.join(60)
    assert [error.reason for error in caught] == ["JobGone"]


def test_rights_that_are_missing_are_named(kube: Any, kube_fault: Fault) -> None:
    kube_fault(match={"resource": "jobs", "verb": "create"}, action="status", code=403, times=1)
    with pytest.raises(PipelineError, match="creating Job default/looks-") as caught:
        run_job(kube, job())
    assert caught.value.reason == "AccessDenied"
