"""vLLM's ``bench serve``: runs from the server's own image."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import LoadSpec, WorkloadSpec
from include.loadtest.foreign.base import (
    Asked,
    Capabilities,
    ForeignRequest,
    only_prompt,
    requests_of,
    table_of,
    unreadable,
)
from include.loadtest.latencies import latencies
from include.loadtest.records import Records
from include.loadtest.target import Target

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "vllm.json"


class VllmBench:
    """Closed loop by ``--max-concurrency``, open loop by ``--request-rate``; start times are after its own queue.

    Its warm-up repeats the first measured prompt, so none is asked for; one such request it sends in any case.
    """

    name = "vllm-bench"
    capabilities = Capabilities(
        open_loop=True, search=False, multi_turn=False, chunk_times=True, scheduled_times=False,
        arrivals=("poisson", "gamma"), prefix=True, cap=True, unstreamed=False, unrecorded=1,
    )  # fmt: skip

    def argv(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> list[str]:
        """Return the command line."""
        prompt = only_prompt(workload, self.name)
        chat = (target.protocol or workload.protocol) == "openai-chat"
        command = [
            "vllm", "bench", "serve",
            "--backend", "openai-chat" if chat else "openai",
            "--base-url", target.base_url,
            "--endpoint", target.path or ("/v1/chat/completions" if chat else "/v1/completions"),
            "--model", target.model,
            "--tokenizer", tokenizer,
            "--dataset-name", "random",
            "--random-input-len", str(prompt.input_tokens),
            "--random-output-len", str(prompt.output_tokens),
            "--random-prefix-len", str(prompt.prefix_tokens),
            "--ignore-eos",
            "--num-prompts", str(requests_of(load)),
            "--seed", str(workload.seed),
            "--save-result", "--save-detailed",
            "--result-dir", str(out), "--result-filename", FILE,
        ]  # fmt: skip
        if load.mode == "closed":
            return [*command, "--max-concurrency", str(load.concurrency), "--request-rate", "inf"]
        burstiness = load.burstiness if load.arrivals == "gamma" else 1.0
        cap = ["--max-concurrency", str(load.concurrency)] if load.concurrency else []
        return [*command, "--request-rate", str(load.rate), "--burstiness", str(burstiness), *cap]

    def collect(self, out: Path, asked: Asked | None = None) -> pa.Table:
        """Return the records in ``vllm.json``."""
        path = out / FILE if out.is_dir() else out
        try:
            content = json.loads(path.read_bytes())
            requests = list(_requests(content))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(self.name, path, error) from error
        load = {"mode": "closed", "concurrency": content.get("max_concurrency")}
        if content.get("max_concurrency") is None:
            load = {"mode": "open", "rate": content.get("request_rate")}
        return table_of(self, str(content.get("vllm_version", "")), requests, asked, load)


def _requests(content: dict[str, Any]) -> list[ForeignRequest]:
    count = len(content["ttfts"])
    starts = content.get("start_times") or [0.0] * count
    errors = content.get("errors") or [""] * count
    found = []
    for place in range(count):
        sent, gaps = float(starts[place]), [float(gap) for gap in content["itls"][place]]
        failed = bool(errors[place])
        first = None if failed else sent + float(content["ttfts"][place])
        found.append(
            ForeignRequest(
                request_id=str(place),
                sent=sent,
                first=first,
                gaps=() if failed else gaps,
                end=None if first is None else first + sum(gaps),
                input_tokens=content["input_lens"][place],
                output_tokens=content["output_lens"][place],
                error=str(errors[place]).strip().splitlines()[-1] if failed else "",
            )
        )
    return found


def export(records: Records, model: str) -> dict[str, Any]:
    """Return our records in the shape of vLLM's detailed JSON, for what reads that; latencies from the send."""
    import numpy as np

    measured = records.phase("measure")
    found = latencies(measured)
    ok = found.ok
    rows = measured.table.select(["chunk_offsets_ns", "error", "error_class"]).to_pylist()
    tokens_in, tokens_out = measured.column("input_tokens"), measured.column("output_tokens")
    ends, sent = measured.times("end_ns"), measured.times("sent_ns")
    duration = float(np.nanmax(ends) - np.nanmin(sent)) if len(rows) else 0.0
    total_in, total_out = int(np.nansum(tokens_in[ok])), int(np.nansum(tokens_out[ok]))
    return {
        "backend": "hyperpod-loadtest",
        "model_id": model,
        "num_prompts": len(rows),
        "duration": duration,
        "completed": int(ok.sum()),
        "failed": int((~ok).sum()),
        "total_input_tokens": total_in,
        "total_output_tokens": total_out,
        "request_throughput": float(ok.sum()) / duration if duration else 0.0,
        "output_throughput": total_out / duration if duration else 0.0,
        "total_token_throughput": (total_in + total_out) / duration if duration else 0.0,
        "input_lens": np.nan_to_num(tokens_in).astype(int).tolist(),
        "output_lens": np.nan_to_num(tokens_out).astype(int).tolist(),
        "ttfts": (np.nan_to_num(found.ttft_sent) / 1e3).tolist(),
        "itls": [(np.diff(row["chunk_offsets_ns"]) / 1e9).tolist() for row in rows],
        "start_times": np.nan_to_num(sent).tolist(),
        "errors": [row["error"] or row["error_class"] for row in rows],
    }
