"""Why a pod of ours does not run yet, from what Kubernetes says of it; and for how long that may be so. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from include.errors import FailureClass

# Registries say it in many words; none of these mends itself.
NO_SUCH_IMAGE = re.compile(r"not found|manifest unknown|denied|unauthorized|forbidden|no basic auth|invalid", re.I)
NO_SUCH_CLAIM = re.compile(r'persistentvolumeclaims? "?[\w.-]+"? not found', re.I)
UNBOUND = re.compile(r"unbound .*persistentvolumeclaims?", re.I)
IMAGE_NEVER = ("InvalidImageName", "ErrImageNeverPull")
IMAGE_LATER = ("ErrImagePull", "ImagePullBackOff", "ImageInspectError", "RegistryUnavailable")
NOT_STARTED = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
MOUNT_EVENTS = ("FailedMount", "FailedAttachVolume")


@dataclass(frozen=True)
class Waiting:
    """What a pod waits for.

    :param reason: of the failure, when it waits too long.
    :param said: what Kubernetes says.
    :param patience: how often the Job's patience it may take; 0: it is hopeless at once; ``None``: as long as it likes.
    """

    reason: str
    said: str
    fix: str
    patience: float | None
    failure_class: FailureClass


def waits_for(pod: Any, events: Iterable[Any] = ()) -> Waiting | None:
    """Return what keeps a pod from running; ``None``: nothing that is known, or it runs.

    :param pod: ``V1Pod``.
    :param events: ``CoreV1Event`` of the pod, the newest last.
    """
    return next(iter((*_unscheduled(pod), *_containers(pod), *_mounts(pod, events))), None)


def _unscheduled(pod: Any) -> Iterator[Waiting]:
    for condition in pod.status.conditions or ():
        if condition.type != "PodScheduled" or condition.status != "False":
            continue
        said = f"{condition.reason}: {condition.message}"
        claim = _claim(said)
        yield claim or Waiting(
            "NoRoomForPod",
            said,
            "add nodes that fit, or change fsx_delivery.node_selector, cpu or memory",
            None,
            FailureClass.CAPACITY,
        )


def _claim(said: str) -> Waiting | None:
    if NO_SUCH_CLAIM.search(said):
        fix = "make the claim in the cluster's namespace, or correct fsx_delivery.claim"
        return Waiting("ClaimMissing", said, fix, 0, FailureClass.CONFIGURATION)
    if UNBOUND.search(said):
        fix = "bind the claim of fsx_delivery.claim to a volume of the file system"
        return Waiting("ClaimUnbound", said, fix, 1, FailureClass.CONFIGURATION)
    return None


def _containers(pod: Any) -> Iterator[Waiting]:
    for status in pod.status.container_statuses or ():
        state = status.state.waiting if status.state else None
        reason, message = (state.reason or "", state.message or "") if state else ("", "")
        said = f"{reason}: {message}"
        if reason in IMAGE_NEVER or (reason in IMAGE_LATER and NO_SUCH_IMAGE.search(message)):
            fix = "correct fsx_delivery.image, or give the nodes access to its registry"
            yield Waiting("ImageUnusable", f"{status.image}: {said}", fix, 0, FailureClass.CONFIGURATION)
        elif reason in IMAGE_LATER:
            fix = "check fsx_delivery.image and the way from the nodes to its registry"
            yield Waiting("ImagePullFailed", f"{status.image}: {said}", fix, 1, FailureClass.TRANSIENT)
        elif reason in NOT_STARTED:
            fix = "read what the kubelet says; check the claim and the service account"
            yield Waiting("ContainerNotStarted", said, fix, 1, FailureClass.TRANSIENT)
        elif message and (claim := _claim(message)):
            yield claim


def _mounts(pod: Any, events: Iterable[Any]) -> Iterator[Waiting]:
    if any(status.state and not status.state.waiting for status in pod.status.container_statuses or ()):
        return
    for event in reversed([event for event in events if event.reason in MOUNT_EVENTS]):
        said = f"{event.reason}: {event.message}"
        # A node's driver may start after the node does.
        fix = "check the claim's volume, the FSx CSI driver and the file system's security groups"
        yield _claim(said) or Waiting("MountFailed", said, fix, 5, FailureClass.TRANSIENT)
