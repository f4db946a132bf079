"""What Kubernetes says of a pod that does not start, and what that means for whoever waits for it."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from include.staging.podwait import waits_for

SCHEDULED = {"type": "PodScheduled", "status": "True"}


def read(kind: str, value: Any) -> Any:
    """An object as the Kubernetes client makes it of an answer."""
    from kubernetes.client import ApiClient

    return ApiClient().deserialize(SimpleNamespace(data=json.dumps(value)), kind)  # type: ignore[arg-type]


def pod(condition: dict[str, Any] | None = None, **state: Any) -> Any:
    status = {"name": "stager", "image": "r/stager:9", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    statuses = [status] if state else []
    return read("V1Pod", {"status": {"conditions": [condition or SCHEDULED], "containerStatuses": statuses}})


def unscheduled(message: str) -> Any:
    return pod({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message})


def waiting(reason: str, message: str = "") -> Any:
    return pod(waiting={"reason": reason, "message": message})


CASES = [
    (unscheduled('persistentvolumeclaim "models" not found'), "ClaimMissing", 0),
    (unscheduled("0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."), "ClaimUnbound", 1),
    (unscheduled("0/3 nodes are available: 3 Insufficient cpu."), "NoRoomForPod", None),
    (waiting("InvalidImageName", 'couldn\'t parse image reference "R/Stager"'), "ImageUnusable", 0),
    (waiting("ErrImagePull", "rpc error: code = NotFound desc = r/stager:9: not found"), "ImageUnusable", 0),
    (waiting("ErrImagePull", "pull access denied, repository does not exist"), "ImageUnusable", 0),
    (waiting("ImagePullBackOff", 'Back-off pulling image "r/stager:9"'), "ImagePullFailed", 1),
    (waiting("ErrImagePull", "dial tcp 10.0.0.1:443: i/o timeout"), "ImagePullFailed", 1),
    (waiting("CreateContainerConfigError", 'secret "x" not found'), "ContainerNotStarted", 1),
    (waiting("ContainerCreating"), None, None),
    (pod(running={"startedAt": "2026-11-23T00:00:00Z"}), None, None),
    (pod(), None, None),
]


@pytest.mark.parametrize(("found", "reason", "patience"), CASES)
def test_every_way_to_wait_has_a_name_and_a_limit(found: Any, reason: str | None, patience: float | None) -> None:
    said = waits_for(found)
    assert (said.reason if said else None) == reason
    if said is not None:
        assert said.patience == patience
        assert said.fix


def test_a_volume_that_cannot_be_mounted_is_told_from_the_newest_event() -> None:
    events = [
        read("CoreV1Event", {"reason": "FailedMount", "message": text, "metadata": {}, "involvedObject": {}})
        for text in ("an older one", "rpc error: mount.lustre: Connection timed out")
    ]
    said = waits_for(waiting("ContainerCreating"), events)
    assert said is not None
    assert said.reason == "MountFailed"
    assert "Connection timed out" in said.said
    assert waits_for(pod(running={}), events) is None
