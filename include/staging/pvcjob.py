"""Work that needs a cluster's file system: a Job that mounts a claim, runs the stager's image, and goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from include.errors import FailureClass, IntegrityError, PipelineError
from include.staging.target import Target

LABELS = {"app.kubernetes.io/managed-by": "hyperpod-pipelines", "app.kubernetes.io/component": "stager"}
KEEP_SECONDS = 3600
POLL_SECONDS = 1.0
EXIT_WRONG = 1


@dataclass(frozen=True)
class ClaimJob:
    """One Job.

    Its pod gets its AWS access from the service account (Pod Identity or IRSA): there are no keys in the manifest.

    :param arguments: of ``python -m include.staging`` in the image.
    :param environment: addresses and regions only; never a secret.
    """

    name: str
    namespace: str
    image: str
    claim: str
    arguments: tuple[str, ...]
    mount: str = "/fsx"
    read_only: bool = False
    service_account: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    node_selector: Mapping[str, str] = field(default_factory=dict)
    cpu: str = "1"
    memory: str = "1Gi"
    deadline_seconds: int = 6 * 3600

    def reading(self, folder: str) -> ClaimJob:
        """Return the Job that only reads and checks a revision that is there, at ``folder`` of its mount."""
        return replace(self, arguments=("warm", folder), read_only=True)

    def manifest(self) -> dict[str, Any]:
        """Return the ``batch/v1`` Job."""
        labels = {**LABELS, **self.labels}
        container = {
            "name": "stager",
            "image": self.image,
            "command": ["python", "-m", "include.staging"],
            "args": list(self.arguments),
            "env": [{"name": name, "value": value} for name, value in sorted(self.environment.items())],
            "resources": {
                "requests": {"cpu": self.cpu, "memory": self.memory},
                "limits": {"memory": self.memory},
            },
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "models", "mountPath": self.mount, "readOnly": self.read_only}],
        }
        claim = {"claimName": self.claim, "readOnly": self.read_only}
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": self.service_account is not None,
            "containers": [container],
            "volumes": [{"name": "models", "persistentVolumeClaim": claim}],
        }
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        if self.node_selector:
            pod["nodeSelector"] = dict(self.node_selector)
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": self.name, "namespace": self.namespace, "labels": labels},
            "spec": {
                # A pod that lost its node is worth another; wrong bytes are not, and say so with their exit code.
                "backoffLimit": 2,
                "activeDeadlineSeconds": self.deadline_seconds,
                "ttlSecondsAfterFinished": KEEP_SECONDS,
                "podFailurePolicy": {
                    "rules": [
                        {
                            "action": "FailJob",
                            "onExitCodes": {"containerName": "stager", "operator": "In", "values": [EXIT_WRONG]},
                        },
                        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    ]
                },
                "template": {"metadata": {"labels": labels}, "spec": pod},
            },
        }


def copy_job(target: Target, name: str, namespace: str, claim: str, image: str, **more: Any) -> ClaimJob:
    """Return the Job that copies a staged revision to a claim and reads it once, so that its bytes are resident.

    :param more: fields of :class:`ClaimJob`; ``root``: folder in the claim that stands for ``models_uri``.
    """
    *_, model, revision = target.prefix.split("/")
    mount, root = str(more.get("mount", "/fsx")), more.pop("root", "")
    region = {"AWS_REGION": target.context.region} if target.context.region else {}
    return ClaimJob(
        name=name,
        namespace=namespace,
        image=image,
        claim=claim,
        arguments=(
            "fetch",
            model,
            revision,
            "--models-uri",
            target.models_uri,
            "--to",
            f"{mount}/{root}".rstrip("/"),
            "--warm",
            "--durable",
        ),
        environment={**region, **more.pop("environment", {})},
        **more,
    )


def run_job(kube: Any, job: ClaimJob, say: Callable[[str], None] = lambda _: None) -> str:
    """Run a Job to its end, delete it, and return what it printed. A Job of that name that is there is adopted.

    :param kube: ``kubernetes.client.ApiClient``.
    :param say: gets the end of the log while it runs.
    :raises IntegrityError: it found wrong bytes.
    :raises PipelineError: it failed or ran out of time; evidence is the end of its log.
    """
    from kubernetes.client import BatchV1Api, V1DeleteOptions
    from kubernetes.client.exceptions import ApiException

    api = BatchV1Api(kube)
    try:
        api.create_namespaced_job(job.namespace, job.manifest())
    except ApiException as error:
        if error.status != 409:
            raise
    try:
        ended = _wait(kube, job, say)
        log, exit_code = _log(kube, job)
    finally:
        options = V1DeleteOptions(propagation_policy="Background")
        try:
            api.delete_namespaced_job(job.name, job.namespace, body=options)
        except ApiException as error:
            if error.status != 404:
                raise
    if ended != "Complete":
        raise _failure(job, ended, log, exit_code)
    return log


def _wait(kube: Any, job: ClaimJob, say: Callable[[str], None]) -> str:
    from kubernetes.client import BatchV1Api

    deadline, said = time.monotonic() + job.deadline_seconds + 60, ""
    while time.monotonic() < deadline:
        status = BatchV1Api(kube).read_namespaced_job(job.name, job.namespace).status
        for condition in status.conditions or ():
            if condition.type in ("Complete", "Failed") and condition.status == "True":
                return condition.type if condition.type == "Complete" else str(condition.reason)
        last = (_log(kube, job)[0].strip().splitlines() or [""])[-1]
        if last != said:
            say(last)
            said = last
        time.sleep(POLL_SECONDS)
    return "DeadlineExceeded"


def _log(kube: Any, job: ClaimJob) -> tuple[str, int | None]:
    """Return the log of the newest pod and its exit code, when it has one."""
    from kubernetes.client import CoreV1Api
    from kubernetes.client.exceptions import ApiException

    api = CoreV1Api(kube)
    pods = api.list_namespaced_pod(job.namespace, label_selector=f"job-name={job.name}").items
    if not pods:
        return "", None
    pod = max(pods, key=lambda item: str(item.metadata.creation_timestamp))
    states = [status.state.terminated for status in pod.status.container_statuses or ()]
    code = next((state.exit_code for state in states if state), None)
    try:
        # The client would return the text of a bytes object.
        raw = api.read_namespaced_pod_log(pod.metadata.name, job.namespace, _preload_content=False)
        return raw.data.decode(errors="replace"), code
    except ApiException:
        return "", code


def _failure(job: ClaimJob, ended: str, log: str, exit_code: int | None) -> PipelineError:
    evidence = tuple(log.strip().splitlines()[-10:])
    said = evidence[-1] if evidence else "its pod left no log"
    text = f"Job {job.namespace}/{job.name} on claim {job.claim}: {ended}: {said}"
    if exit_code == EXIT_WRONG:
        fix = "verify the staged revision, then run it again"
        return IntegrityError("CopyCorrupt", text, fix=fix, evidence=evidence)
    return PipelineError(
        "CopyFailed",
        text,
        fix="read the evidence; check the claim, its driver, and the service account's access to the bucket",
        failure_class=FailureClass.TRANSIENT,
        evidence=evidence,
    )
