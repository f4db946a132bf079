"""What goes wrong on the server is told apart, counted, and never hangs the engine."""

from __future__ import annotations

import socket
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from include.errors import PipelineError
from include.loadtest.api import load_records
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Fault, Script
from tests.include.loadtest.conftest import Run, runner

FAST = {"ttft_ms": 5.0, "itl_ms": 1.0}


@pytest.mark.parametrize(
    ("fault", "error_class"),
    [
        (Fault(kind="http", status=500, every=4), "http_500"),
        (Fault(kind="http", status=429, every=4), "http_429"),
        (Fault(kind="http", status=503, every=4), "http_503"),
        (Fault(kind="cut", at=3, every=4), "cut"),
        (Fault(kind="error_event", at=3, every=4), "stream_error"),
        (Fault(kind="no_done", every=4), "truncated"),
        (Fault(kind="garbage", at=3, every=4), "bad_event"),
        (Fault(kind="finish", reason="error", every=4), "finish_error"),
        (Fault(kind="finish", reason="abort", every=4), "finish_abort"),
    ],
)
def test_each_fault_has_its_own_class(server: ReferenceServer, run: Run, fault: Fault, error_class: str) -> None:
    server.play(Script(**FAST, faults=[fault]))
    outcome = run(load={"concurrency": 2, "requests": 20})
    assert outcome.statistics.requests_ok == 15
    assert outcome.statistics.failures == {error_class: 5}
    assert any(reason.startswith("ERRORS: 5 of 20") for reason in outcome.validity.reasons)
    assert not outcome.validity.valid


def test_a_request_that_is_never_answered_times_out_and_the_others_go_on(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="hang", every=5)]))
    outcome = run(load={"concurrency": 2, "requests": 10}, request_timeout_s=0.5)
    assert outcome.statistics.failures == {"timeout": 2}
    assert outcome.statistics.requests_ok == 8


def test_a_slow_reader_shows_in_the_latency_only(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="slow_reader", ms=150)]))
    outcome = run(load={"concurrency": 1, "requests": 3})
    assert outcome.statistics.requests_ok == 3
    assert outcome.statistics.ttft_ms.mean is not None
    assert outcome.statistics.ttft_ms.mean >= 150


def test_an_upload_that_nobody_reads_backs_up_and_holds_no_other_stream_up(server: ReferenceServer) -> None:
    """The second request's body is left unread for ten minutes: it fills the sockets, the others are answered."""
    server.play(Script(**FAST, faults=[Fault(kind="slow_reader", ms=600_000, every=1000, offset=1)]))
    small = b'{"stream":true,"max_tokens":4,"messages":[]}'
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n"

    def upload(peer: socket.socket) -> None:
        peer.settimeout(1)
        for _ in range(100):
            peer.sendall(b" " * 1_000_000)

    def whole(peer: socket.socket) -> bytes:
        peer.sendall(head % len(small) + small)
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += peer.recv(65536)
        return data

    with (
        socket.create_connection(("127.0.0.1", server.port), timeout=20) as other,
        socket.create_connection(("127.0.0.1", server.port)) as large,
    ):
        assert whole(other).count(b" tok") == 4
        large.sendall(head % 100_000_000)
        with pytest.raises(TimeoutError):
            upload(large)
        for _ in range(3):
            assert whole(other).count(b" tok") == 4


def test_a_stall_is_the_gap_before_its_token_and_nothing_else(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="stall", at=3, ms=400)]))
    outcome = run(load={"concurrency": 1, "requests": 4})
    for offsets in load_records(outcome.requests_path).table["chunk_offsets_ns"].to_pylist():
        gaps = [after - before for before, after in pairwise(offsets)]
        assert len(gaps) == 7
        assert gaps.index(max(gaps)) == 2
        assert max(gaps) >= 380e6
    assert outcome.statistics.chunk_gap_ms.max is not None
    assert outcome.statistics.chunk_gap_ms.max >= 380


@pytest.mark.parametrize(
    ("fault", "reasons"),
    [
        (Fault(kind="length", delta=-8, every=20), {"SHORT_OUTPUTS: 2 of 40", "EMPTY_OUTPUTS: 2 of 40"}),
        (Fault(kind="length", delta=-3, every=40), {"SHORT_OUTPUTS: 1 of 40"}),
        (Fault(kind="length", delta=24, every=10), {"LONG_OUTPUTS: 4 of 40"}),
        (Fault(kind="length", delta=1), set()),
        (Fault(kind="whole", every=10), {"NOT_STREAMED: 4 of 40"}),
    ],
)
def test_few_wrong_answers_among_many_right_ones_are_counted(
    server: ReferenceServer, run: Run, fault: Fault, reasons: set[str]
) -> None:
    server.play(Script(**FAST, faults=[fault]))
    outcome = run(load={"concurrency": 4, "requests": 40})
    assert outcome.statistics.requests_ok == 40
    said = {reason.partition(" answers")[0] for reason in outcome.validity.reasons}
    assert {text for text in said if "OUTPUTS" in text or "STREAMED" in text} == reasons


