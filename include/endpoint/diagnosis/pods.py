"""Rows about pods: scheduling, image, volume, memory, crashes."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator

from include.endpoint.diagnosis.model import (
    Diagnosis,
    Limits,
    age,
    cut,
    events_with,
    evidence_of,
    first_line_with,
    is_leaving,
    oldest,
    waits_for_lost_node,
)
from include.endpoint.facts import ContainerFacts, Facts, PodFacts
from include.errors import FailureClass

PULL_REASONS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable")
HOPELESS_PULL = (
    "not found", "manifest unknown", "does not exist", "denied", "unauthorized", "403", "no basic auth",
    "no match for platform", "invalid reference", "couldn't parse image",
)  # fmt: skip
CONFIG_REASONS = ("CreateContainerConfigError", "CreateContainerError", "RunContainerError")
CORRUPT = ("sha256", "manifest says", "in the manifest but not", "not in the manifest")
SHORT_OF = re.compile(r"Insufficient ([\w./-]+)")


def _waiting(facts: Facts, reasons: tuple[str, ...]) -> Iterator[tuple[PodFacts, ContainerFacts]]:
    for pod in facts.pods:
        for container in pod.containers:
            if container.waiting_reason in reasons:
                yield pod, container


def cuda_out_of_memory(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The model does not fit into the accelerator's memory."""
    needles = ("cuda out of memory", "outofmemoryerror", "no available memory for the cache blocks")
    line = first_line_with(facts.log_lines(), *needles)
    if line is None:
        return None
    return Diagnosis(
        "cuda-oom",
        "AcceleratorOutOfMemory",
        f"the model server ran out of accelerator memory on {facts.instance_type or 'its node'}: {cut(line)}",
        "lower --max-model-len, raise --tensor-parallel-size with more GPUs, or use a larger instance type",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def driver_too_old(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """A CUDA 12.9 image on nodes whose driver is older."""
    needles = ("driver version is insufficient", "driver on your system is too old", "unsatisfied condition: cuda")
    texts = (*facts.log_lines(), *(event.message for event in facts.events))
    line = first_line_with(texts, *needles)
    if line is None:
        return None
    return Diagnosis(
        "driver-too-old",
        "DriverTooOld",
        f"the NVIDIA driver on {facts.instance_type or 'the node'} is too old for {facts.image}: {cut(line)}",
        "use an image for an older CUDA (cu128 or cu124), or an instance type with a newer driver",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def transfer_failed(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """Disaggregated serving: the decode side gets no KV blocks from the prefill side."""
    line = next((line for line in facts.log_lines() if re.search(r"Retrieved 0 of [1-9]", line)), None)
    if line is None:
        return None
    return Diagnosis(
        "kv-transfer",
        "KvTransferFailed",
        f"decode pods got no KV blocks from prefill pods: {cut(line)}",
        "use EFA-capable instances in one availability zone (disaggregation.topology.same_az) and equal images",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def engine_dead(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The engine's worker process died below a living server."""
    line = first_line_with(facts.log_lines(), "EngineDeadError", "engine core initialization failed")
    if line is None:
        return None
    return Diagnosis(
        "engine-dead",
        "EngineDead",
        f"the engine died inside the model server: {cut(line)}",
        "read the log lines above this one: mostly memory, a wrong tensor-parallel size, or an unsupported model",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts),
    )


def _ends_again_and_again(container: ContainerFacts, limits: Limits) -> bool:
    backing_off = container.waiting_reason == "CrashLoopBackOff"
    return container.restarts >= limits.restarts - backing_off


def _last_words(facts: Facts, container: ContainerFacts) -> str:
    last = next((log.lines[-1] for log in facts.logs if log.container == container.name and log.lines), "")
    return last or container.terminated_message


def hub_download_failed(facts: Facts, _now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The pod could not download its weights from the Hugging Face Hub."""
    events = events_with(facts, reasons=("HuggingFaceDownloadFailed",))
    held = [item for item in facts.resource.conditions if "huggingfacedownload" in (item.reason + item.type).lower()]
    looping = [
        container
        for pod in facts.pods
        for container in pod.containers
        if container.init and "hf" in container.name and _ends_again_and_again(container, limits)
    ]
    if not events and not held and not looping:
        return None
    said = [event.message for event in events] + [item.message for item in held]
    said += [
        _last_words(facts, container) or f"{container.name} ended with {container.exit_code}" for container in looping
    ]
    return Diagnosis(
        "hub-download",
        "HuggingFaceDownloadFailed",
        f"the weights could not be downloaded from the Hugging Face Hub: {cut(said[0] or 'no message')}",
        "check the repository and commit, the secret (key token), the licence of a gated model, and egress to the Hub",
        FailureClass.CONFIGURATION,
        terminal=True,
        evidence=evidence_of(facts, events),
    )


def out_of_memory(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """A container was killed for memory."""
    for pod in facts.pods:
        for container in pod.containers:
            if not _killed_for_memory(facts, pod, container):
                continue
            if container.ready and container.restarts == 0:
                continue
            return Diagnosis(
                "oom",
                "OutOfMemory",
                f"container {container.name} of pod {pod.name} was killed for memory"
                f" (exit code {container.exit_code}, {container.restarts} restart(s))",
                "raise deployment.resources limits.memory, or lower the model's context and cache",
                FailureClass.CONFIGURATION,
                terminal=True,
                evidence=evidence_of(facts),
            )
    return None


def _killed_for_memory(facts: Facts, pod: PodFacts, container: ContainerFacts) -> bool:
    if container.terminated_reason == "OOMKilled":
        return True
    # Any SIGKILL ends with 137: a deletion's and a lost node's are not for memory.
    leaving = {node.name for node in facts.nodes if is_leaving(node)}
    return container.exit_code == 137 and not pod.deleting and pod.node not in leaving


def image_pull(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The image cannot be pulled."""
    for pod, container in _waiting(facts, PULL_REASONS):
        events = events_with(facts, "failed to pull image", "pulling image", reasons=("ErrImagePull",))
        said = container.waiting_message or (events[-1].message if events else "no message")
        texts = " ".join([said, *(event.message for event in events)]).lower()
        hopeless = container.waiting_reason in ("InvalidImageName", "ErrImageNeverPull") or any(
            mark in texts for mark in HOPELESS_PULL
        )
        waited = age(oldest(events) or pod.scheduled_at or pod.created_at, now)
        return Diagnosis(
            "image-pull",
            container.waiting_reason,
            f"image {container.image or facts.image} of pod {pod.name} cannot be pulled: {cut(said)}",
            "check the image's name, tag, account, region and architecture, and the node role's ECR rights",
            FailureClass.CONFIGURATION if hopeless else FailureClass.TRANSIENT,
            terminal=hopeless or waited > limits.image_pull_s,
            evidence=evidence_of(facts, events),
        )
    return None


def weights_corrupt(facts: Facts, _now: dt.datetime, _limits: Limits) -> Diagnosis | None:
    """The volume's bytes are not the staged ones."""
    events = events_with(facts, *CORRUPT, reasons=("WeightsCorrupt",))
    events = [event for event in events if event.reason in ("FailedMount", "WeightsCorrupt")]
    if not events:
        return None
    return Diagnosis(
        "weights-corrupt",
        "WeightsCorrupt",
        f"the model's volume does not hold the staged bytes: {cut(events[-1].message)}",
        "stage the model again with repair, and find out what changed the object",
        FailureClass.INTEGRITY,
        terminal=True,
        evidence=evidence_of(facts, events),
    )


def mount_failed(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The model's volume cannot be mounted."""
    events = events_with(facts, "MountVolume.SetUp failed", reasons=("FailedMount", "FailedAttachVolume"))
    if not events or all(pod.ready for pod in facts.pods):
        return None
    waited = age(oldest(events), now)
    return Diagnosis(
        "mount",
        "VolumeMountFailed",
        f"the model's volume cannot be mounted: {cut(events[-1].message)}",
        "check that the CSI driver (S3 or FSx) runs on the node, its IAM role, and that bucket or file system exist",
        FailureClass.CONFIGURATION,
        terminal=waited > limits.mount_s,
        evidence=evidence_of(facts, events),
    )


def container_refused(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The kubelet cannot make the container: a missing secret, config map or command."""
    for pod, container in _waiting(facts, CONFIG_REASONS):
        waited = age(pod.scheduled_at or pod.created_at, now)
        return Diagnosis(
            "container-config",
            container.waiting_reason,
            f"container {container.name} of pod {pod.name} cannot be made: "
            f"{cut(container.waiting_message or 'no message')}",
            "create the secret or config map that it names, or correct command and volume",
            FailureClass.CONFIGURATION,
            terminal=waited > limits.config_s,
            evidence=evidence_of(facts),
        )
    return None


def too_many_pods(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The nodes have no room for one more pod, or no address for it."""
    events = events_with(facts, "too many pods", "failed to assign an ip address")
    texts = [event.message for event in events] + [pod.unschedulable for pod in facts.pods]
    line = first_line_with(texts, "too many pods", "failed to assign an ip address")
    if line is None or all(pod.ready for pod in facts.pods):
        return None
    waited = max([age(pod.created_at, now) for pod in facts.pods] or [0.0])
    return Diagnosis(
        "pod-slots",
        "NoPodSlot",
        f"the nodes of type {facts.instance_type} have no pod slot or IP address left: {cut(line)}",
        "free pods, enable prefix delegation in the VPC CNI, or raise maxPods on the nodes",
        FailureClass.CAPACITY,
        terminal=waited > limits.unschedulable_s,
        evidence=evidence_of(facts, events),
    )


def unschedulable(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """No node takes the pod."""
    for pod in facts.pods:
        if not pod.unschedulable or waits_for_lost_node(pod):
            continue
        short = sorted(set(SHORT_OF.findall(pod.unschedulable)))
        events = events_with(facts, reasons=("FailedScheduling",))
        missing = f"not enough {' and '.join(short)}" if short else "no node matches"
        return Diagnosis(
            "unschedulable",
            "Unschedulable",
            f"pod {pod.name} waits for a node of type {facts.instance_type}: {missing}: {cut(pod.unschedulable)}",
            "wait for capacity, add instances to the group, or lower the requests; check device plugin and MIG profile",
            FailureClass.CAPACITY,
            terminal=age(pod.created_at, now) > limits.unschedulable_s,
            evidence=evidence_of(facts, events),
        )
    return None


def pods_refused(facts: Facts, now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """The API refuses to make the Deployment's pods: quota or admission."""
    events = events_with(facts, reasons=("FailedCreate",))
    if not events or facts.pods:
        return None
    quota = "quota" in events[-1].message.lower()
    return Diagnosis(
        "pods-refused",
        "QuotaExceeded" if quota else "PodsRefused",
        f"the cluster refuses the pods of {facts.name}: {cut(events[-1].message)}",
        "raise the namespace's resource quota or wait until others finish"
        if quota
        else "correct what the admission names",
        FailureClass.CAPACITY if quota else FailureClass.CONFIGURATION,
        terminal=age(oldest(events), now) > (limits.unschedulable_s if quota else limits.config_s),
        evidence=evidence_of(facts, events),
    )


def crash_loop(facts: Facts, _now: dt.datetime, limits: Limits) -> Diagnosis | None:
    """A container ends again and again, for a reason that only its log knows."""
    for pod in facts.pods:
        for container in pod.containers:
            if container.ready or not _ends_again_and_again(container, limits):
                continue
            said = _last_words(facts, container) or "its log is empty"
            return Diagnosis(
                "crash-loop",
                "CrashLoopBackOff",
                f"container {container.name} of pod {pod.name} ended {container.restarts} times,"
                f" last with exit code {container.exit_code}: {cut(said)}",
                "read the log lines below; correct args, environment or image",
                FailureClass.CONFIGURATION,
                terminal=True,
                evidence=evidence_of(facts),
            )
    return None


LOG_ROWS = {
    "cuda-oom": cuda_out_of_memory,
    "driver-too-old": driver_too_old,
    "kv-transfer": transfer_failed,
    "engine-dead": engine_dead,
}
ROWS = {
    "hub-download": hub_download_failed,
    "oom": out_of_memory,
    "image-pull": image_pull,
    "weights-corrupt": weights_corrupt,
    "mount": mount_failed,
    "container-config": container_refused,
    "pod-slots": too_many_pods,
    "unschedulable": unschedulable,
    "pods-refused": pods_refused,
}
LAST_ROWS = {"crash-loop": crash_loop}
