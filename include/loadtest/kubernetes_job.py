"""Objects of a load that comes from pods: a Secret with each pod's order, and an Indexed Job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from include.errors import ConfigurationError
from include.loadtest.job import Job

INDEX_ENV = "JOB_COMPLETION_INDEX"
MOUNT = "/etc/loadtest"
ORDERS_FILE = "orders.json"
MAX_SECRET_BYTES = 900_000
KEEP_SECONDS = 3600


class ForeignRun(msgspec.Struct, frozen=True, kw_only=True):
    """A level for another project's engine; target, workload, load and installation as JSON values."""

    engine: str
    target: dict[str, Any]
    workload: dict[str, Any]
    load: dict[str, Any]
    install: dict[str, Any]


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one pod does: its share of a load by our engine, or all of it by another.

    :param pods: how many pods start together.
    :param ready_s: how long the last of them may take.
    :param metrics_urls: Prometheus pages that this pod scrapes meanwhile.
    :param scraped: the first pod scrapes: none sends anything before it has begun, nor after it has ended.
    """

    job: Job | None = None
    foreign: ForeignRun | None = None
    pods: int = 1
    ready_s: float = 600.0
    metrics_urls: list[str] = []
    scraped: bool = False


@dataclass(frozen=True)
class LoadJob:
    """The Job as Kubernetes sees it.

    :param results_uri: folder of this run of the Job alone.
    :param serving: labels of the model servers' pods, whose nodes the load keeps away from.
    :param owner: owner reference; when that object goes, the Job and the Secret go.
    :param environment: addresses and regions only; never a secret.
    """

    name: str
    namespace: str
    image: str
    pods: int
    results_uri: str
    serving: dict[str, str]
    deadline_s: int
    labels: dict[str, str] = field(default_factory=dict)
    owner: dict[str, Any] | None = None
    service_account: str | None = None
    environment: dict[str, str] = field(default_factory=dict)
    node_selector: dict[str, str] = field(default_factory=dict)
    cpu: str = "1"
    memory: str = "1Gi"

    def secret(self, orders: Sequence[Order]) -> dict[str, Any]:
        """Return the Secret with the orders (target headers are credentials, so no ConfigMap).

        :raises ConfigurationError: they use local files (data sets, traces, certificates), which pods do not have.
        """
        for order in orders:
            _refuse_files(order)
        content = msgspec.json.encode(list(orders)).decode()
        if len(content) > MAX_SECRET_BYTES:
            raise ConfigurationError("JobTooLarge", f"the orders take {len(content)} bytes", fix="Use fewer pods.")
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": self._meta(),
            "type": "Opaque",
            "stringData": {ORDERS_FILE: content},
        }

    def manifest(self) -> dict[str, Any]:
        """Return the ``batch/v1`` Indexed Job; pod *i* does the *i*-th order.

        Each pod has a core of its own. A pod is not restarted: a second attempt would be another load at another time.
        """
        return {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": self._meta(),
            "spec": {
                "completionMode": "Indexed",
                "completions": self.pods,
                "parallelism": self.pods,
                "backoffLimit": 0,
                "activeDeadlineSeconds": self.deadline_s,
                "ttlSecondsAfterFinished": KEEP_SECONDS,
                "template": {"metadata": {"labels": dict(self.labels)}, "spec": self._pod()},
            },
        }

    def _meta(self) -> dict[str, Any]:
        owners = {"ownerReferences": [self.owner]} if self.owner else {}
        return {"name": self.name, "namespace": self.namespace, "labels": dict(self.labels), **owners}

    def _pod(self) -> dict[str, Any]:
        container = {
            "name": "loadtest",
            "image": self.image,
            "command": ["python", "-m", "include.loadtest"],
            "args": ["pod", "--orders", f"{MOUNT}/{ORDERS_FILE}", "--results", self.results_uri],
            "env": [{"name": key, "value": value} for key, value in sorted(self.environment.items())],
            "resources": {"requests": {"cpu": self.cpu, "memory": self.memory}, "limits": {"memory": self.memory}},
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            "volumeMounts": [{"name": "orders", "mountPath": MOUNT, "readOnly": True}],
        }
        apart = {"labelSelector": {"matchLabels": dict(self.serving)}, "topologyKey": "kubernetes.io/hostname"}
        pod: dict[str, Any] = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": self.service_account is not None,
            "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
            "containers": [container],
            "volumes": [{"name": "orders", "secret": {"secretName": self.name}}],
        }
        if self.service_account:
            pod["serviceAccountName"] = self.service_account
        if self.node_selector:
            pod["nodeSelector"] = dict(self.node_selector)
        return pod


def _refuse_files(order: Order) -> None:
    files: list[str | None] = []
    if order.job is not None:
        job, endpoint = order.job, order.job.endpoint
        files = [endpoint.ca_file, endpoint.client_cert_file, endpoint.client_key_file]
        files += [job.load.trace, *(kind.dataset for kind in job.prompts)]
    elif order.foreign is not None:
        files = [order.foreign.target.get(name) for name in ("ca_file", "client_cert_file", "client_key_file")]
    for file in filter(None, files):
        raise ConfigurationError(
            "LocalFiles",
            f"pods cannot read {file}",
            fix="Run data sets, traces and private certificates in the worker.",
        )


def orders_for(job: Job, pods: int, ready_s: float, metrics_urls: Sequence[str] = ()) -> list[Order]:
    """Return one order per pod: an equal share each, starting together; the first also scrapes."""
    return [
        Order(
            job=msgspec.structs.replace(job, worker=pod, workers=pods, barrier=True, out=f"worker-{pod}.spool"),
            pods=pods,
            ready_s=ready_s,
            metrics_urls=list(metrics_urls) if pod == 0 else [],
            scraped=bool(metrics_urls),
        )
        for pod in range(pods)
    ]
