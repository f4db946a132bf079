"""AIPerf 0.13, also as SageMaker's managed benchmark jobs run it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import LoadSpec, WorkloadSpec
from include.loadtest.foreign.base import (
    NS,
    Asked,
    Capabilities,
    ForeignRequest,
    only_prompt,
    requests_of,
    table_of,
    unreadable,
)
from include.loadtest.target import Target

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "profile_export.jsonl"


class AiPerf:
    """One JSON line per request, with every chunk's gap; the credit's time is its nearest to a due time."""

    name = "aiperf"
    capabilities = Capabilities(
        open_loop=True, search=True, multi_turn=True, chunk_times=True, scheduled_times=True,
        arrivals=("constant", "poisson", "gamma"), stddev=True, cap=True, warmup=True,
    )  # fmt: skip

    def argv(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> list[str]:
        """Return the command line."""
        prompt = only_prompt(workload, self.name)
        chat = (target.protocol or workload.protocol) == "openai-chat"
        command = [
            "aiperf", "profile",
            "-m", target.model,
            "--url", target.base_url,
            "--endpoint-type", "chat" if chat else "completions",
            *(["--streaming"] if workload.stream else []),
            "--tokenizer", tokenizer,
            "--request-count", str(requests_of(load)),
            "--isl", str(prompt.input_tokens), "--isl-stddev", str(prompt.input_tokens_stddev),
            "--osl", str(prompt.output_tokens), "--osl-stddev", str(prompt.output_tokens_stddev),
            *(["--warmup-request-count", str(workload.warmup_requests)] if workload.warmup_requests else []),
            "--request-timeout-seconds", str(workload.request_timeout_s),
            "--random-seed", str(workload.seed),
            "--ui", "none",
            "--artifact-dir", str(out),
        ]  # fmt: skip
        if load.mode == "closed":
            return [*command, "--concurrency", str(load.concurrency)]
        shape = ["--arrival-pattern", load.arrivals]
        shape += ["--arrival-smoothness", str(load.burstiness)] if load.arrivals == "gamma" else []
        shape += ["--concurrency", str(load.concurrency)] if load.concurrency else []
        return [*command, "--request-rate", str(load.rate), *shape]

    def collect(self, out: Path, asked: Asked | None = None) -> pa.Table:
        """Return the records in ``profile_export.jsonl`` below ``out``."""
        path = out
        if out.is_dir():
            path = next(iter(sorted(out.rglob(FILE))), out / FILE)
        try:
            lines = [json.loads(line) for line in path.read_bytes().splitlines() if line.strip()]
            requests = [_request(line) for line in lines if line["metadata"]["benchmark_phase"] == "profiling"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(self.name, path, error) from error
        return table_of(self, "", requests, asked)


def _request(line: dict[str, Any]) -> ForeignRequest:
    meta, metrics = line["metadata"], line.get("metrics") or {}
    error = line.get("error")

    def value(name: str) -> Any:
        return metrics[name]["value"] if name in metrics else None

    sent = meta["request_start_ns"] / NS
    ttft, gaps = value("time_to_first_token"), value("inter_chunk_latency") or ()
    cancelled = bool(meta.get("was_cancelled"))
    return ForeignRequest(
        request_id=str(meta.get("x_request_id") or meta["session_num"]),
        sent=sent,
        scheduled=meta["credit_issued_ns"] / NS if meta.get("credit_issued_ns") else None,
        first=None if error or ttft is None else sent + ttft / 1e3,
        gaps=() if error else [gap / 1e3 for gap in gaps],
        end=meta["request_end_ns"] / NS,
        input_tokens=value("usage_prompt_tokens") or value("input_sequence_length"),
        output_tokens=value("usage_completion_tokens") or value("output_sequence_length"),
        error=str((error or {}).get("message") or error or ("cancelled" if cancelled else "")),
        error_class=f"http_{error['code']}" if error and error.get("code") else "",
    )
