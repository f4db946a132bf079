"""Other tools' runs are judged by what was asked of them, and asked for nothing that they would change silently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.catalog.specs import ClusterSpec, LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.api import judge, summarise
from include.loadtest.foreign.base import Asked, ForeignRequest, table_of
from include.loadtest.foreign.inference_perf import InferencePerf
from include.loadtest.foreign.registry import ENGINES, engine
from include.loadtest.foreign.watch import Watch, cpu_seconds
from include.loadtest.place import places
from include.loadtest.records import load, write_parquet
from include.loadtest.target import Target
from include.results.schema import Statistics

UNIX = 1_795_434_900.0
CLOSED: dict[str, Any] = {"mode": "closed", "concurrency": 8, "requests": 64}
OPEN: dict[str, Any] = {"mode": "open", "rate": 10, "arrivals": "poisson", "requests": 400}


def asked_of(level: dict[str, Any], **changes: Any) -> Asked:
    spec = LoadSpec.model_validate(level)
    prompts = (PromptSpec(input_tokens=8, output_tokens=16),)
    workload = WorkloadSpec(name="w", prompts=prompts, loads=(spec,), warmup_requests=0)
    return Asked(workload=workload, load=spec, **changes)


def request(place: int, sent: float, seconds: float = 1.0, tokens: int = 16, **changes: Any) -> ForeignRequest:
    given: dict[str, Any] = {"request_id": str(place), "sent": sent, "scheduled": sent, "first": sent + 0.1}
    given |= {"gaps": [0.01] * 15, "end": sent + seconds, "input_tokens": 8, "output_tokens": tokens}
    return ForeignRequest(**(given | changes))


def waves(streams: int, requests: int) -> list[ForeignRequest]:
    """A closed loop of so many streams: each wave of one second follows the one before."""
    return [request(place, UNIX + place // streams) for place in range(requests)]


def reasons(tool: str, found: list[ForeignRequest], asked: Asked, tmp_path: Path, **more: Any) -> list[str]:
    path = write_parquet(table_of(engine(tool), "1", found, asked), tmp_path / "f.parquet")
    return [reason.partition(":")[0] for reason in judge(load(path), **more).reasons]


@pytest.mark.parametrize("tool", sorted(ENGINES))
def test_a_closed_loop_is_judged_by_the_streams_that_were_reached(tool: str, tmp_path: Path) -> None:
    assert reasons(tool, waves(8, 64), asked_of(CLOSED), tmp_path) == []
    assert reasons(tool, waves(5, 64), asked_of(CLOSED), tmp_path) == ["LOAD_NOT_DELIVERED"]


@pytest.mark.parametrize("tool", sorted(ENGINES))
def test_an_open_loop_is_judged_by_the_rate_that_was_asked_for(tool: str, tmp_path: Path) -> None:
    """A tool that shifts its due times with its delays is found out by the clock."""
    even = [request(place, UNIX + place / 10) for place in range(400)]
    assert reasons(tool, even, asked_of(OPEN), tmp_path) == []
    slow = [request(place, UNIX + place / 7) for place in range(400)]
    assert reasons(tool, slow, asked_of(OPEN), tmp_path) == ["LOAD_NOT_DELIVERED"]


def test_random_arrivals_may_miss_the_rate_by_chance_and_constant_ones_may_not(tmp_path: Path) -> None:
    slower = [request(place, UNIX + place / 9.5) for place in range(400)]
    assert reasons("aiperf", slower, asked_of(OPEN), tmp_path) == []
    assert reasons("aiperf", slower, asked_of(OPEN | {"arrivals": "constant"}), tmp_path) == ["LOAD_NOT_DELIVERED"]


def test_requests_that_were_never_made_are_missed(tmp_path: Path) -> None:
    assert reasons("guidellm", waves(8, 56), asked_of(CLOSED), tmp_path) == ["LOAD_NOT_DELIVERED"]


@pytest.mark.parametrize(("tokens", "code"), [(8, "SHORT_OUTPUTS"), (32, "LONG_OUTPUTS"), (0, "SHORT_OUTPUTS")])
def test_the_length_of_answers_is_judged(tokens: int, code: str, tmp_path: Path) -> None:
    found = [request(place, one.sent, tokens=tokens) for place, one in enumerate(waves(8, 64))]
    assert code in reasons("aiperf", found, asked_of(CLOSED), tmp_path)


def test_a_process_of_the_tool_that_fills_its_core_makes_the_client_the_limit(tmp_path: Path) -> None:
    def beats(share: float) -> tuple[dict[str, Any], ...]:
        """Of each second from two before the load to its end: the start-up, as busy as can be, is not the load."""
        rest = {"wait_ns": -1, "rss_kib": 0, "late_us": b""}
        busy = [0.0, 1.0, *(1.0 + share * n for n in range(1, 9))]
        return tuple({"at": round((UNIX - 2 + n) * 1e9), "cpu_ns": round(s * 1e9)} | rest for n, s in enumerate(busy))

    assert reasons("aiperf", waves(8, 64), asked_of(CLOSED, beats=beats(0.5)), tmp_path) == []
    assert reasons("aiperf", waves(8, 64), asked_of(CLOSED, beats=beats(0.97)), tmp_path) == ["CLIENT_BOUND"]


def test_late_sends_count_where_the_tool_tells_its_due_times_and_are_not_made_up_elsewhere(tmp_path: Path) -> None:
    late = [request(place, one.sent, scheduled=one.sent - 0.5) for place, one in enumerate(waves(8, 64))]
    assert "CLIENT_BOUND" in reasons("guidellm", late, asked_of(CLOSED), tmp_path)
    path = write_parquet(table_of(engine("vllm-bench"), "1", waves(8, 64), asked_of(CLOSED)), tmp_path / "v.parquet")
    assert judge(load(path)).client_lag_ms_p99 is None


def test_requests_of_others_are_found_and_the_tools_own_unreported_ones_are_not_theirs(tmp_path: Path) -> None:
    for count, verdict in ((63, ["CONTAMINATED"]), (64, []), (65, []), (66, ["CONTAMINATED"])):
        asked = asked_of(CLOSED)  # vLLM's bench sends one request of which it says nothing
        assert reasons("vllm-bench", waves(8, 64), asked, tmp_path, server_side_requests=count) == verdict


def test_times_of_a_clock_that_began_with_the_machine_are_told_in_unix_time(tmp_path: Path) -> None:
    anchor = 1_795_000_000_000_000_000
    found = [request(place, 5.0 + place // 8) for place in range(64)]
    table = table_of(engine("vllm-bench"), "1", found, asked_of(CLOSED, anchor_ns=anchor))
    assert load(write_parquet(table, tmp_path / "v.parquet")).origin_ns == anchor + 5_000_000_000


def test_a_vllm_run_with_failures_can_be_read_again(tmp_path: Path) -> None:
    """One failed after its send, one before it had a start time; none has an end in the tool's output."""
    content = {
        "ttfts": [0.1, 0.0, 0.0, 0.1], "itls": [[0.01], [], [], [0.01]], "input_lens": [8] * 4,
        "output_lens": [2, 0, 0, 2], "start_times": [5.0, 5.5, 0.0, 6.0], "errors": ["", "no\nHTTP 500", "refused", ""],
        "max_concurrency": 1,
    }  # fmt: skip
    (tmp_path / "vllm.json").write_text(json.dumps(content))
    path = write_parquet(engine("vllm-bench").collect(tmp_path), tmp_path / "v.parquet")
    found = summarise(path)
    assert Statistics.model_validate_json(found.model_dump_json()) == found
    assert (found.requests_ok, found.requests_failed, found.duration_s) == (2, 2, pytest.approx(1.11))
    assert judge(load(path)).reasons[0].startswith("ERRORS: 2 of 4")


