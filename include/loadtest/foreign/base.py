"""What all importers share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from include.catalog.specs import JsonObject, LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError, IntegrityError
from include.loadtest.records import Shard, shard_table
from include.loadtest.spool import Row
from include.loadtest.target import Target

if TYPE_CHECKING:
    import pyarrow as pa

NS = 1_000_000_000


class Capabilities(msgspec.Struct, frozen=True, kw_only=True):
    """What a tool can do, what of a level we can tell it, and what its output tells.

    :param chunk_times: each chunk's arrival is in the output; without, there is no chunk gap.
    :param scheduled_times: the due time is in the output; without, latencies count from the actual send.
    :param protocols: that it is driven by.
    :param arrivals: patterns of an open loop that it truly has.
    :param stddev: lengths may vary.
    :param prefix: one prefix shared by all requests.
    :param cap: an open loop may limit its requests in flight.
    :param warmup: it sends warm-up requests that are unlike the measured ones.
    :param unstreamed: it can ask for whole answers.
    :param whole_seconds: an open loop lasts whole seconds.
    :param unrecorded: requests that it sends before the first measured one, beside the warm-up, and never reports.
    """

    open_loop: bool
    search: bool
    multi_turn: bool
    chunk_times: bool
    scheduled_times: bool
    protocols: tuple[str, ...] = ("openai-chat", "openai-completions")
    arrivals: tuple[str, ...] = ("constant", "poisson")
    stddev: bool = False
    prefix: bool = False
    cap: bool = False
    warmup: bool = False
    unstreamed: bool = True
    whole_seconds: bool = False
    unrecorded: int = 0


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """The level that a tool was to run, and what was seen of its processes meanwhile.

    :param anchor_ns: Unix − monotonic time on the machine where it ran; 0: not known.
    :param beats: once a second the CPU time of its busiest process, as a generator of ours notes its own.
    """

    workload: WorkloadSpec
    load: LoadSpec
    anchor_ns: int = 0
    beats: tuple[dict[str, Any], ...] = ()


class ForeignEngine(Protocol):
    """One tool."""

    name: str
    capabilities: Capabilities

    def argv(self, target: Target, workload: WorkloadSpec, load: LoadSpec, out: Path, tokenizer: str) -> list[str]:
        """Return the command line; its output goes below ``out``. Secrets are left to the environment."""

    def collect(self, out: Path, asked: Asked | None = None) -> pa.Table:
        """Return the records of a finished run; ``asked`` is not known of one that was brought from elsewhere."""


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


# Unix time passed this second in 2001: smaller times are of a clock that began when the machine did.
_UNIX_S = 1e9


def table_of(
    tool: ForeignEngine,
    version: str,
    requests: Iterable[ForeignRequest],
    asked: Asked | None = None,
    load: JsonObject | None = None,
) -> pa.Table:
    """Return records of a foreign run; what its output does not tell is null.

    :param asked: judged by: streams, rate, number and length of answers that were to be.
    :param load: what the output itself says of the level, used when ``asked`` is not known.
    """
    found = list(requests)
    known = [request.sent for request in found if request.sent]
    monotonic = bool(known) and min(known) < _UNIX_S
    anchor = asked.anchor_ns if asked is not None and monotonic else 0
    length = _asked_output(asked)
    rows = [_row(place, request, min(known, default=1 / NS), length) for place, request in enumerate(found)]
    meta: dict[str, Any] = {
        "tool": tool.name,
        "tool_version": version,
        "anchor_ns": anchor,
        "due_times": tool.capabilities.scheduled_times,
        "job": {"worker": 0, "arm": "cold", "load": load or {}, "prompts": []},
    }
    summary: dict[str, Any] = {"stop": "", "peak_in_flight": peak_in_flight(rows)}
    beats: list[dict[str, Any]] = []
    if asked is not None:
        meta["job"]["load"] = asked.load.model_dump(mode="json")
        meta["job"]["endpoint"] = {"body": asked.workload.protocol, "stream": asked.workload.stream}
        meta["job"]["prompts"] = [prompt.model_dump(mode="json") for prompt in asked.workload.prompts]
        meta["unrecorded"] = tool.capabilities.unrecorded + asked.workload.warmup_requests
        sent = [row.sent for row in rows if row.sent]
        summary |= {"asked_requests": requests_of(asked.load)}
        summary |= {"t0": min(sent, default=0), "stopped_at": max(sent, default=0)}
        beats = [beat | {"at": beat["at"] - anchor} for beat in asked.beats]
    return shard_table(Shard(meta, rows, beats, summary))


def _asked_output(asked: Asked | None) -> int:
    """Tokens that each answer was to have; -1: not known, or not the same for all."""
    if asked is None or len(asked.workload.prompts) != 1 or asked.workload.prompts[0].output_tokens_stddev:
        return -1
    return asked.workload.prompts[0].output_tokens


def peak_in_flight(rows: Iterable[Row]) -> int:
    """Return the most requests that were under way at once; one that ends as another begins counts once."""
    changes = sorted(change for row in rows if row.sent and row.end for change in ((row.sent, 1), (row.end, -1)))
    return max(accumulate(change for _, change in changes), default=0)


def _row(place: int, request: ForeignRequest, begun: float, asked_output: int) -> Row:
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
    failed = bool(request.error or request.error_class)
    # Of some failures a tool tells neither send nor end: they belong to the run all the same.
    scheduled = _ns(request.scheduled) if request.scheduled is not None else sent or _ns(begun)
    end = _ns(request.end) if request.end is not None else last or (max(sent, scheduled) if failed else 0)
    return Row(
        request_id=request.request_id, index=place, phase="measure", session=-1, turn=0, group=-1, prompt=0,
        scheduled=scheduled, ready=0, sent=sent, first_byte=0,
        first_token=marks[0] if marks else 0, last_token=last, end=end, marks=marks.tobytes(),
        input_tokens=_known(request.input_tokens), output_tokens=_known(request.output_tokens), cached_tokens=-1,
        asked_input=-1, asked_output=asked_output, status=0,
        error_class=(request.error_class or "error") if failed else "",
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
        raise _not_for(tool, workload, ["prompts: has other or more kinds than one synthetic one"])
    return workload.prompts[0]


def refuse(tool: str, workload: WorkloadSpec, load: LoadSpec, can: Capabilities) -> None:
    """Refuse a level that the tool would run as another one: what it is not told would change silently.

    :raises ConfigurationError: ``NotForThisEngine`` names each field and its value; ``NeedsRequests``.
    """
    only_prompt(workload, tool)
    problems = [*_workload_problems(workload, can), *_prompt_problems(workload.prompts[0], can)]
    problems += _load_problems(load, can)
    if problems:
        raise _not_for(tool, workload, [f"{problem} of load {load.label}" for problem in problems])
    requests_of(load)


def _not_for(tool: str, workload: WorkloadSpec, problems: Sequence[str]) -> ConfigurationError:
    return ConfigurationError(
        "NotForThisEngine",
        f"{tool} cannot run workload {workload.name} as written: {'; '.join(problems)}",
        fix="Change these fields, or use our own engine for this workload.",
    )


def _workload_problems(workload: WorkloadSpec, can: Capabilities) -> Iterator[str]:
    if workload.protocol not in can.protocols:
        yield f"protocol {workload.protocol}"
    if "warm" in workload.arms:
        yield "arms warm"
    if workload.warmup_requests and not can.warmup:
        yield f"warmup_requests {workload.warmup_requests} (set 0)"
    if not workload.stream and not can.unstreamed:
        yield "stream false"


def _prompt_problems(prompt: PromptSpec, can: Capabilities) -> Iterator[str]:
    if prompt.prefix_tokens and (not can.prefix or prompt.prefix_groups > 1):
        yield f"prefix_tokens {prompt.prefix_tokens} in {prompt.prefix_groups} prefix_groups"
    for name in ("input_tokens_stddev", "output_tokens_stddev"):
        if getattr(prompt, name) and not can.stddev:
            yield f"{name} {getattr(prompt, name):g}"
    if prompt.turns > 1:
        yield f"turns {prompt.turns}"
    if prompt.think_time_s:
        yield f"think_time_s {prompt.think_time_s:g}"
    if prompt.tools:
        yield f"tools {prompt.tools}"


def _load_problems(load: LoadSpec, can: Capabilities) -> Iterator[str]:
    for name in ("stop_error_rate", "ramp_s", "workers"):
        if getattr(load, name) is not None:
            yield f"{name} {getattr(load, name):g}"
    if load.requests is not None and load.duration_s is not None:
        yield f"duration_s {load.duration_s:g} beside requests"
    if load.mode == "closed":
        return
    if not can.open_loop:
        yield "mode open"
    elif load.arrivals not in can.arrivals:
        yield f"arrivals {load.arrivals}"
    if load.concurrency is not None and not can.cap:
        yield f"concurrency {load.concurrency} of an open loop"
    seconds = load.duration_s if load.requests is None else load.requests / (load.rate or 1)
    if can.whole_seconds and seconds and seconds != round(seconds):
        yield f"{seconds:g} seconds (whole ones only)"


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
