"""SageMaker AI benchmark jobs: AIPerf as a managed service, for endpoints that SageMaker knows by name.

Parameters as in the SageMaker developer guide, "Set up a workload configuration for generative AI inference
recommendations"; the service's API model leaves them open.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import JsonObject, LoadSpec, WorkloadSpec
from include.errors import FailureClass, PipelineError
from include.loadtest.foreign.aiperf import AiPerf
from include.loadtest.foreign.base import Asked, Capabilities, only_prompt, refuse
from include.objects import Objects

if TYPE_CHECKING:
    import pyarrow as pa

NAME = "sagemaker-benchmark"
CAPABILITIES = Capabilities(
    open_loop=False, search=False, multi_turn=False, chunk_times=True, scheduled_times=True, stddev=True,
    protocols=("openai-chat", "openai-completions", "invocations", "sagemaker"),
)  # fmt: skip
RUNNING = frozenset({"InProgress", "Stopping"})
_UNSAFE = re.compile(r"[^A-Za-z0-9-]+")


def job_name(text: str) -> str:
    """Return a name that the service takes: letters, digits and hyphens, at most 63."""
    return _UNSAFE.sub("-", text).strip("-")[:63].rstrip("-")


def parameters_of(workload: WorkloadSpec, load: LoadSpec, more: JsonObject) -> JsonObject:
    """Return a load level in the service's terms.

    :param more: further parameters, which win.
    :raises ConfigurationError: the level has what these terms cannot say, such as an open loop.
    """
    refuse(NAME, workload, load, CAPABILITIES)
    prompt = only_prompt(workload, NAME)
    return {
        "prompt_input_tokens_mean": prompt.input_tokens,
        "prompt_input_tokens_stddev": prompt.input_tokens_stddev,
        "output_tokens_mean": prompt.output_tokens,
        "output_tokens_stddev": prompt.output_tokens_stddev,
        "concurrency": load.concurrency,
        "streaming": workload.stream,
    } | more


def workload_config(name: str, parameters: JsonObject) -> JsonObject:
    """Return the parameters of ``create_ai_workload_config``.

    :param parameters: the benchmark's, in the service's own terms.
    """
    content = {"benchmark": {"type": "aiperf"}, "parameters": parameters}
    return {
        "AIWorkloadConfigName": job_name(name),
        "AIWorkloadConfigs": {"WorkloadSpec": {"Inline": json.dumps(content)}},
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


def start(client: Any, name: str, parameters: JsonObject, *, endpoint: str, output_uri: str, role_arn: str) -> None:
    """Create configuration and job; those that an earlier moment of the same try made are kept."""
    config = workload_config(name, parameters)
    with _kept(client):
        client.create_ai_workload_config(**config)
    with _kept(client):
        job = benchmark_job(
            name, config_name=config["AIWorkloadConfigName"], endpoint=endpoint, output_uri=output_uri,
            role_arn=role_arn, tags={"CreatedBy": "hyperpod-inference-pipelines"},
        )  # fmt: skip
        client.create_ai_benchmark_job(**job)


def remove(client: Any, name: str) -> None:
    """Stop a job that still runs, and delete job and configuration; what the service will not delete now is left."""
    from botocore.exceptions import ClientError

    calls = (
        (client.stop_ai_benchmark_job, {"AIBenchmarkJobName": job_name(name)}),
        (client.delete_ai_benchmark_job, {"AIBenchmarkJobName": job_name(name)}),
        (client.delete_ai_workload_config, {"AIWorkloadConfigName": job_name(name)}),
    )
    for call, arguments in calls:
        with contextlib.suppress(ClientError):
            call(**arguments)


@contextlib.contextmanager
def _kept(client: Any) -> Iterator[None]:
    try:
        yield
    except client.exceptions.ResourceInUse:
        return


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


def collect(output_uri: str, folder: Path, *, session: Any = None, asked: Asked | None = None) -> pa.Table:
    """Fetch AIPerf's per-request export below ``output_uri`` and return its records.

    :param asked: the level that it was to run.
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
    return AiPerf().collect(folder, asked)
