"""Work that needs a cluster's file system: a Job that mounts a claim, runs the stager's image, and goes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from include.errors import FailureClass, IntegrityError, PipelineError
from include.staging.jobwatch import ApiLostError, JobWatch, gave_up
from include.staging.podwait import Waiting
from include.staging.target import Target

LABELS = {"app.kubernetes.io/managed-by": "hyperpod-pipelines", "app.kubernetes.io/component": "stager"}
KEEP_SECONDS = 3600
EXIT_WRONG = 1


@dataclass(frozen=True)
class ClaimJob:
    """One Job.

    Its pod gets its AWS access from the service account (Pod Identity or IRSA): there are no keys in the manifest.

    :param arguments: of ``python -m include.staging`` in the image.
    :param environment: addresses and regions only; never a secret.
    :param patience_seconds: how long its pod may wait for what seldom comes by itself (an image, a volume).
    :param outage_seconds: how long the Kubernetes API may fail every call.
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
    patience_seconds: float = 120
    outage_seconds: float = 300

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
    :param say: gets what its pod waits for, and the end of the log while it runs.
    :raises IntegrityError: it found wrong bytes.
    :raises ConfigurationError: its image or its claim cannot be used.
    :raises PipelineError: it failed or ran out of time; evidence is the end of its log.
    """
    watch = JobWatch(kube, job, say)
    watch.create()
    try:
        ended = watch.until_end()
        log, exit_code = watch.log(), watch.exit_code
    except ApiLostError:
        # It goes on without us; a retry finds it by its name.
        raise
    except BaseException:
        watch.delete()
        raise
    watch.delete()
    if ended != "Complete":
        raise _failure(job, ended, log, exit_code, watch.waiting)
    return log


def _failure(
    job: ClaimJob, ended: str, log: str, exit_code: int | None, waiting: Waiting | None
) -> PipelineError:  # fmt: skip
    if waiting is not None:
        return gave_up(job, waiting)
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