def test_a_run_in_which_nothing_was_answered_can_be_read_again(tmp_path: Path) -> None:
    content = {"ttfts": [0.0], "itls": [[]], "input_lens": [8], "output_lens": [0], "errors": ["refused"]}
    (tmp_path / "vllm.json").write_text(json.dumps(content))
    found = summarise(write_parquet(engine("vllm-bench").collect(tmp_path), tmp_path / "v.parquet"))
    assert Statistics.model_validate_json(found.model_dump_json()) == found
    assert (found.requests_ok, found.requests_failed) == (0, 1)


def test_the_busiest_process_of_a_session_is_noted(tmp_path: Path) -> None:
    import subprocess
    import sys

    spin = "import time\nwhile time.process_time() < 0.3: pass\nprint(flush=True)\ninput()"
    process = subprocess.Popen(
        [sys.executable, "-c", spin], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    with Watch(process.pid) as watch:
        process.stdout.readline()
        assert cpu_seconds(process.pid)[str(process.pid)] >= 0.29
        watch._note()
    process.communicate(b"\n")
    assert watch.beats[-1]["cpu_ns"] > watch.beats[0]["cpu_ns"] == 0


def plan_for(tool: str, level: dict[str, Any], prompt: dict[str, Any], **workload: Any) -> None:
    install: dict[str, Any] = {"venv": "v"}
    if tool == "sagemaker-benchmark":
        install = {"role_arn": "arn:aws:iam::123456789012:role/bench"}
    cluster = {"name": "c", "models_uri": "s3://m/m", "results_uri": "s3://r/r", "load_engines": {tool: install}}
    given: dict[str, Any] = {"name": "w", "engine": tool, "warmup_requests": 0, "prompts": [prompt], "loads": [level]}
    if tool == "inference-perf":
        given["protocol"] = "openai-completions"
    spec = WorkloadSpec.model_validate(given | workload)
    list(places((spec,), ClusterSpec.model_validate(cluster)))


RAMP = OPEN | {"arrivals": "ramp", "end_rate": 20}
GAMMA = OPEN | {"arrivals": "gamma", "burstiness": 0.5}


@pytest.mark.parametrize(
    ("level", "prompt", "workload", "words", "who"),
    [
        (RAMP, {}, {}, "arrivals ramp", ENGINES),
        (GAMMA, {}, {}, "arrivals gamma", ("guidellm", "inference-perf")),
        (OPEN | {"arrivals": "constant"}, {}, {}, "arrivals constant", ("inference-perf", "vllm-bench")),
        (CLOSED, {"prefix_tokens": 9}, {}, "prefix_tokens 9", ("aiperf", "guidellm", "inference-perf")),
        (CLOSED, {"prefix_tokens": 9, "prefix_groups": 2}, {}, "2 prefix_groups", ENGINES),
        (CLOSED, {"input_tokens_stddev": 3}, {}, "input_tokens_stddev 3", ("vllm-bench",)),
        (CLOSED, {"turns": 3}, {}, "turns 3", ENGINES),
        (CLOSED, {"think_time_s": 2}, {}, "think_time_s 2", ENGINES),
        (CLOSED, {"tools": 2}, {}, "tools 2", ENGINES),
        (CLOSED, {}, {"arms": ["cold", "warm"]}, "arms warm", ENGINES),
        (CLOSED, {}, {"warmup_requests": 4}, "warmup_requests 4", ("guidellm", "inference-perf", "vllm-bench")),
        (CLOSED, {}, {"stream": False}, "stream false", ("vllm-bench",)),
        (CLOSED, {}, {"protocol": "openai-chat"}, "protocol openai-chat", ("inference-perf",)),
        (CLOSED, {}, {"protocol": "embeddings"}, "protocol embeddings", (*ENGINES, "sagemaker-benchmark")),
        (OPEN | {"concurrency": 4}, {}, {}, "concurrency 4", ("guidellm", "inference-perf")),
        (OPEN | {"requests": 15}, {}, {}, "1.5 seconds", ("inference-perf",)),
        (CLOSED | {"duration_s": 9}, {}, {}, "duration_s 9 beside requests", ENGINES),
        (CLOSED | {"stop_error_rate": 0.5}, {}, {}, "stop_error_rate 0.5", ENGINES),
        (OPEN, {}, {}, "mode open", ("sagemaker-benchmark",)),
    ],
)
def test_what_a_tool_is_not_told_is_refused_by_field_and_value(
    level: dict[str, Any], prompt: dict[str, Any], workload: dict[str, Any], words: str, who: tuple[str, ...]
) -> None:
    for tool in who:
        with pytest.raises(ConfigurationError, match=words) as caught:
            plan_for(tool, level, prompt, **workload)
        assert caught.value.reason == "NotForThisEngine"
    for tool in set(ENGINES) - set(who):
        plan_for(tool, level, prompt, **workload)


def test_what_is_not_refused_is_told(tmp_path: Path) -> None:
    target = Target(base_url="http://h", model="m")
    prompt = {"input_tokens": 100, "output_tokens": 20, "output_tokens_stddev": 5}
    given = {"name": "w", "prompts": [prompt], "loads": [GAMMA | {"concurrency": 7}], "warmup_requests": 3}
    workload = WorkloadSpec.model_validate(given)
    text = " ".join(engine("aiperf").argv(target, workload, workload.loads[0], tmp_path, "t"))
    for said in ("gamma --arrival-smoothness 0.5", "--concurrency 7", "--osl-stddev 5", "--warmup-request-count 3"):
        assert said in text
    text = " ".join(engine("guidellm").argv(target, workload, LoadSpec.model_validate(CLOSED), tmp_path, "t"))
    assert "output_tokens=20,output_tokens_stdev=5" in text
    text = " ".join(engine("vllm-bench").argv(target, workload, workload.loads[0], tmp_path, "t"))
    assert "--burstiness 0.5 --max-concurrency 7" in text


def test_inference_perf_may_have_as_many_requests_in_flight_as_the_load_has(tmp_path: Path) -> None:
    for level, streams in ((CLOSED | {"concurrency": 1024, "requests": 4096}, 1024), (OPEN, 400)):
        asked = asked_of(level)
        config = InferencePerf().config(Target(base_url="http://h"), asked.workload, asked.load, tmp_path, "t")
        assert config["load"]["num_workers"] * config["load"]["worker_max_concurrency"] >= streams
