"""GuideLLM 0.8: an environment of its own (torch)."""

from __future__ import annotations

import json
from collections.abc import Iterator
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
from include.loadtest.target import Target

if TYPE_CHECKING:
    import pyarrow as pa

FILE = "guidellm.json"


class GuideLlm:
    """Keeps first and last token of a request but not the chunks between."""

    name = "guidellm"
    capabilities = Capabilities(
        open_loop=True, search=True, multi_turn=True, chunk_times=False, scheduled_times=True, stddev=True
    )

    def argv(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> list[str]:
        """Return the command line."""
        prompt = only_prompt(workload, self.name)
        if load.mode == "closed":
            profile = f"kind=concurrent,streams={load.concurrency}"
        else:
            profile = f"kind={load.arrivals},rate={load.rate}"
        chat = (target.protocol or workload.protocol) == "openai-chat"
        backend = (
            f"kind=openai_http,target={target.base_url},model={target.model},stream={str(workload.stream).lower()}"
        )
        backend += f",request_format=/v1/{'chat/' if chat else ''}completions"
        data = f"kind=synthetic_text,prompt_tokens={prompt.input_tokens},output_tokens={prompt.output_tokens}"
        # It refuses a deviation of 0.
        for name in ("input", "output"):
            if stddev := round(getattr(prompt, f"{name}_tokens_stddev")):
                data += f",{'prompt' if name == 'input' else name}_tokens_stdev={stddev}"
        return [
            "guidellm", "run",
            "--backend", backend,
            "--profile", profile,
            "--constraint", f"kind=max_requests,count={requests_of(load)}",
            "--data", data,
            "--seed", f"kind=static,value={workload.seed}",
            "--tokenizer", f"kind=hf_auto,model={tokenizer}",
            "--output", f"kind=json,path={out / FILE}",
        ]  # fmt: skip

    def collect(self, out: Path, asked: Asked | None = None) -> pa.Table:
        """Return the records in ``guidellm.json``."""
        path = out / FILE if out.is_dir() else out
        try:
            content = json.loads(path.read_bytes())
            requests = sorted(_requests(content), key=lambda request: request.sent)
            version = str(content["metadata"].get("guidellm_version", ""))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise unreadable(self.name, path, error) from error
        return table_of(self, version, requests, asked)


def _requests(content: dict[str, Any]) -> Iterator[ForeignRequest]:
    for benchmark in content["benchmarks"]:
        for status in ("successful", "errored", "incomplete"):
            for request in benchmark["requests"][status]:
                yield _request(request, status)


def _request(request: dict[str, Any], status: str) -> ForeignRequest:
    timings = request["info"]["timings"]
    sent = timings.get("request_start") or timings.get("dequeued") or 0.0
    failed = status != "successful"
    first, last = timings.get("first_token_iteration"), timings.get("last_token_iteration")
    chunks = int(timings.get("token_iterations") or 0)
    return ForeignRequest(
        request_id=str(request["request_id"]),
        sent=float(sent),
        scheduled=timings.get("targeted_start") or timings.get("scheduled_at"),
        first=None if failed else first,
        last=None if failed or chunks < 2 else last,
        end=timings.get("request_end"),
        input_tokens=request["input_metrics"].get("total_tokens"),
        output_tokens=request["output_metrics"].get("total_tokens"),
        error=str(request["info"].get("error") or "") if failed else "",
        error_class=status if failed else "",
    )
