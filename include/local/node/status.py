"""Pod status from container records: a pure function, with the kubelet's rules for phase and conditions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from include.local.controller.resources import Object


@dataclass
class ContainerRecord:
    """What is known of one container; ``state`` and ``last_state`` are Kubernetes ContainerStates."""

    name: str
    image: str
    state: Object = field(default_factory=lambda: {"waiting": {"reason": "ContainerCreating"}})
    last_state: Object = field(default_factory=dict)
    restart_count: int = 0
    ready: bool = False
    started: bool = False
    image_id: str = ""
    container_id: str = ""

    def status(self) -> Object:
        """The ContainerStatus."""
        return {
            "name": self.name,
            "image": self.image,
            "imageID": self.image_id,
            "containerID": self.container_id,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restart_count,
            "state": self.state,
            "lastState": self.last_state,
        }

    @property
    def exit_code(self) -> int | None:
        """Exit code when it has ended for the moment."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])


def phase(restart_policy: str, init: Iterable[ContainerRecord], main: Iterable[ContainerRecord]) -> str:
    """Return Pending, Running, Succeeded or Failed."""
    init_codes = [record.exit_code for record in init]
    if any(code not in (None, 0) for code in init_codes) and restart_policy == "Never":
        return "Failed"
    if any(code != 0 for code in init_codes):
        return "Pending"
    records = list(main)
    codes = [record.exit_code for record in records]
    if any("waiting" in record.state and not record.last_state for record in records):
        return "Pending"
    if any(code is None for code in codes) or restart_policy == "Always":
        return "Running"
    if all(code == 0 for code in codes):
        return "Succeeded"
    return "Failed" if restart_policy == "Never" else "Running"


def conditions(
    phase_name: str,
    init: Iterable[ContainerRecord],
    main: Iterable[ContainerRecord],
    before: Iterable[Object],
    now: str,
    *,
    sandbox: bool,
) -> list[Object]:
    """Return the pod's conditions; ``lastTransitionTime`` moves only when a status changes."""
    unready = [record.name for record in main if not record.ready]
    incomplete = [record.name for record in init if record.exit_code != 0]
    if phase_name == "Succeeded":
        why, text = "PodCompleted", ""
    else:
        why, text = "ContainersNotReady", f"containers with unready status: [{' '.join(unready)}]"
    wanted: list[tuple[str, bool, str, str]] = [
        ("PodReadyToStartContainers", sandbox, "", ""),
        (
            "Initialized",
            not incomplete,
            "ContainersNotInitialized",
            f"containers with incomplete status: [{' '.join(incomplete)}]",
        ),
        ("Ready", not unready, why, text),
        ("ContainersReady", not unready, why, text),
        ("PodScheduled", True, "", ""),
    ]
    old = {condition["type"]: condition for condition in before}
    return [_condition(old.get(kind), kind, met, reason, message, now) for kind, met, reason, message in wanted]


def _condition(old: Object | None, kind: str, met: bool, reason: str, message: str, now: str) -> Object:
    value = "True" if met else "False"
    since = old["lastTransitionTime"] if old and old["status"] == value else now
    found: dict[str, Any] = {"type": kind, "status": value, "lastTransitionTime": since}
    if not met:
        found |= {name: text for name, text in (("reason", reason), ("message", message)) if text}
    return found


def pod_status(
    pod: Object,
    init: list[ContainerRecord],
    main: list[ContainerRecord],
    *,
    start_time: str,
    now: str,
    sandbox: bool,
) -> Object:
    """Return the whole status of a pod as its kubelet reports it.

    :param sandbox: the pod has its "network" (ports), so containers may start.
    """
    name = phase(pod["spec"].get("restartPolicy", "Always"), init, main)
    before = (pod.get("status") or {}).get("conditions") or []
    status: Object = {
        "phase": name,
        "conditions": conditions(name, init, main, before, now, sandbox=sandbox),
        "hostIP": "127.0.0.1",
        "hostIPs": [{"ip": "127.0.0.1"}],
        "startTime": start_time,
        "containerStatuses": [record.status() for record in main],
        "qosClass": "Burstable",
    }
    if init:
        status["initContainerStatuses"] = [record.status() for record in init]
    if sandbox:
        status |= {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}
    return status
