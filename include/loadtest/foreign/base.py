"""What all importers share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError, IntegrityError
from include.loadtest.records import Shard, shard_table
from include.loadtest.spool import Row
from include.loadtest.target import Target

if TYPE_CHECKING:
    import pyarrow as pa

NS = 1_000_000_000


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool can do and what its output tells.

    :param chunk_times: each chunk's arrival is in the output; without, there is no chunk gap.
    :param scheduled_times: the due time is in the output; without, latencies count from the actual send.
    """

    open_loop: bool
    search: bool
    multi_turn: bool
    chunk_times: bool
    scheduled_times: bool


class ForeignEngine(Protocol):
    """One tool."""

    name: str
    capabilities: Capabilities

    def argv(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> list[str]:
        """Return the command line; its output goes below ``out``. Secrets are left to the environment."""

    def collect(self, out: Path) -> pa.Table:
        """Return the records of a finished run."""


class ForeignRequest(msgspec.Struct, kw_only=True):
    """One request as a tool reports it; times in seconds of one clock, ``None``: not told.

    :param gaps: seconds between neighbouring chunks after the first.
    """

    request_id: str
    sent: float
    scheduled: float | None = None
    first: float | None = None
    gaps: Sequence[float] = ()
    end: float | None = None
    input_tokens: int | None = None
    output_tokens: int | None = None
    error: str = ""
    error_class: str = ""
    last: float | None = None


def table_of(tool: str, version: str, requests: Iterable[ForeignRequest], load: dict[str, Any]) -> pa.Table:
    """Return records of a foreign run; what its output does not tell is null."""
    rows = [_row(place, request) for place, request in enumerate(requests)]
    meta = {
        "tool": tool,
        "tool_version": version,
        "anchor_ns": 0,
        "job": {"worker": 0, "arm": "cold", "load": load, "prompts": []},
    }
    return shard_table(Shard(meta, rows, [], {"stop": ""}))


def _row(place: int, request: ForeignRequest) -> Row:
    from array import array

    sent = _ns(request.sent)
    marks = array("q")
    if request.first is not None:
        at = request.first
        marks.append(_ns(at))
        for gap in request.gaps:
            at += gap
            marks.append(_ns(at))
    last = _ns(request.last) if request.last is not None else (marks[-1] if marks else 0)
    end = _ns(request.end) if request.end is not None else last
    failed = bool(request.error or request.error_class)
    return Row(
        request_id=request.request_id, index=place, phase="measure", session=-1, turn=0, group=-1, prompt=0,
        scheduled=_ns(request.scheduled) if request.scheduled is not None else sent, ready=0, sent=sent, first_byte=0,
        first_token=marks[0] if marks else 0, last_token=last, end=end, marks=marks.tobytes(),
        input_tokens=_known(request.input_tokens), output_tokens=_known(request.output_tokens), cached_tokens=-1,
        asked_input=-1, asked_output=-1, status=0, error_class=(request.error_class or "error") if failed else "",
        error=request.error[:200], finish_reason="", bytes_in=0, connect_ns=0, reused=False, resent=0,
    )  # fmt: skip


def _ns(seconds: float) -> int:
    return round(seconds * NS)


def _known(value: int | None) -> int:
    return -1 if value is None else int(value)


def only_prompt(workload: WorkloadSpec, tool: str) -> PromptSpec:
    """Return the workload's prompt kind; the tools are driven with one synthetic kind.

    :raises ConfigurationError: the workload is more than that.
    """
    if len(workload.prompts) != 1 or workload.prompts[0].kind not in ("synthetic", "shared-prefix"):
        raise ConfigurationError(
            "NotForThisEngine",
            f"{tool} is driven with one synthetic prompt kind, workload {workload.name} has other or more",
            fix="Use our own engine for this workload.",
        )
    return workload.prompts[0]


def requests_of(load: LoadSpec) -> int:
    """Return the number of requests of a level: as stated, or rate × duration.

    :raises ConfigurationError: a closed loop bounded by time only.
    """
    if load.requests is not None:
        return load.requests
    if load.rate is not None and load.duration_s is not None:
        return max(1, round(load.rate * load.duration_s))
    raise ConfigurationError(
        "NeedsRequests", f"load {load.label} states no number of requests", fix="Set requests in the load level."
    )


def unreadable(tool: str, path: Path, problem: object) -> IntegrityError:
    """Return the error for output that is not what the tool writes."""
    return IntegrityError(
        "UnreadableOutput", f"{path} is not output of {tool}: {problem}", fix="Check the tool's version and log."
    )