def test_an_unstreamed_answer_that_the_server_gave_up_on_is_a_failure(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="finish", reason="error", every=4)]))
    outcome = run(load={"concurrency": 2, "requests": 20}, stream=False)
    assert outcome.statistics.failures == {"finish_error": 5}


def test_failed_requests_leave_no_latency_behind(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="http", status=500, every=2)]))
    outcome = run(load={"concurrency": 1, "requests": 20})
    assert outcome.statistics.e2e_ms.count <= 10


def test_the_error_stop_ends_a_hopeless_run(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="http", status=503)]))
    outcome = run(load={"concurrency": 2, "duration_s": 30, "stop_error_rate": 0.5})
    assert outcome.statistics.requests_failed < 200
    assert any(reason.startswith("STOPPED") for reason in outcome.validity.reasons)


def test_a_failed_warm_up_is_an_error_with_the_servers_words(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="http", status=503)]))
    with pytest.raises(PipelineError) as caught:
        run(load={"concurrency": 1, "requests": 5}, warmup_requests=2)
    assert caught.value.reason == "WarmupFailed"
    assert "planted 503" in "".join(caught.value.evidence)
    assert caught.value.retryable


def test_nobody_listening_is_recorded_and_does_not_spin(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        outcome = runner(url, tmp_path)(load={"concurrency": 1, "duration_s": 0.5})
    assert set(outcome.statistics.failures) == {"connect"}
    assert outcome.statistics.requests_failed <= 10


def test_an_unknown_host_is_named(tmp_path: Path) -> None:
    with pytest.raises(PipelineError, match=r"no-such-host\.invalid") as caught:
        runner("http://no-such-host.invalid:1", tmp_path)(load={"concurrency": 1, "requests": 1})
    assert caught.value.reason == "UnknownHost"


def test_usage_that_contradicts_the_chunks_is_flagged(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="wrong_usage", delta=-3)]))
    outcome = run(load={"concurrency": 1, "requests": 10})
    assert any(reason.startswith("WRONG_USAGE: 10 answers") for reason in outcome.validity.reasons)


def test_usage_that_contradicts_the_tokenizer_is_flagged(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, tokenizer=True, per_chunk=4, faults=[Fault(kind="wrong_usage", delta=4)]))
    outcome = run(load={"concurrency": 1, "requests": 10})
    assert any(reason.startswith("WRONG_USAGE: usage differs") for reason in outcome.validity.reasons)


def test_answers_without_usage_have_no_token_count(server: ReferenceServer, run: Run) -> None:
    server.play(Script(**FAST, faults=[Fault(kind="no_usage")]))
    outcome = run(load={"concurrency": 1, "requests": 10})
    assert outcome.statistics.output_tokens == 0
    assert outcome.statistics.tpot_ms.count == 0
    assert outcome.statistics.chunk_gap_ms.count > 0
    assert any(reason.startswith("NO_TOKEN_COUNT") for reason in outcome.validity.reasons)


def test_answers_shorter_than_asked_are_flagged(tmp_path: Path, server: ReferenceServer) -> None:
    server.play(Script(**FAST))
    outcome = runner(server.url, tmp_path)(load={"concurrency": 1, "requests": 10}, prompt={"output_tokens": 8})
    assert not [reason for reason in outcome.validity.reasons if "SHORT" in reason]
    records = load_records(outcome.requests_path)
    import pyarrow as pa

    doubled = records.table.set_column(
        records.table.column_names.index("asked_output"),
        "asked_output",
        pa.array([16] * records.table.num_rows, pa.int32()),
    )
    records.table = doubled
    from include.loadtest.api import judge

    assert any(reason.startswith("SHORT_OUTPUTS: 50.0%") for reason in judge(records).reasons)


def test_an_idle_connection_closed_by_the_server_is_replaced_not_failed(tmp_path: Path) -> None:
    """A server that closes each connection after its answer: every request needs a new one, none fails."""
    body = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            if peer.recv(65536):
                peer.sendall(head + body)
            peer.close()

    threading.Thread(target=serve, daemon=True).start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    outcome = runner(url, tmp_path)(load={"concurrency": 1, "requests": 6}, stream=False, prompt={"output_tokens": 1})
    listener.close()
    assert outcome.statistics.requests_ok == 6, outcome.statistics.failures
