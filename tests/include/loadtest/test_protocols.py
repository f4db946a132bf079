"""Every protocol end to end, and what the server received."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.api import Target, load_records
from include.loadtest.planning import endpoint_for
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from tests.include.loadtest.conftest import Run, runner

WORKLOAD = WorkloadSpec(name="w", loads=(LoadSpec(mode="closed", concurrency=1, requests=1),))
QUICK = Script(ttft_ms=5, itl_ms=1)


@pytest.mark.parametrize(
    ("protocol", "target"),
    [
        ("openai-chat", {}),
        ("openai-completions", {}),
        ("invocations", {}),
        ("invocations", {"body_format": "openai-completions"}),
        ("invocations", {"body_format": "tgi"}),
        ("invocations", {"body_format": "djl"}),
    ],
)
@pytest.mark.parametrize("stream", [True, False])
def test_protocols(server: ReferenceServer, run: Run, protocol: str, target: dict[str, str], stream: bool) -> None:
    server.play(QUICK)
    outcome = run(load={"concurrency": 2, "requests": 6}, protocol=protocol, stream=stream, target_args=target)
    found = outcome.statistics
    assert found.requests_ok == 6, found.failures
    assert found.output_tokens == 48
    assert found.input_tokens == 48
    assert found.ttft_ms.count == (6 if stream else 0)
    assert found.e2e_ms.count == 6


def test_embeddings(server: ReferenceServer, run: Run) -> None:
    server.play(QUICK)
    outcome = run(load={"concurrency": 2, "requests": 10}, protocol="embeddings")
    assert outcome.statistics.requests_ok == 10
    assert outcome.statistics.input_tokens == 80
    assert outcome.validity.valid or "CLIENT_BOUND" in outcome.validity.reasons[0]


@contextmanager
def recorder() -> Iterator[tuple[str, list[tuple[dict[str, str], str, bytes]]]]:
    """A server that keeps requests (headers, path, body) and answers a whole completion."""
    listener = socket.create_server(("127.0.0.1", 0))
    seen: list[tuple[dict[str, str], str, bytes]] = []
    body = b'{"choices":[{"message":{"content":"ok"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
    answer = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    def one(peer: socket.socket) -> None:
        buffer = b""
        with peer:
            while data := peer.recv(65536):
                buffer += data
                while b"\r\n\r\n" in buffer:
                    head, _, rest = buffer.partition(b"\r\n\r\n")
                    lines = head.decode().split("\r\n")
                    headers = dict(line.split(": ", 1) for line in lines[1:])
                    length = int(headers.get("content-length", "0"))
                    if len(rest) < length:
                        break
                    buffer = rest[length:]
                    path = lines[0].split(" ")[1]
                    if path.endswith("/tokenize"):
                        peer.sendall(b"HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n")
                        continue
                    seen.append((headers, path, rest[:length]))
                    peer.sendall(answer)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}", seen
    listener.close()


def test_sagemaker_requests_carry_a_signature_that_botocore_agrees_with(tmp_path: Path) -> None:
    import boto3
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    session = boto3.Session(
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="token",
        region_name="us-west-2",
    )
    with recorder() as (url, seen):
        target = {"endpoint_name": "my-endpoint", "region": "us-west-2"}
        run = runner(url, tmp_path, **target)
        outcome = run(
            load={"concurrency": 1, "requests": 3}, protocol="sagemaker", stream=False, run_args={"session": session}
        )
    assert outcome.statistics.requests_ok == 3, outcome.statistics.failures
    for headers, path, body in seen:
        assert path == "/endpoints/my-endpoint/invocations"
        request = AWSRequest("POST", url + path, data=body, headers={"content-type": "application/json"})
        request.context["timestamp"] = headers["X-Amz-Date"]
        signer = SigV4Auth(Credentials("AKIDEXAMPLE", "secret", "token"), "sagemaker", "us-west-2")
        request.headers["X-Amz-Date"] = headers["X-Amz-Date"]
        request.headers["X-Amz-Security-Token"] = "token"
        canonical = signer.canonical_request(request)
        expected = signer.signature(signer.string_to_sign(request, canonical), request)
        assert headers["Authorization"].endswith(f"Signature={expected}")
    everything = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    assert b"secret" not in everything
    assert b"AKIDEXAMPLE" not in everything


def test_sagemaker_response_stream(server: ReferenceServer, tmp_path: Path) -> None:
    import boto3

    server.play(QUICK)
    session = boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-west-2")
    for body_format in ("openai-chat", "djl", "tgi"):
        run = runner(server.url, tmp_path, endpoint_name="e", region="us-west-2", body_format=body_format)
        outcome = run(load={"concurrency": 2, "requests": 6}, protocol="sagemaker", run_args={"session": session})
        assert outcome.statistics.requests_ok == 6, (body_format, outcome.statistics.failures)
        assert outcome.statistics.ttft_ms.count == 6


def test_sagemaker_without_a_region_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="region"):
        runner("http://127.0.0.1:1", tmp_path, endpoint_name="e")(
            load={"concurrency": 1, "requests": 1}, protocol="sagemaker", run_args={"session": _session()}
        )


def _session() -> Any:
    import boto3

    return boto3.Session(aws_access_key_id="a", aws_secret_access_key="b", region_name="us-west-2")


def test_headers_reach_the_server_and_no_file(tmp_path: Path) -> None:
    with recorder() as (url, seen):
        outcome = runner(url, tmp_path, headers={"Authorization": "Bearer sesame"})(
            load={"concurrency": 1, "requests": 2}, stream=False
        )
    assert outcome.statistics.requests_ok == 2
    assert all(headers["authorization"] == "Bearer sesame" for headers, _, _ in seen)
    assert b"sesame" not in b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def bodies(seen: list[tuple[dict[str, str], str, bytes]]) -> list[dict[str, Any]]:
    return [json.loads(body) for _, _, body in seen]


def test_cold_prompts_share_no_beginning_with_each_other_or_another_run(tmp_path: Path) -> None:
    with recorder() as (url, seen):
        go = runner(url, tmp_path)
        for salt in ("one", "two"):
            go(load={"concurrency": 1, "requests": 20}, prompt={"input_tokens": 40}, stream=False, salt=salt)
    texts = [body["messages"][0]["content"] for body in bodies(seen)]
    assert {len(text.split()) for text in texts} == {40}
    assert len({tuple(text.split()[:7]) for text in texts}) == 40
    # The others follow a blank, where the tokenizer was asked about them.
    assert {text.split()[0] for text in texts} == {"the"}


def test_the_same_salt_and_seed_repeat_every_prompt(tmp_path: Path) -> None:
    with recorder() as (url, seen):
        go = runner(url, tmp_path)
        for _ in range(2):
            go(load={"concurrency": 1, "requests": 5}, prompt={"input_tokens_stddev": 3}, stream=False, salt="x")
    assert bodies(seen)[:5] == bodies(seen)[5:]


def test_a_shared_prefix_is_shared_within_its_group_and_salted_by_run(tmp_path: Path) -> None:
    prompt = {"kind": "shared-prefix", "prefix_tokens": 50, "prefix_groups": 3}
    with recorder() as (url, seen):
        go = runner(url, tmp_path)
        for salt in ("one", "two"):
            go(load={"concurrency": 1, "requests": 30}, prompt=prompt, stream=False, salt=salt)
    for part in (bodies(seen)[:30], bodies(seen)[30:]):
        assert len({body["messages"][0]["content"] for body in part}) == 3
        assert len({body["messages"][1]["content"] for body in part}) == 30
    first = {body["messages"][0]["content"] for body in bodies(seen)[:30]}
    assert not first & {body["messages"][0]["content"] for body in bodies(seen)[30:]}


def test_the_warm_arm_sends_each_prompt_before_it_is_measured(tmp_path: Path) -> None:
    with recorder() as (url, seen):
        outcome = runner(url, tmp_path)(load={"concurrency": 1, "requests": 40}, stream=False, arm="warm")
    texts = [json.dumps(body["messages"]) for body in bodies(seen)]
    assert len(texts) == 56
    assert set(texts[16:]) == set(texts[:16])
    records = load_records(outcome.requests_path)
    assert records.phase("prime").table.num_rows == 16
    assert outcome.statistics.requests_ok == 40
    assert set(records.table["arm"].to_pylist()) == {"warm"}


def test_each_turn_carries_what_was_said_before(tmp_path: Path) -> None:
    prompt = {"kind": "multi-turn", "turns": 3, "think_time_s": 0.05}
    with recorder() as (url, seen):
        outcome = runner(url, tmp_path)(load={"concurrency": 1, "requests": 6}, prompt=prompt, stream=False)
    roles = [[message["role"] for message in body["messages"]] for body in bodies(seen)]
    one, two, three = ["user"], ["user", "assistant", "user"], ["user", "assistant", "user", "assistant", "user"]
    assert roles == [one, two, three] * 2
    assert bodies(seen)[2]["messages"][1]["content"] == "ok"
    records = load_records(outcome.requests_path).phase("measure")
    assert records.table["turn"].to_pylist() == [0, 1, 2] * 2
    assert len(set(records.table["session"].to_pylist())) == 2
    assert len(set(records.table["request_id"].to_pylist())) == 6
    pauses = records.times("scheduled_ns")[1:3] - records.times("end_ns")[0:2]
    assert pauses == pytest.approx(0.05, abs=1e-4)


def test_an_agents_turns_answer_a_tool_call(tmp_path: Path) -> None:
    prompt = {"kind": "multi-turn", "turns": 2, "followup_role": "tool", "tools": 3, "followup_tokens": 20}
    with recorder() as (url, seen):
        runner(url, tmp_path)(load={"concurrency": 1, "requests": 2}, prompt=prompt, stream=False)
    first, second = bodies(seen)
    assert len(first["tools"]) == 3
    call, result = second["messages"][1], second["messages"][2]
    assert result["role"] == "tool"
    assert result["tool_call_id"] == call["tool_calls"][0]["id"]
    assert len(result["content"].split()) == 20


def test_exact_lengths_are_proven_by_the_servers_tokenizer_or_not_claimed(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=2, itl_ms=1, tokenizer=True))
    known = run(load={"concurrency": 1, "requests": 6}, prompt={"input_tokens": 100})
    assert known.extension["generators"][0]["prompt_lengths"]["exact"] is True
    assert known.statistics.input_tokens == 600
    server.play(QUICK)
    unknown = run(load={"concurrency": 1, "requests": 6})
    lengths = unknown.extension["generators"][0]["prompt_lengths"]
    assert lengths["exact"] is False
    assert lengths["source"] == "none"


@pytest.mark.parametrize(
    ("load", "words"),
    [
        ({"mode": "closed", "requests": 3}, "concurrency"),
        ({"mode": "open", "requests": 3}, "rate"),
        ({"mode": "open", "rate": 3.0}, "bounds"),
        ({"mode": "open", "arrivals": "replay"}, "trace"),
        ({"concurrency": 2, "requests": 30, "workers": 3}, "workers 3 are more than its concurrency 2"),
        ({"mode": "open", "arrivals": "ramp", "rate": 1.0, "requests": 3}, "end_rate"),
    ],
)
def test_a_load_that_cannot_be_run_is_refused(tmp_path: Path, load: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigurationError, match=words):
        runner("http://127.0.0.1:1", tmp_path)(load=load)


def test_the_same_salt_in_another_workload_level_or_arm_shares_nothing(tmp_path: Path) -> None:
    with recorder() as (url, seen):
        go = runner(url, tmp_path)
        for changes in ({}, {"name": "other"}, {"arm": "warm"}, {"load": {"concurrency": 2, "requests": 5}}):
            given: dict[str, Any] = {"load": {"concurrency": 1, "requests": 5}, "salt": "a/b:c", **changes}
            go(stream=False, prompt={"input_tokens": 12}, **given)
    starts = [tuple(body["messages"][0]["content"].split()[:7]) for body in bodies(seen)]
    assert len(starts) == 15 + 16 + 5
    assert len(set(starts)) == 15 + 16


@pytest.mark.parametrize(
    ("url", "protocol", "path", "tokenize"),
    [
        ("http://h", "openai-chat", "/v1/chat/completions", "/tokenize"),
        ("http://h/v1", "openai-chat", "/v1/chat/completions", "/tokenize"),
        ("http://h/v1/", "openai-completions", "/v1/completions", "/tokenize"),
        ("https://h:8443/team/v1", "embeddings", "/team/v1/embeddings", "/team/tokenize"),
        ("http://h/team", "openai-chat", "/team/v1/chat/completions", "/team/tokenize"),
        ("http://h/v1", "invocations", "/v1/invocations", "/tokenize"),
    ],
)
def test_a_base_url_may_end_as_openais_client_has_it(url: str, protocol: str, path: str, tokenize: str) -> None:
    found = endpoint_for(Target(base_url=url, protocol=protocol), WORKLOAD)  # type: ignore[arg-type]
    assert (found.path, found.tokenize_path) == (path, tokenize)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("http://user:sesame@h:80", "the URL of h carries a user name or password"),
        ("http://h/?key=sesame", "base URL of h ends with a query"),
        ("http://h/#x", "ends with a fragment"),
        ("http://h:http", "'http://h:http'"),
        ("http://h:99999", "'http://h:99999'"),
        ("http://[::1", r"'http://\[::1'"),
    ],
)
def test_what_a_url_says_in_vain_is_refused(url: str, words: str) -> None:
    with pytest.raises(ConfigurationError, match=words) as caught:
        endpoint_for(Target(base_url=url), WORKLOAD)
    assert "sesame" not in str(caught.value)


def test_a_bracketed_address_is_a_host_without_brackets() -> None:
    found = endpoint_for(Target(base_url="https://[::1]:8443"), WORKLOAD)
    assert (found.host, found.port, found.host_header) == ("::1", 8443, "[::1]:8443")


def test_a_data_set_that_is_not_named_is_refused_when_it_is_read() -> None:
    with pytest.raises(ValueError, match="kind dataset needs dataset"):
        PromptSpec(kind="dataset")
