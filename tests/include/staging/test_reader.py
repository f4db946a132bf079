"""Reader processes over a server that fails as told: what they write is right, what they could not read they say."""

from __future__ import annotations

import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from random import Random
from typing import Any

import psutil
import pytest
from awscrt.checksums import crc64nvme
from hypothesis import given
from hypothesis import strategies as st

from include.local.kube.certificates import server_context
from include.staging import api
from include.staging.context import StagingContext
from include.staging.fetch import fetch
from include.staging.ranges import split
from include.staging.readers import PART, Readers
from include.staging.target import Target
from tests.include.staging.conftest import MODELS_URI, contents, make_model

DATA = Random(3).randbytes(2 * PART + 12345)
Fault = Callable[["Handler", int, bytes], None]
"""Gets the request's handler, how often its range was asked for before, and the range's bytes."""


class Handler(BaseHTTPRequestHandler):
    """Serves ranges of ``DATA``, unless the server's fault for the range does something else."""

    protocol_version = "HTTP/1.1"
    server: RangeServer

    def do_GET(self) -> None:
        begin, end = map(int, re.findall(r"\d+", self.headers["Range"]))
        before = self.server.asked[begin]
        self.server.asked[begin] += 1
        self.server.conditions.add(self.headers["If-Match"])
        body = DATA[begin : end + 1]
        fault = self.server.faults.get(begin)
        if fault is None:
            self.answer(206, body)
        else:
            fault(self, before, body)

    def answer(self, status: int, body: bytes, length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


class RangeServer(ThreadingHTTPServer):
    """The server and what it was asked for."""

    daemon_threads = True

    def __init__(self, host: str) -> None:
        self.faults: dict[int, Fault] = {}
        self.asked: Counter[int] = Counter()
        self.conditions: set[str] = set()
        self.scheme = "http"
        super().__init__((host, 0), Handler)

    def handle_error(self, *_: object) -> None:
        return


@contextmanager
def serving(tls: ssl.SSLContext | None = None, host: str = "127.0.0.1") -> Iterator[RangeServer]:
    with RangeServer(host) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
            server.scheme = "https"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(params=["http", "https"])
def ranges(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RangeServer]:
    trusted = tmp_path_factory.mktemp("authority")
    tls = server_context(trusted, "127.0.0.1") if request.param == "https" else None
    if tls:
        monkeypatch.setenv("AWS_CA_BUNDLE", str(trusted / "ca.crt"))
    with serving(tls) as made:
        yield made


def order(server: RangeServer, folder: Path, sizes: Sequence[int]) -> list[dict[str, Any]]:
    files = []
    for number, size in enumerate(sizes):
        path = folder / f"{number}"
        path.write_bytes(bytes(size))
        url = f"{server.scheme}://{server.server_address[0]}:{server.server_address[1]}/{number}?signature=x"
        files.append({"url": url, "path": str(path), "size": size, "etag": f'"{number}"'})
    return files


def read(files: list[dict[str, Any]]) -> list[dict[str, Any]]:
    with Readers() as readers:
        return list(readers.read(files))


def errors(said: list[dict[str, Any]]) -> dict[int, str]:
    return {one["begin"]: one["error"] for one in said if "error" in one}


def counted(said: list[dict[str, Any]]) -> int:
    return sum(one.get("bytes", 0) for one in said)


def test_every_byte_is_written_and_summed(ranges: RangeServer, tmp_path: Path) -> None:
    sizes = [len(DATA), 1, PART, 0]
    said = read(order(ranges, tmp_path, sizes))
    assert [(tmp_path / f"{number}").read_bytes() for number in range(4)] == [DATA[:size] for size in sizes]
    wholes = {one["file"]: one["crc"] for one in said if "crc" in one and "begin" not in one}
    assert wholes == {number: crc64nvme(DATA[:size], 0) for number, size in enumerate(sizes) if size}
    assert counted(said) == sum(sizes)
    # Another version of an object must not be mixed in.
    assert ranges.conditions == {'"0"', '"1"', '"2"'}


def test_over_tls_only_with_an_authority_that_is_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(server_context(tmp_path, "127.0.0.1")) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in errors(read(order(server, tmp_path, [1000])))[0]
        monkeypatch.setenv("AWS_CA_BUNDLE", str(tmp_path / "ca.crt"))
        said = read(order(server, tmp_path, [len(DATA)]))
    assert (tmp_path / "0").read_bytes() == DATA
    assert errors(said) == {}
    with serving(server_context(tmp_path, "127.0.0.1"), host="127.0.0.2") as somebody_else:
        assert "IP address mismatch" in errors(read(order(somebody_else, tmp_path, [1000])))[0]


def cut(handler: Handler, before: int, body: bytes) -> None:
    if before < 2:
        handler.answer(206, body[: len(body) // 2], len(body))
        handler.close_connection = True
        handler.connection.close()
    else:
        handler.answer(206, body)


def slow_down(handler: Handler, before: int, body: bytes) -> None:
    handler.answer(503 if before < 2 else 206, b"<Error/>" if before < 2 else body)


def goodbye(handler: Handler, _: int, body: bytes) -> None:
    handler.answer(206, body, Connection="close")
    handler.close_connection = True


def hang_up(handler: Handler, _: int, body: bytes) -> None:
    handler.answer(206, body)
    handler.close_connection = True


def old_server(handler: Handler, _: int, body: bytes) -> None:
    handler.protocol_version = "HTTP/1.0"
    goodbye(handler, 0, body)


def in_crumbs(handler: Handler, _: int, body: bytes) -> None:
    """The last bytes come one by one, over TLS each in a record of its own."""
    handler.answer(206, body[:-2000], len(body))
    for at in range(len(body) - 2000, len(body)):
        handler.wfile.write(body[at : at + 1])


@pytest.mark.parametrize(
    ("fault", "asked"), [(cut, 3), (slow_down, 3), (goodbye, 1), (hang_up, 1), (old_server, 1), (in_crumbs, 1)]
)
def test_what_passes_is_tried_again(ranges: RangeServer, tmp_path: Path, fault: Fault, asked: int) -> None:
    ranges.faults[PART] = fault
    said = read(order(ranges, tmp_path, [len(DATA)]))
    assert (tmp_path / "0").read_bytes() == DATA
    assert errors(said) == {}
    assert ranges.asked == {0: 1, PART: asked, 2 * PART: 1}
    # What was counted of a range that was cut is taken back.
    assert counted(said) == len(DATA)


@pytest.mark.parametrize(
    ("fault", "word"),
    [
        (lambda handler, _, body: handler.answer(412, b"<Error/>"), "status 412"),
        (lambda handler, _, body: handler.answer(404, b"<Error/>"), "status 404"),
        (lambda handler, _, body: handler.answer(200, body), "status 200"),
        (lambda handler, _, body: handler.answer(206, body[:-1]), "bytes, not"),
        (lambda handler, _, body: handler.answer(302, b"", Location="http://127.0.0.1:1/"), "status 302"),
        (lambda handler, _, body: handler.wfile.write(b"rubbish\r\n\r\n") or handler.connection.close(), "BadStatus"),
    ],
)
def test_what_does_not_pass_is_said_and_holds_up_nothing_else(
    ranges: RangeServer, tmp_path: Path, fault: Fault, word: str
) -> None:
    ranges.faults[PART] = fault
    said = read(order(ranges, tmp_path, [len(DATA)]))
    assert word in errors(said)[PART]
    assert "signature" not in str(said)
    written = (tmp_path / "0").read_bytes()
    assert (written[:PART], written[2 * PART :]) == (DATA[:PART], DATA[2 * PART :])


def test_what_is_refused_is_asked_for_once(ranges: RangeServer, tmp_path: Path) -> None:
    def gone(handler: Handler, _: int, body: bytes) -> None:
        handler.answer(404, b"<Error>" + bytes(5000))

    ranges.faults = dict.fromkeys((0, PART, 2 * PART), gone)
    assert errors(read(order(ranges, tmp_path, [len(DATA)]))).keys() == ranges.faults.keys()
    assert set(ranges.asked.values()) == {1}


def test_a_store_that_nobody_reaches_is_left_to_its_client_at_once(tmp_path: Path) -> None:
    with serving() as server:
        files = order(server, tmp_path, [1] * 60)
    server.server_close()
    failed = {one["file"] for one in read(files) if "error" in one}
    # One for each worker, of which there may be sixteen in time.
    assert 0 < len(failed) <= 32


def test_the_end_of_readers_reaches_no_other_process(
    ranges: RangeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = []
    monkeypatch.setattr("os.killpg", lambda number, _: killed.append(psutil.Process(number).status()))
    with Readers() as readers:
        assert errors(list(readers.read(order(ranges, tmp_path, [1000])))) == {}
        with readers:
            pass
    assert len(killed) == 1, "its number may be another's once it was waited for"


@pytest.mark.parametrize("victim", ["worker", "all"])
def test_a_killed_reader_is_noticed_and_leaves_no_process(ranges: RangeServer, tmp_path: Path, victim: str) -> None:
    killed, family = threading.Event(), list[psutil.Process]()

    def kill(handler: Handler, _: int, body: bytes) -> None:
        handler.answer(206, body[:1000], len(body))
        process = psutil.Process(readers._process.pid)
        family.extend(process.children(recursive=True))
        for one in [_peer_of(handler, family)] if victim == "worker" else [process]:
            one.kill()
        killed.set()

    ranges.faults[PART] = kill
    with Readers() as readers:
        said = list(readers.read(order(ranges, tmp_path, [len(DATA)])))
    assert family
    assert killed.is_set()
    assert PART not in {one.get("begin") for one in said if "crc" in one}
    assert not [one for one in said if "crc" in one and "begin" not in one]
    _, alive = psutil.wait_procs(family, timeout=20)
    assert alive == []


def _peer_of(handler: Handler, family: list[psutil.Process]) -> psutil.Process:
    port = handler.client_address[1]
    return next(one for one in family if any(seen.laddr.port == port for seen in one.net_connections("tcp")))


@pytest.mark.local
@pytest.mark.parametrize("what", ["killed", "http_proxy", "all_proxy"])
def test_what_readers_cannot_read_the_stores_client_does(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    context: StagingContext = request.getfixturevalue("context")
    model = make_model(tmp_path / "model", f"readers-{what.replace('_', '-')}", (40 << 20, 3 << 20))
    revision = api.resolve_revision(model, context)
    api.stage(model, revision, MODELS_URI, context, owner="test")
    target, counts = Target.open(MODELS_URI, model.name, revision, context), Counter[str]()
    if what != "killed":
        # The readers know no proxy: whatever is asked of this address would fail.
        monkeypatch.setenv(what, "http://127.0.0.1:9")
        monkeypatch.setattr("urllib.request.proxy_bypass", lambda _: False)

    def count(path: str, size: int) -> None:
        if what == "killed" and not counts:
            readers._process.kill()
        counts[path] += size

    with Readers() as readers:
        if what != "killed":
            monkeypatch.setenv("no_proxy", "127.0.0.1")
        done = fetch(target, tmp_path / "to", count, readers=readers)
    assert contents(done.folder) == contents(tmp_path / "model")


class SilentAtTheEnd(Readers):
    """Killed after the last range of every file, before the word that the file is complete."""

    def read(self, files: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield all but the last word on each file."""
        return (said for said in super().read(files) if "begin" in said or "bytes" in said)


@pytest.mark.local
def test_a_file_whose_every_range_was_read_is_there_though_nobody_said_it_is_complete(
    tmp_path: Path, context: StagingContext
) -> None:
    model = make_model(tmp_path / "model", "untold", (20 << 20, 3 << 20))
    revision = api.resolve_revision(model, context)
    api.stage(model, revision, MODELS_URI, context, owner="test")
    target = Target.open(MODELS_URI, model.name, revision, context)
    with SilentAtTheEnd() as readers:
        done = fetch(target, tmp_path / "to", readers=readers)
    assert contents(done.folder) == contents(tmp_path / "model")


@pytest.mark.local
def test_a_kept_file_that_is_damaged_is_fetched_again(tmp_path: Path, context: StagingContext) -> None:
    model = make_model(tmp_path / "model", "healed", (3 << 20, 2 << 20))
    revision = api.resolve_revision(model, context)
    api.stage(model, revision, MODELS_URI, context, owner="test")
    target = Target.open(MODELS_URI, model.name, revision, context)
    folder = fetch(target, tmp_path / "to", durable=True).folder
    shard = folder / "model-1.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[1 << 20] ^= 1
    shard.write_bytes(damaged)
    assert fetch(target, tmp_path / "to").moved_bytes == len(damaged)
    assert contents(folder) == contents(tmp_path / "model")
    assert fetch(target, tmp_path / "to").moved_bytes == 0


@given(st.lists(st.integers(0, 300), max_size=12), st.integers(1, 100))
def test_ranges_cover_every_byte_once(sizes: list[int], part: int) -> None:
    spans = split(sizes, part)
    assert all(0 < span.end - span.begin <= part for span in spans)
    for number, size in enumerate(sizes):
        mine = sorted(span for span in spans if span.file == number)
        assert [span.begin for span in mine] == [0, *(span.end for span in mine)][: len(mine)]
        assert (mine[-1].end if mine else 0) == size
