"""inference-perf 0.7 (Python 3.12 or later): driven by a configuration file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import JsonObject, LoadSpec, WorkloadSpec
from include.loadtest.foreign.base import (
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

FILE = "per_request_lifecycle_metrics.json"
CONFIG = "inference-perf.json"


class InferencePerf:
    """Its due times are not in the per-request output; its random data needs the completions API.

    What it calls constant are random gaps, so that is not offered.
    """

    name = "inference-perf"
    capabilities = Capabilities(
        open_loop=True, search=False, multi_turn=True, chunk_times=True, scheduled_times=False,
        protocols=("openai-completions",), arrivals=("poisson",), stddev=True, whole_seconds=True,
    )  # fmt: skip

    def argv(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> list[str]:
        """Return the command line; its configuration is written below ``out``."""
        out.mkdir(parents=True, exist_ok=True)
        path = out / CONFIG
        path.write_text(json.dumps(self.config(target, workload, load, out, tokenizer), indent=1))
        return ["inference-perf", "--config_file", str(path)]

    def config(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> JsonObject:
        """Return the configuration."""
        prompt = only_prompt(workload, self.name)
        count = requests_of(load)
        if load.mode == "closed":
            level: JsonObject = {"num_requests": count, "concurrency_level": load.concurrency}
            shape: JsonObject = {"type": "concurrent", "stages": [level]}
        else:
            level = {"rate": load.rate, "duration": max(1, round(count / (load.rate or 1)))}
            shape = {"type": "poisson", "stages": [level]}
        # Left alone it sends at most 100 requests at once from each process, and queues the rest unseen.
        streams = load.concurrency if load.mode == "closed" and load.concurrency else count
        workers = min(len(os.sched_getaffinity(0)), streams)
        shape |= {"num_workers": workers, "worker_max_concurrency": math.ceil(streams / workers)}
        shape |= {"worker_max_tcp_connections": max(2500, streams), "base_seed": workload.seed}
        shape |= {"request_timeout": workload.request_timeout_s}
        lengths = {
            "input_distribution": _lengths(prompt.input_tokens, prompt.input_tokens_stddev, count),
            "output_distribution": _lengths(prompt.output_tokens, prompt.output_tokens_stddev, count),
        }
        return {
            "api": {"type": "completion", "streaming": workload.stream},
            "server": {"type": "vllm", "model_name": target.model, "base_url": target.base_url, "ignore_eos": True},
            "tokenizer": {"pretrained_model_name_or_path": tokenizer},
            "data": {"type": "random", **lengths},
            "load": shape,
            "report": {"request_lifecycle": {"summary": True, "per_stage": True, "per_request": True}},
            "storage": {"local_storage": {"path": str(out)}},
        }

    def collect(self, out: Path, asked: Asked | None = None) -> pa.Table:
        """Return the records in ``per_request_lifecycle_metrics.json`` below ``out``."""
        path = next(iter(sorted(out.rglob(FILE))), out / FILE) if out.is_dir() else out
        try:
            content = json.loads(path.read_bytes())
            requests = [_request(place, entry) for place, entry in enumerate(content)]
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(self.name, path, error) from error
        return table_of(self, "", requests, asked)


def _lengths(mean: int, stddev: float, count: int) -> JsonObject:
    """Return a distribution of lengths, cut where ours is: between 1 and four times the mean."""
    least, most = (1, 4 * mean) if stddev else (mean, mean)
    return {"min": least, "max": most, "mean": mean, "std_dev": stddev, "total_count": count}


def _request(place: int, entry: dict[str, Any]) -> ForeignRequest:
    info = entry.get("info") or {}
    answer = info.get("response_metrics") or {}
    times: Sequence[float] = answer.get("chunk_times") or answer.get("output_token_times") or ()
    error = entry.get("error")
    usage = answer.get("server_usage") or {}
    text = ((info.get("request_metrics") or {}).get("text")) or {}
    return ForeignRequest(
        request_id=str(place),
        sent=float(entry["start_time"]),
        first=None if error or not times else float(times[0]),
        gaps=() if error else [b - a for a, b in pairwise(times)],
        end=float(entry["end_time"]),
        input_tokens=usage.get("prompt_tokens") or text.get("input_tokens"),
        output_tokens=usage.get("completion_tokens") or answer.get("output_tokens"),
        error=str(error.get("error_msg") or error) if error else "",
        error_class=str(error.get("error_type") or "") if error else "",
    )
