"""The load from pods: an Indexed Job whose pods start at one appointed time and leave their records in a store."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from include.errors import ConfigurationError, FailureClass, PipelineError
from include.loadtest.job import Job, decode_job
from include.objects import Objects

INDEX_ENV = "JOB_COMPLETION_INDEX"
JOB_MOUNT = "/etc/loadtest"
JOB_FILE = "jobs.json"
MAX_SECRET_BYTES = 900_000


def job_secret(name: str, namespace: str, jobs: Sequence[Job], labels: dict[str, str]) -> dict[str, Any]:
    """Return the Secret that holds the pods' jobs (target headers are credentials, so no ConfigMap).

    :raises ConfigurationError: the jobs use local files (data sets, traces), which pods do not have.
    """
    for job in jobs:
        files = [kind.dataset for kind in job.prompts if kind.dataset] + ([job.load.trace] if job.load.trace else [])
        if files:
            raise ConfigurationError(
                "LocalFiles", f"pods cannot read {files[0]}", fix="Run data sets and traces from the worker."
            )
    content = json.dumps([msgspec.to_builtins(job) for job in jobs])
    if len(content) > MAX_SECRET_BYTES:
        raise ConfigurationError("JobTooLarge", f"the jobs take {len(content)} bytes", fix="Use fewer pods.")
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "type": "Opaque",
        "stringData": {JOB_FILE: content},
    }


def job_manifest(
    name: str,
    namespace: str,
    *,
    image: str,
    pods: int,
    results_uri: str,
    labels: dict[str, str],
    serving_selector: dict[str, str],
    deadline_s: int,
    service_account: str | None = None,
    environment: dict[str, str] | None = None,
    node_selector: dict[str, str] | None = None,
) -> dict[str, Any]:
    """Return a ``batch/v1`` Indexed Job; pod *i* runs the *i*-th job of the Secret ``name``.

    Pods never share a node with the model servers (required anti-affinity), and each has a core of its own. A pod is
    not restarted: a second attempt would be another load at another time.

    :param results_uri: records go to ``<results_uri>/worker-<i>.parquet``.
    :param serving_selector: labels of the model servers' pods.
    :param deadline_s: the Job is ended after this long, whatever it does.
    """
    args = ["pod", "--jobs", f"{JOB_MOUNT}/{JOB_FILE}", "--results", results_uri]
    container = {
        "name": "loadtest",
        "image": image,
        "command": ["python", "-m", "include.loadtest"],
        "args": args,
        "env": [{"name": key, "value": value} for key, value in (environment or {}).items()],
        "resources": {"requests": {"cpu": "1", "memory": "512Mi"}, "limits": {"memory": "1Gi"}},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": [{"name": "jobs", "mountPath": JOB_MOUNT, "readOnly": True}],
    }
    apart = {
        "labelSelector": {"matchLabels": dict(serving_selector)},
        "topologyKey": "kubernetes.io/hostname",
    }
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": service_account is not None,
        "affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}},
        "containers": [container],
        "volumes": [{"name": "jobs", "secret": {"secretName": name}}],
    }
    if service_account:
        pod["serviceAccountName"] = service_account
    if node_selector:
        pod["nodeSelector"] = dict(node_selector)
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": namespace, "labels": dict(labels)},
        "spec": {
            "completionMode": "Indexed",
            "completions": pods,
            "parallelism": pods,
            "backoffLimit": 0,
            "activeDeadlineSeconds": deadline_s,
            "ttlSecondsAfterFinished": 3600,
            "template": {"metadata": {"labels": dict(labels)}, "spec": pod},
        },
    }


def jobs_for_pods(job: Job, pods: int, start_at_ns: int) -> list[Job]:
    """Return one job per pod: an equal share each, all beginning at ``start_at_ns`` (Unix time).

    A pod that comes up later begins at once and says by how much; the verdict is then LATE_START.
    """
    return [
        msgspec.structs.replace(
            job, worker=pod, workers=pods, start_at_ns=start_at_ns, barrier=False, out=f"worker-{pod}.spool"
        )
        for pod in range(pods)
    ]


def run_pod(jobs_file: Path, index: int, results_uri: str, scratch: Path) -> Path:
    """Run one pod's job and put its records into the store; what a pod does.

    :raises ConfigurationError: there is no job for this index.
    """
    from include.loadtest.records import read_shard, shard_table, write_parquet
    from include.loadtest.supervise import Generators

    jobs = json.loads(jobs_file.read_bytes())
    if not 0 <= index < len(jobs):
        raise ConfigurationError(
            "NoSuchIndex", f"{jobs_file} has {len(jobs)} jobs, none with index {index}", fix="Set completions to match."
        )
    scratch.mkdir(parents=True, exist_ok=True)
    name = f"worker-{index}"
    job = msgspec.structs.replace(decode_job(json.dumps(jobs[index]).encode()), out=str(scratch / f"{name}.spool"))
    try:
        with Generators([job], scratch) as generators:
            generators.run()
    finally:
        path = scratch / f"{name}.parquet"
        if Path(job.out).exists():
            write_parquet(shard_table(read_shard(Path(job.out))), path)
            Objects.open(results_uri).put_file(path.name, path)
    return path


def collect_pods(results_uri: str, pods: int, folder: Path, *, session: Any = None) -> Path:
    """Merge the pods' records into ``folder/requests.parquet``.

    :raises PipelineError: ``MissingShard`` names the pods that left nothing.
    """
    from include.loadtest.records import load, write_parquet

    store = Objects.open(results_uri, session=session)
    folder.mkdir(parents=True, exist_ok=True)
    missing, paths = [], []
    for pod in range(pods):
        content = store.get(f"worker-{pod}.parquet")
        if content is None:
            missing.append(f"worker-{pod}")
            continue
        path = folder / f"worker-{pod}.part"
        path.write_bytes(content)
        paths.append(path)
    if missing:
        raise PipelineError(
            "MissingShard",
            f"{len(missing)} of {pods} load pods left no records: {', '.join(missing)}",
            fix="Look at the pods' logs; a load without its share is not the load asked for.",
            failure_class=FailureClass.TRANSIENT,
        )
    merged = write_parquet(load(paths).table, folder / "requests.parquet")
    for path in paths:
        path.unlink()
    return merged
