"""Connections: names with several addresses, answers that come too early, ways in which an answer may end."""

from __future__ import annotations

import asyncio
import queue
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic_ns, time_ns

import pytest

from include.loadtest.api import load_records
from include.loadtest.engine.clock import NS, Timers
from include.loadtest.engine.dispatch import STALE_ANSWER_NS, Dispatcher
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.prompts import Ask
from include.loadtest.engine.wire import Connection
from include.loadtest.job import Endpoint, Job, Load, Prompts, encode_job
from include.loadtest.records import read_shard
from tests.include.loadtest.conftest import runner
from tests.include.loadtest.test_generator import events_until, start

BODY = b'{"choices":[{"message":{"content":"x"},"finish_reason":"stop"}],"usage":{"completion_tokens":1}}'
HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
WHOLE = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
ONE = {"output_tokens": 1}


@contextmanager
def serving(handle: Callable[[socket.socket], None], *, receive_buffer: int = 0) -> Iterator[str]:
    """A server whose every connection is handled by a thread; the URL."""
    listener = socket.socket()
    if receive_buffer:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)

    def one(peer: socket.socket) -> None:
        with peer:
            handle(peer)

    def accept() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(peer,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()


def head_of(peer: socket.socket) -> tuple[bytes, bytes] | None:
    """Return a request's head and what came of its body."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = peer.recv(65536)
        if not more:
            return None
        data += more
    head, _, rest = data.partition(b"\r\n\r\n")
    return head, rest


def request_of(peer: socket.socket) -> bytes | None:
    """Read one whole request; its head."""
    found = head_of(peer)
    if found is None:
        return None
    head, body = found
    length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
    while len(body) < length:
        body += peer.recv(65536)
    return head


def dispatcher(timers: Timers, addresses: list[str], port: int) -> Dispatcher:
    endpoint = Endpoint(host="both", port=port, host_header="both", path="/v1/x", body="openai-chat", stream=False)

    def render(body: bytes, _request_id: str) -> bytes:
        return b"POST / HTTP/1.1\r\nhost: both\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)

    return Dispatcher(endpoint, addresses, None, timers, render, salt="s", timeout_s=20)


async def answered(addresses: list[str], port: int, requests: int) -> list[Exchange]:
    """Send requests one after the other, each over a new connection."""
    loop = asyncio.get_running_loop()
    timers = Timers(loop)
    sender = dispatcher(timers, addresses, port)
    found: list[Exchange] = []
    for _ in range(requests):
        done: asyncio.Future[Exchange] = loop.create_future()
        sender.finished = done.set_result
        sender.submit(Ask(b"{}"), monotonic_ns(), "measure")
        found.append(await done)
    timers.close()
    return found


def closing(peer: socket.socket) -> None:
    if request_of(peer):
        peer.sendall(HEAD + b"connection: close\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY)


@pytest.mark.parametrize("addresses", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"], ["::1", "127.0.0.1"]])
async def test_an_address_of_the_name_at_which_nobody_listens_fails_no_request(addresses: list[str]) -> None:
    with serving(closing) as url:
        found = await answered(addresses, int(url.rpartition(":")[2]), 8)
    assert [exchange.error for exchange in found] == [""] * 8


async def test_a_name_none_of_whose_addresses_answers_fails_with_the_systems_words() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        found = await answered(["127.0.0.1", "127.0.0.2"], taken.getsockname()[1], 2)
    assert {exchange.error_class for exchange in found} == {"connect"}
    assert all("refused" in exchange.error.lower() or "connect" in exchange.error.lower() for exchange in found)


def test_an_early_refusal_of_a_large_request_leaves_the_next_one_whole(tmp_path: Path) -> None:
    """413 with keep-alive while the upload is under way: no other request may follow on that connection."""
    heads: list[list[bytes]] = []

    def refuse(peer: socket.socket) -> None:
        found = head_of(peer)
        if found is None:
            return
        mine = [found[0]]
        heads.append(mine)
        peer.sendall(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        seen = found[1][-100:]
        try:
            while data := peer.recv(65536):
                seen += data
                mine += [b"POST"] * seen.count(b"POST /v1/chat/completions")
                seen = seen[-24:]
        except ConnectionResetError:
            return

    with serving(refuse, receive_buffer=8192) as url:
        prompt = {"input_tokens": 2_000_000, "output_tokens": 1}
        outcome = runner(url, tmp_path)(
            load={"concurrency": 1, "requests": 3}, prompt=prompt, stream=False, request_timeout_s=20
        )
    assert outcome.statistics.failures == {"http_413": 3}
    # The first connection asked for /tokenize.
    assert [mine for mine in heads if b"chat" in mine[0] and len(mine) > 1] == []
    assert sum(b"chat" in mine[0] for mine in heads) == 3


def chunked(peer: socket.socket) -> None:
    while request_of(peer):
        peer.sendall(
            HEAD + b"transfer-encoding: chunked\r\ntrailer: x-end\r\n\r\n"
            b"%x\r\n%s\r\n0\r\nx-end: 1\r\nx-more: two\r\n\r\n" % (len(BODY), BODY)
        )  # fmt: skip


def test_trailers_after_the_last_chunk_end_the_answer_and_keep_the_connection(tmp_path: Path) -> None:
    with serving(chunked) as url:
        outcome = runner(url, tmp_path)(load={"concurrency": 1, "requests": 5}, prompt=ONE, stream=False)
    assert outcome.statistics.requests_ok == 5, outcome.statistics.failures
    assert load_records(outcome.requests_path).table["reused"].to_pylist() == [False, True, True, True, True]


def test_connection_close_is_obeyed(tmp_path: Path) -> None:
    with serving(closing) as url:
        outcome = runner(url, tmp_path)(load={"concurrency": 2, "requests": 8}, prompt=ONE, stream=False)
    assert outcome.statistics.requests_ok == 8, outcome.statistics.failures
    assert not any(load_records(outcome.requests_path).table["reused"].to_pylist())


@pytest.mark.parametrize(("connect_ns", "stale"), [(0, False), (STALE_ANSWER_NS, True)])
async def test_how_late_the_news_of_a_closed_connection_may_come_depends_on_the_round_trip(
    connect_ns: int, stale: bool
) -> None:
    """80 ms after the send: too late for a server next door, usual for one that is 50 ms away."""
    timers = Timers(asyncio.get_running_loop())
    sender = dispatcher(timers, ["127.0.0.1"], 9)
    connection = Connection(Endpoint(host="h", port=1, path="/", body="openai-chat"), sender)
    connection.connect_ns = connect_ns
    exchange = Exchange(Ask(b""), 1, "measure")
    exchange.reused, exchange.idle_ns, exchange.sent, exchange.end = True, 6 * NS, NS, NS + 80_000_000
    exchange.fail("cut")
    assert sender._is_stale(connection, exchange) is stale
    timers.close()


async def test_connections_that_waited_long_for_the_start_are_replaced_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Pods wait minutes for the last one; servers close what is idle for five seconds, and say so when it is used."""
    accepted: list[socket.socket] = []

    def keep(peer: socket.socket) -> None:
        accepted.append(peer)
        while request_of(peer):
            peer.sendall(WHOLE)

    with serving(keep) as url:
        loop = asyncio.get_running_loop()
        timers = Timers(loop)
        sender = dispatcher(timers, ["127.0.0.1"], int(url.rpartition(":")[2]))
        await sender.open(3)
        young = list(sender._idle)
        await sender.refresh(monotonic_ns() + NS)
        assert sender._idle == young
        for connection in young:
            connection.idle_since -= 6 * NS
        sender._idle[0].close()
        await asyncio.sleep(0)  # the loop tells the connection that it is closed
        await sender.refresh(monotonic_ns())
        assert set(sender._idle) <= set(young)  # the start is now: there is no time
        await sender.refresh(monotonic_ns() + 10 * NS)
        assert len(sender._idle) == 3
        assert not set(sender._idle) & set(young)
        assert all(connection.usable for connection in sender._idle)
        sender.close()
        timers.close()


def test_connections_that_the_server_closed_before_the_start_are_there_again_at_the_start(tmp_path: Path) -> None:
    peers: queue.Queue[socket.socket] = queue.Queue()

    def keep(peer: socket.socket) -> None:
        peers.put(peer)
        while request_of(peer):
            peer.sendall(WHOLE)

    with serving(keep) as url:
        port = int(url.rpartition(":")[2])
        endpoint = Endpoint(
            host="127.0.0.1",
            port=port,
            host_header="h",
            path="/v1/x",
            body="openai-chat",
            stream=False,
            tokenize_path="",
        )
        load = Load(mode="closed", concurrency=3, requests=3, ramp_s=0.0)
        out = tmp_path / "x.spool"
        process = start(
            encode_job(Job(endpoint=endpoint, prompts=[Prompts()], load=load, out=str(out), barrier=True, salt="s"))
        )
        events_until(process, "ready")
        for _ in range(3):
            peers.get(timeout=20).shutdown(socket.SHUT_RDWR)
        assert process.stdin is not None
        process.stdin.write(b"start %d\n" % (time_ns() + 3 * NS))
        process.stdin.flush()
        events_until(process, "finished")
        process.stdin.close()
        assert process.wait(20) == 0
    rows = read_shard(out).rows
    assert [(row.error, row.connect_ns, row.resent) for row in rows] == [("", 0, 0)] * 3
