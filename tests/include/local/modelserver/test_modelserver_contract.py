"""The model server over HTTP, on real weights: SageMaker's and OpenAI's contracts, streams, losses."""

from __future__ import annotations

import hashlib
import http.client
import json
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from include.local.weights import SMOLLM2
from tests.include.local.modelserver.conftest import Running, start

pytestmark = pytest.mark.local
CHAT = {"messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 4, "temperature": 0}


def until(what: str, check: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def post(server: Running, path: str, body: Any, **options: Any) -> requests.Response:
    return requests.post(f"{server.url}{path}", json=body, timeout=60, **options)


def events(answer: requests.Response) -> list[str]:
    return [line.decode().removeprefix("data:").strip() for line in answer.iter_lines() if line]


def test_ping_says_503_while_loading_then_200(server: Running) -> None:
    assert server.pings[0] == 503
    assert server.pings[-1] == 200


def test_info_proves_which_bytes_are_loaded(server: Running) -> None:
    info = requests.get(f"{server.url}/info", timeout=10).json()
    assert info["files"] == {"model.gguf": SMOLLM2.sha256}
    assert info["served_model_name"] == "smol"
    assert info["args"] == ["--served-model-name", "smol"]
    assert set(info["load_seconds"]) == {"open", "load"}


def test_openai_chat_completion_and_models(server: Running) -> None:
    answer = post(server, "/v1/chat/completions", CHAT).json()
    assert answer["usage"]["completion_tokens"] == 4
    assert answer["choices"][0]["message"]["content"]
    assert requests.get(f"{server.url}/v1/models", timeout=10).json()["data"][0]["id"] == "smol"


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (CHAT, lambda answer: answer["choices"][0]["message"]["content"]),
        ({"prompt": "Hello", "max_tokens": 4}, lambda answer: answer["choices"][0]["text"]),
        ({"inputs": "Hello", "parameters": {"max_new_tokens": 4}}, lambda answer: answer["generated_text"]),
    ],
    ids=["chat", "completion", "inputs"],
)
def test_invocations_takes_every_shape(server: Running, body: Any, text: Callable[[Any], str]) -> None:
    answer = post(server, "/invocations", body)
    assert answer.status_code == 200
    assert text(answer.json())


def test_a_stream_arrives_while_it_is_made(server: Running) -> None:
    body = {**CHAT, "max_tokens": 200, "ignore_eos": True, "stream": True}
    with post(server, "/v1/chat/completions", body, stream=True) as answer:
        lines = answer.iter_lines()
        assert next(lines).startswith(b"data: {")
        assert server.metric("model_concurrent_requests") == 1  # the first event is here, the last is not made
        rest = [line for line in lines if line]
    assert rest[-1] == b"data: [DONE]"
    assert len(rest) > 100


def test_a_streamed_inputs_body_gives_tgi_events(server: Running) -> None:
    body = {"inputs": "Hello", "parameters": {"max_new_tokens": 4, "do_sample": False}, "stream": True}
    found = [json.loads(event) for event in events(post(server, "/invocations", body, stream=True))]
    assert "".join(event["token"]["text"] for event in found) == found[-1]["generated_text"]
    assert found[-1]["details"]["finish_reason"] == "length"


def test_one_connection_carries_many_streams(server: Running) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.connect()
    socket = connection.sock
    for _ in range(8):
        connection.request("POST", "/v1/chat/completions", json.dumps({**CHAT, "max_tokens": 2, "stream": True}))
        answer = connection.getresponse()
        assert answer.read().endswith(b"data: [DONE]\n\n")
        assert connection.sock is socket
    connection.close()


def test_a_client_that_leaves_ends_the_work_for_it(server: Running) -> None:
    cancelled = server.metric("model_cancelled_total")
    body = {"prompt": "Once", "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with post(server, "/v1/completions", body, stream=True) as answer:
        next(answer.iter_lines())
    until("cancelled", lambda: server.metric("model_cancelled_total") == cancelled + 1)
    until("llama.cpp idle", lambda: server.metric("llamacpp:requests_processing") == 0)


def test_counters_count_every_generation_request(server: Running) -> None:
    names = ("model_invocations_total", "model_errors_total", "model_time_to_first_token_seconds_count")
    before = [server.metric(name) for name in names]
    post(server, "/invocations", CHAT)
    post(server, "/invocations", {**CHAT, "model": "other"})
    events(post(server, "/v1/chat/completions", {**CHAT, "stream": True}, stream=True))
    after = [server.metric(name) for name in names]
    assert [now - then for now, then in zip(after, before, strict=True)] == [3, 1, 1]


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"{", 400),
        (b"[1]", 400),
        (b'{"text": "x"}', 400),
        (b'{"inputs": "x", "parameters": 1}', 400),
        (json.dumps({**CHAT, "model": "other"}).encode(), 404),
        (json.dumps({"prompt": "word " * 5000}).encode(), 400),
    ],
    ids=["cut", "list", "unknown", "parameters", "model", "too-long"],
)
def test_bad_requests_are_refused_with_the_reason(server: Running, data: bytes, status: int) -> None:
    answer = requests.post(f"{server.url}/invocations", data=data, timeout=60)
    assert answer.status_code == status
    assert answer.json()["error"]["message"]


def test_the_server_ends_with_its_engine(weights: Path, tmp_path: Path) -> None:
    running = start(weights, tmp_path / "log")
    try:
        running.wait_ready()
        (engine,) = psutil.Process(running.process.pid).children()
        engine.kill()
        assert running.process.wait(timeout=30) == 1
        assert "llama.cpp ended with exit -9" in running.log.read_text()
    finally:
        running.stop()


def test_sigterm_ends_server_and_engine(weights: Path, tmp_path: Path) -> None:
    running = start(weights, tmp_path / "log")
    try:
        running.wait_ready()
        (engine,) = psutil.Process(running.process.pid).children()
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(timeout=30) == 0
        until("engine gone", lambda: not engine.is_running() or engine.status() == psutil.STATUS_ZOMBIE)
    finally:
        running.stop()


def test_corrupt_weights_never_serve(weights: Path, tmp_path: Path) -> None:
    whole = (weights / "model.gguf").read_bytes()
    (tmp_path / "model.gguf").write_bytes(whole[: len(whole) // 2])
    running = start(tmp_path, tmp_path / "log")
    try:
        assert running.process.wait(timeout=60) == 1
        assert "llama.cpp could not load" in running.log.read_text()
    finally:
        running.stop()


@pytest.mark.parametrize("copies", [0, 2])
def test_a_folder_without_exactly_one_model_is_refused(weights: Path, tmp_path: Path, copies: int) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    for number in range(copies):
        shutil.copyfile(weights / "model.gguf", folder / f"{number}.gguf")
    running = start(folder, tmp_path / "log")
    assert running.process.wait(timeout=60) == 1
    assert ".gguf" in running.log.read_text()


def test_vllm_arguments_without_a_meaning_here_are_refused(weights: Path, tmp_path: Path) -> None:
    running = start(weights, tmp_path / "log", "--tensor-parallel-size", "8")
    assert running.process.wait(timeout=60) == 2
    assert "--tensor-parallel-size" in running.log.read_text()


def test_the_pinned_weights_are_the_expected_file() -> None:
    from include.local.weights import smollm2

    assert hashlib.sha256(smollm2().read_bytes()).hexdigest() == SMOLLM2.sha256
