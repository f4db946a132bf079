"""A load Job on its cluster: start it, see how it is, take it away. Blocking calls."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from include.loadtest.kubernetes_job import LoadJob, Order

if TYPE_CHECKING:
    from kubernetes.client import ApiClient

_LOG_LINES = 20


@dataclass(frozen=True)
class JobState:
    """How a load Job is.

    :param message: what the pods wait for, or why the Job failed.
    """

    phase: Literal["starting", "running", "complete", "failed"]
    reason: str = ""
    message: str = ""
    evidence: tuple[str, ...] = ()


def start(kube: ApiClient, job: LoadJob, orders: Sequence[Order]) -> None:
    """Create the Secret, then the Job; those that an earlier moment of the same try made are kept."""
    from kubernetes.client import BatchV1Api, CoreV1Api

    with _unless(409):
        CoreV1Api(kube).create_namespaced_secret(job.namespace, job.secret(orders))
    with _unless(409):
        BatchV1Api(kube).create_namespaced_job(job.namespace, job.manifest())


def remove(kube: ApiClient, namespace: str, name: str) -> None:
    """Delete Job, pods and Secret; absent ones are fine."""
    from kubernetes.client import BatchV1Api, CoreV1Api, V1DeleteOptions

    with _unless(404):
        options = V1DeleteOptions(propagation_policy="Background")
        BatchV1Api(kube).delete_namespaced_job(name, namespace, body=options)
    with _unless(404):
        CoreV1Api(kube).delete_namespaced_secret(name, namespace)


def observe(kube: ApiClient, namespace: str, name: str) -> JobState:
    """Return how the Job is; a failed one with the end of its pods' logs."""
    from kubernetes.client import BatchV1Api, CoreV1Api
    from kubernetes.client.exceptions import ApiException

    try:
        job = BatchV1Api(kube).read_namespaced_job(name, namespace)
    except ApiException as error:
        if error.status != 404:
            raise
        return JobState("failed", "LoadJobGone", f"Job {namespace}/{name} is gone")
    pods = CoreV1Api(kube).list_namespaced_pod(namespace, label_selector=f"job-name={name}").items
    for condition in job.status.conditions or ():
        if condition.status == "True" and condition.type == "Complete":
            return JobState("complete")
        if condition.status == "True" and condition.type == "Failed":
            evidence = tuple(line for pod in pods for line in _log(kube, namespace, pod))
            said = evidence[-1] if evidence else condition.message or ""
            return JobState("failed", "LoadJobFailed", f"Job {namespace}/{name}: {condition.reason}: {said}", evidence)
    running = sum(pod.status.phase != "Pending" for pod in pods)
    if running < job.spec.parallelism:
        waits = sorted({text for pod in pods for text in _waits(pod)})
        said = f"{running} of {job.spec.parallelism} pods have started"
        return JobState("starting", "", "; ".join([said, *waits]))
    return JobState("running")


def _waits(pod: Any) -> Iterator[str]:
    for condition in pod.status.conditions or ():
        if condition.type == "PodScheduled" and condition.status == "False":
            yield str(condition.message)
    for status in pod.status.container_statuses or ():
        if status.state.waiting is not None:
            yield f"{status.state.waiting.reason}: {status.state.waiting.message or ''}".rstrip(": ")


def _log(kube: ApiClient, namespace: str, pod: Any) -> list[str]:
    """Return the last lines of a pod that failed."""
    from kubernetes.client import CoreV1Api
    from kubernetes.client.exceptions import ApiException

    if pod.status.phase != "Failed":
        return []
    try:
        # The client would return the text of a bytes object.
        raw = CoreV1Api(kube).read_namespaced_pod_log(pod.metadata.name, namespace, _preload_content=False)
    except ApiException:
        return []
    lines = raw.data.decode(errors="replace").splitlines()[-_LOG_LINES:]
    return [f"{pod.metadata.name}: {line}" for line in lines]


@contextlib.contextmanager
def _unless(status: int) -> Iterator[None]:
    from kubernetes.client.exceptions import ApiException

    try:
        yield
    except ApiException as error:
        if error.status != status:
            raise
