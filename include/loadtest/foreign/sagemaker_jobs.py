"""SageMaker AI benchmark jobs: AIPerf as a managed service, for endpoints that SageMaker knows by name."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import JsonObject
from include.errors import FailureClass, PipelineError
from include.loadtest.foreign.aiperf import AiPerf
from include.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

RUNNING = frozenset({"InProgress", "Stopping"})
_UNSAFE = re.compile(r"[^A-Za-z0-9-]+")


def job_name(text: str) -> str:
    """Return a name that the service takes: letters, digits and hyphens, at most 63."""
    return _UNSAFE.sub("-", text).strip("-")[:63].rstrip("-")


def workload_config(name: str, parameters: JsonObject) -> JsonObject:
    """Return the parameters of ``create_ai_workload_config``.

    :param parameters: the benchmark's, in the service's own terms; it takes them as one JSON text whose fields its API
        model leaves open, so they are passed on as given.
    """
    return {
        "AIWorkloadConfigName": job_name(name),
        "AIWorkloadConfigs": {"WorkloadSpec": {"Inline": json.dumps(parameters)}},
    }


def benchmark_job(
    name: str, *, config_name: str, endpoint: str, output_uri: str, role_arn: str, tags: dict[str, str]
) -> JsonObject:
    """Return the parameters of ``create_ai_benchmark_job``."""
    return {
        "AIBenchmarkJobName": job_name(name),
        "BenchmarkTarget": {"Endpoint": {"Identifier": endpoint}},
        "OutputConfig": {"S3OutputLocation": output_uri},
        "AIWorkloadConfigIdentifier": config_name,
        "RoleArn": role_arn,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


def finished(description: dict[str, Any]) -> bool:
    """Read an answer of ``describe_ai_benchmark_job``: true when the job completed, false while it runs.

    :raises PipelineError: it failed or was stopped, with the service's reason.
    """
    status = str(description.get("AIBenchmarkJobStatus", ""))
    if status in RUNNING:
        return False
    if status == "Completed":
        return True
    raise PipelineError(
        "BenchmarkJobFailed",
        f"SageMaker benchmark job {description.get('AIBenchmarkJobName')} ended as {status}: "
        f"{description.get('FailureReason', 'no reason given')}",
        fix="Look at the job in the SageMaker console.",
        failure_class=FailureClass.TRANSIENT,
    )


def collect(output_uri: str, folder: Path, *, session: Any = None) -> pa.Table:
    """Fetch AIPerf's per-request export below ``output_uri`` and return its records.

    :raises PipelineError: there is none.
    """
    store = Objects.open(output_uri, session=session)
    found = [item.path for item in store.list() if item.path.endswith("profile_export.jsonl")]
    content = store.get(found[0]) if found else None
    if content is None:
        raise PipelineError(
            "NoRecords",
            f"there is no profile_export.jsonl below {output_uri}",
            fix="Check the job's output configuration.",
            failure_class=FailureClass.TRANSIENT,
        )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "profile_export.jsonl").write_bytes(content)
    return AiPerf().collect(folder)
