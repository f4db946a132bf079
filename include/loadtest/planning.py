"""From what a person wrote (workload, load level, target) to the jobs of the generators."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import SplitResult, urlsplit

import msgspec

from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.datasets import write_dataset, write_trace
from include.loadtest.job import Credentials, Endpoint, Job, Load, Prompts
from include.loadtest.target import Target

# Measured cost of the engine, with room (bench/loadtest.py measures it): decides how many processes a load needs.
CPU_S_PER_REQUEST = 0.0003
CPU_S_PER_TOKEN = 0.000012
TARGET_SHARE = 0.6
STREAMS_PER_PROCESS = 512

_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "embeddings": "/v1/embeddings",
    "invocations": "/invocations",
}


def endpoint_for(target: Target, workload: WorkloadSpec) -> Endpoint:
    """Return where and how the generators send.

    :raises ConfigurationError: SageMaker without an endpoint name or region.
    """
    parts, port = split_url(target.base_url)
    tls = parts.scheme == "https"
    base = parts.path.rstrip("/")
    protocol = target.protocol or workload.protocol
    stream = (workload.stream if target.stream is None else target.stream) and protocol != "embeddings"
    own_shape = protocol in ("invocations", "sagemaker")
    if protocol == "sagemaker" and not target.region:
        raise ConfigurationError(
            "NoRegion",
            f"requests to {target.base_url} are signed for a region",
            fix="Set the target's region (--region).",
        )
    return Endpoint(
        host=parts.hostname or "",
        port=port,
        host_header=parts.netloc,
        path=_path(target, protocol, base, stream=stream),
        body=target.body_format if own_shape else protocol,
        model=target.model,
        tls=tls,
        headers=dict(target.headers),
        stream=stream,
        sagemaker=protocol == "sagemaker",
        region=target.region or "",
        ca_file=target.ca_file,
        insecure=target.insecure,
        client_cert_file=target.client_cert_file,
        client_key_file=target.client_key_file,
        ignore_eos=target.ignore_eos,
        tokenize_path=f"{base.removesuffix('/v1')}/tokenize",
    )


def split_url(url: str) -> tuple[SplitResult, int]:
    """Return the parts of a base URL and its port.

    :raises ConfigurationError: ``BadUrl``: what it says beyond scheme, host, port and prefix would not be sent.
    """
    try:
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        shown = repr(url) if "@" not in url else "(with a user name)"
        raise ConfigurationError("BadUrl", f"the URL {shown}: {error}", fix="Write http://host:port/prefix.") from error
    if parts.username is not None:  # not shown: it holds a password
        raise ConfigurationError(
            "BadUrl",
            f"the URL of {parts.hostname} carries a user name or password",
            fix="Use a header for credentials.",
        )
    if parts.query or parts.fragment:  # not shown either: keys are put there
        raise ConfigurationError(
            "BadUrl",
            f"the base URL of {parts.hostname} ends with a {'query' if parts.query else 'fragment'}",
            fix="Leave it out, or put the query into the path.",
        )
    return parts, port


def _path(target: Target, protocol: str, base: str, *, stream: bool) -> str:
    if target.path:
        return base + "/" + target.path.lstrip("/")
    if protocol != "sagemaker":
        # Base URLs as OpenAI's own client takes them end with /v1.
        return (
            base.removesuffix("/v1") + _PATHS[protocol]
            if _PATHS[protocol].startswith("/v1/")
            else base + _PATHS[protocol]
        )
    if not target.endpoint_name:
        raise ConfigurationError(
            "NoEndpointName",
            "the target names no SageMaker endpoint",
            fix="Set path or endpoint_name (--endpoint-name).",
        )
    return f"{base}/endpoints/{target.endpoint_name}/invocations{'-response-stream' if stream else ''}"


def processes_for(load: LoadSpec, prompts: Sequence[PromptSpec]) -> int:
    """Return how many generator processes a load needs: as stated, else 60 % of a core or 512 streams each."""
    if load.workers is not None:
        return load.workers
    tokens = max(prompt.output_tokens for prompt in prompts)
    rate = max(load.rate or 0.0, load.end_rate or 0.0)
    by_rate = rate * (CPU_S_PER_REQUEST + tokens * CPU_S_PER_TOKEN) / TARGET_SHARE
    by_streams = (load.concurrency or 0) / STREAMS_PER_PROCESS
    needed = max(1, math.ceil(max(by_rate, by_streams)))
    return min(needed, load.concurrency or needed)


def workers_for(load: LoadSpec, prompts: Sequence[PromptSpec], cores: int | None = None) -> int:
    """Return how many generator processes this machine runs for a load: what it needs, at most one per core."""
    if load.workers is not None:
        return load.workers
    return min(processes_for(load, prompts), cores or len(os.sched_getaffinity(0)))


def check_load(load: LoadSpec) -> None:
    """Refuse a load level that cannot be run.

    :raises ConfigurationError: names what is missing.
    """
    problems = []
    if load.mode == "closed" and not load.concurrency:
        problems.append("a closed loop needs concurrency")
    if load.mode == "open" and load.arrivals != "replay" and not load.rate:
        problems.append("an open loop needs a rate")
    if load.arrivals == "replay" and not load.trace:
        problems.append("replay needs a trace")
    if load.arrivals == "ramp" and not load.end_rate:
        problems.append("a ramp needs end_rate")
    if load.workers and load.concurrency and load.workers > load.concurrency:
        problems.append(f"workers {load.workers} are more than its concurrency {load.concurrency}: some have none")
    if load.requests is None and load.duration_s is None and load.arrivals != "replay":
        problems.append("neither requests nor duration_s bounds it")
    if problems:
        raise ConfigurationError(
            "BadLoad", f"load {load.label}: {'; '.join(problems)}", fix="Complete the load level in the workload."
        )


def make_jobs(
    target: Target,
    workload: WorkloadSpec,
    load: LoadSpec,
    *,
    out_dir: Path,
    seed: int,
    salt: str,
    arm: str,
    workers: int,
    credentials: Credentials | None = None,
) -> list[Job]:
    """Return one job per generator process; data sets and traces are written below ``out_dir`` in plain form.

    :param salt: any text. Workload, load level and arm are mixed in, so that two parts of one run share no prompt; the
        jobs carry a digest, which is safe in a header and a file name.
    :raises ConfigurationError: the load cannot be run, or a data set or trace cannot be read.
    """
    check_load(load)
    weights = workload.weights or (1.0,) * len(workload.prompts)
    if len(weights) != len(workload.prompts):
        raise ConfigurationError(
            "BadWeights",
            f"workload {workload.name} has {len(workload.prompts)} prompts and {len(weights)} weights",
            fix="Give one weight per prompt.",
        )
    prompts = []
    for place, (spec, weight) in enumerate(zip(workload.prompts, weights, strict=True)):
        values = spec.model_dump()
        if spec.dataset:
            values |= {"dataset": str(write_dataset(spec, out_dir / f"prompts-{place}.jsonl")), "kind": "dataset"}
        prompts.append(msgspec.convert(values | {"weight": weight}, Prompts))
    values = load.model_dump(exclude={"workers"})
    if load.trace:
        values["trace"] = str(write_trace(load.trace, out_dir / "trace.jsonl"))
    mixed = "|".join((salt, workload.name, load.label, arm))
    salt = hashlib.blake2b(mixed.encode(), digest_size=6).hexdigest()
    common = Job(
        endpoint=endpoint_for(target, workload),
        prompts=prompts,
        load=msgspec.convert(values, Load),
        out="",
        workload=workload.name,
        warmup_requests=workload.warmup_requests,
        timeout_s=workload.request_timeout_s,
        seed=seed,
        salt=salt,
        arm=arm,
        workers=workers,
        barrier=workers > 1,
        credentials=credentials,
    )
    return [
        msgspec.structs.replace(common, worker=worker, out=str(out_dir / f"{salt}-{worker}.spool"))
        for worker in range(workers)
    ]
