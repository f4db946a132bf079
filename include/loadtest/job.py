"""The contract between a parent and its load generators: one JSON document, read from standard input.

Light on purpose: a generator sends its first request within half a second of its start, so nothing here (nor in
``include.loadtest.engine``) imports pydantic, numpy or pyarrow.
"""

from __future__ import annotations

import msgspec

HARNESS_VERSION = "1.0"


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where requests go and how they look on the wire.

    :param body: shape of the JSON body: ``openai-chat``, ``openai-completions``, ``tgi``, ``djl``, ``embeddings``.
    :param ignore_eos: ask for exactly the stated number of tokens (vLLM, SGLang, llama.cpp and TGI-like fields).
    """

    host: str
    port: int
    path: str
    body: str
    model: str = ""
    tls: bool = False
    host_header: str = ""
    headers: dict[str, str] = {}
    stream: bool = True
    sagemaker: bool = False
    region: str = ""
    ca_file: str | None = None
    insecure: bool = False
    client_cert_file: str | None = None
    client_key_file: str | None = None
    ignore_eos: bool = True
    tokenize_path: str = "/tokenize"


class Credentials(msgspec.Struct, frozen=True):
    """AWS credentials for request signing; they travel by standard input only."""

    access_key: str
    secret_key: str
    token: str | None = None

    def __repr__(self) -> str:
        return "Credentials(...)"


class Prompts(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of request; lengths in tokens, times in seconds."""

    kind: str = "synthetic"
    weight: float = 1.0
    input_tokens: int = 64
    output_tokens: int = 32
    input_tokens_stddev: float = 0.0
    output_tokens_stddev: float = 0.0
    prefix_tokens: int = 0
    prefix_groups: int = 1
    turns: int = 1
    think_time_s: float = 0.0
    followup_tokens: int | None = None
    followup_role: str = "user"
    tools: int = 0
    dataset: str | None = None


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """One load level; rates per second, times in seconds.

    :param concurrency: closed loop: users. Open loop: cap on requests in flight, ``None``: no cap.
    :param ramp_s: closed loop: the first wave is spread over this time; ``None``: one measured TTFT.
    """

    mode: str
    concurrency: int | None = None
    rate: float | None = None
    arrivals: str = "poisson"
    burstiness: float = 1.0
    end_rate: float | None = None
    trace: str | None = None
    requests: int | None = None
    duration_s: float | None = None
    stop_error_rate: float | None = None
    ramp_s: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """What one load generator does.

    :param salt: part of every prompt: no other run has sent the same text.
    :param arm: ``cold``: every prompt is new to the server; ``warm``: a fixed set, each sent once before t0.
    :param out: spool file of the records.
    :param worker: index of this generator; it takes every ``workers``-th arrival, or its share of the users.
    :param barrier: wait for a line with the start time (Unix ns) on standard input after reporting ready.
    :param start_at_ns: Unix time of t0; ``None``: as soon as ready.
    :param keep_texts: how many answers are kept, to be counted by a tokenizer afterwards.
    """

    endpoint: Endpoint
    prompts: list[Prompts]
    load: Load
    out: str
    workload: str = ""
    warmup_requests: int = 0
    timeout_s: float = 120.0
    seed: int = 7
    salt: str = ""
    arm: str = "cold"
    warm_pool: int = 16
    worker: int = 0
    workers: int = 1
    barrier: bool = False
    start_at_ns: int | None = None
    credentials: Credentials | None = None
    progress_s: float = 1.0
    keep_texts: int = 8


def encode_job(job: Job) -> bytes:
    """Return the job as one line of JSON."""
    return msgspec.json.encode(job) + b"\n"


def decode_job(line: bytes) -> Job:
    """Read a job; raises ``msgspec.ValidationError`` naming the bad field."""
    return msgspec.json.decode(line, type=Job)


def share(total: int, worker: int, workers: int) -> int:
    """Return this worker's part of ``total``; the parts of all workers sum to it."""
    return total // workers + (1 if worker < total % workers else 0)
