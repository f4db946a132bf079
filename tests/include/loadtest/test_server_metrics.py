"""Pages of several pods, some of them silent: what adds up, what is averaged, what is a proof of others' requests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from include.loadtest.api import judge, load_records
from include.loadtest.cli import main
from include.loadtest.foreign.base import ForeignRequest, table_of
from include.loadtest.foreign.registry import engine
from include.loadtest.records import load, write_parquet
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Fault, Script
from include.loadtest.scrape import Scraper
from include.loadtest.series import Observed, Series
from include.loadtest.serverside import server_requests, server_side, with_count
from include.loadtest.timeline import timeline
from include.metricspage import MetricsPage
from tests.include.loadtest.conftest import Run

COUNTER = 'vllm:request_success_total{finished_reason="stop"}'
NS = 1_000_000_000


class Pages:
    """Pages by path; a callable says what each fetch gets, ``None`` an error."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, Callable[[int], str | None]] = {}
        self.fetched: dict[str, int] = {}

    def page(self, pod: str, answer: Callable[[int], str | None]) -> MetricsPage:
        self.answers[f"/{pod}/metrics"] = answer
        return MetricsPage(f"{self.url}/{pod}/metrics", kind="server")


@pytest.fixture
def pages() -> Iterator[Pages]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            made.fetched[self.path] = made.fetched.get(self.path, 0) + 1
            text = made.answers[self.path](made.fetched[self.path])
            body = (text or "").encode()
            self.send_response(503 if text is None else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        made = Pages(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield made
        server.shutdown()


def scraped(found: list[MetricsPage], tmp_path: Path) -> Scraper:
    """Two rounds: the first and the last."""
    with Scraper(found, tmp_path / "m.parquet") as scraper:
        pass
    return scraper


def counts(*values: int | None, label: str = COUNTER) -> Callable[[int], str | None]:
    def answer(fetch: int) -> str | None:
        value = values[min(fetch, len(values)) - 1]
        return None if value is None else f"{label} {value}\n"

    return answer


def test_the_pods_counts_add_up_whatever_each_had_before(pages: Pages, tmp_path: Path) -> None:
    found = [pages.page("a", counts(100, 107)), pages.page("b", counts(5000, 5003))]
    assert server_requests(scraped(found, tmp_path)) == 10


@pytest.mark.parametrize(
    "other", [counts(50, None), counts(None, 60), counts(None, None), counts(50, 3)],
    ids=["silent-at-the-end", "silent-at-the-start", "never-answered", "began-anew"],
)  # fmt: skip
def test_a_count_that_lacks_a_pods_share_is_none(pages: Pages, tmp_path: Path, other: Callable[[int], Any]) -> None:
    found = [pages.page("a", counts(100, 107)), pages.page("b", other)]
    assert server_requests(scraped(found, tmp_path)) is None


def test_a_silent_page_of_another_kind_costs_no_proof(pages: Pages, tmp_path: Path) -> None:
    gpu = MetricsPage(pages.page("gpu", counts(None)).url, kind="gpu")
    scraper = scraped([pages.page("a", counts(100, 107)), gpu], tmp_path)
    assert server_requests(scraper) == 7
    assert list(scraper.errors) == [gpu.url]


def test_labels_that_come_up_meanwhile_began_at_nothing(pages: Pages, tmp_path: Path) -> None:
    def answer(fetch: int) -> str:
        more = 'vllm:request_success_total{finished_reason="length"} 4\n' if fetch > 1 else ""
        return f"{COUNTER} {8 + fetch}\n{more}"

    assert server_requests(scraped([pages.page("a", answer)], tmp_path)) == 1 + 4


def test_a_page_that_hangs_holds_up_no_other(pages: Pages, tmp_path: Path) -> None:
    let_go, seen = threading.Event(), threading.Event()
    asked: list[int] = []

    def hangs(fetch: int) -> str:
        if fetch > 1:
            let_go.wait(30)
        return f"{COUNTER} 1\n"

    def lives(fetch: int) -> str:
        if fetch == 4:
            asked.append(pages.fetched["/a/metrics"])
            seen.set()
        return f"{COUNTER} 1\n"

    with Scraper([pages.page("a", hangs), pages.page("b", lives)], tmp_path / "m.parquet"):
        assert seen.wait(30)
        let_go.set()
    assert asked == [2]


def test_pages_are_asked_directly_whatever_proxy_there_is(
    pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.delenv("no_proxy", raising=False)
    assert server_requests(scraped([pages.page("a", counts(1, 3))], tmp_path)) == 2


def test_a_token_is_asked_for_before_every_fetch(tmp_path: Path, pages: Pages) -> None:
    asked: list[int] = []

    def headers() -> dict[str, str]:
        asked.append(1)
        return {"Authorization": f"Bearer {len(asked)}"}

    scraped([MetricsPage(pages.page("a", counts(1)).url, headers=headers)], tmp_path)
    assert len(asked) == 2


# Two pods, each scraped at a moment of its own; the second misses round 2.
def observed() -> list[Observed]:
    found = []
    for number in range(5):
        for pod, delay in (("a", 0), ("b", NS // 3)):
            if pod == "b" and number == 2:
                continue
            at = number * NS + delay

            def add(name: str, value: float, labels: str = "{}", at: int = at, pod: str = pod, n: int = number) -> None:
                found.append(Observed(n, at, f"http://{pod}/metrics", name, labels, value))

            add("vllm:num_requests_running", 4)
            add("vllm:kv_cache_usage_perc", 0.5 if pod == "a" else 0.7)
            add("DCGM_FI_DEV_POWER_USAGE", 300)
            for gpu in (0, 1):
                add("DCGM_FI_DEV_GPU_UTIL", 50 if gpu else 90, f'{{"gpu": "{gpu}"}}')
            # Pod b had answered a million requests of a second each before; both answer ten of 0.1 s each second.
            base = 1_000_000 if pod == "b" else 0
            add("vllm:time_to_first_token_seconds_sum", base + number)
            add("vllm:time_to_first_token_seconds_count", base + 10 * number)
    return found


def test_counts_add_up_and_shares_are_averaged_over_pages_and_labels() -> None:
    series = Series(observed())
    values = {name: {round(value, 6) for _, value in series.gauge(name)} for name in series.names}
    assert values["vllm:num_requests_running"] == {8}
    assert values["DCGM_FI_DEV_POWER_USAGE"] == {600}
    assert values["DCGM_FI_DEV_GPU_UTIL"] == {70}
    assert values["vllm:kv_cache_usage_perc"] == {0.6}


def test_a_pod_that_ends_is_not_counted_on() -> None:
    series = Series(one for one in observed() if one.url == "http://a/metrics" or one.round < 2)
    assert [value for _, value in series.gauge("vllm:num_requests_running")] == [8, 8, 4, 4, 4]


@pytest.mark.parametrize("rounds", [True, False], ids=["today", "a file of before rounds were kept"])
def test_two_pods_on_the_timeline_are_one_endpoint(tmp_path: Path, rounds: bool) -> None:
    requests = [ForeignRequest(request_id=str(n), sent=1e-9 + n, first=n + 0.05, end=n + 0.9) for n in range(5)]
    records = load(write_parquet(table_of(engine("aiperf"), "", requests), tmp_path / "r.parquet"))
    samples = observed()
    columns = {"unix_ns": [one.at for one in samples], "round": [one.round for one in samples]}
    columns |= {name: [getattr(one, name) for one in samples] for name in ("url", "name", "labels", "value")}
    if not rounds:
        del columns["round"]
    pq.write_table(pa.table(columns), tmp_path / "server-metrics.parquet")
    server = timeline(records, tmp_path / "server-metrics.parquet")["server"]
    whole = slice(None if rounds else 1, -1)  # without rounds the first moment has the one pod only
    assert set(server["running"][whole]) == {8}
    assert set(server["gpu_usage"][whole]) == {70}
    assert set(server["gpu_watts"][whole]) == {600}
    assert set(server["kv_usage"][whole]) == {0.6}
    assert [value for value in server["ttft_ms"] if value is not None] == pytest.approx([100] * 5)


@contextmanager
def another_client(server: ReferenceServer) -> Iterator[None]:
    """Somebody else's requests at the same time."""
    import http.client

    def ask() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", server.port)
        body = b'{"messages": [{"role": "user", "content": "x"}], "max_tokens": 1, "stream": false}'
        while not stop.is_set():
            connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
            connection.getresponse().read()

    stop = threading.Event()
    thread = threading.Thread(target=ask)
    thread.start()
    yield
    stop.set()
    thread.join()


def test_failed_requests_hide_no_other_client_and_a_later_report_still_knows(
    server: ReferenceServer, run: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    server.play(Script(ttft_ms=5, itl_ms=1, faults=[Fault(kind="http", status=500, every=10)]))
    level: dict[str, Any] = {"load": {"concurrency": 2, "requests": 60}}
    level["run_args"] = {"metrics_urls": (f"{server.url}/metrics",)}
    alone = run(**level)
    assert alone.statistics.requests_failed == 6
    assert not [reason for reason in alone.validity.reasons if "CONTAMINATED" in reason]
    server.play(Script(ttft_ms=5, itl_ms=1, faults=[Fault(kind="http", status=500, every=10)]))
    with another_client(server):
        shared = run(**level)
    assert [reason for reason in shared.validity.reasons if "CONTAMINATED" in reason]
    assert main(["report", str(shared.requests_path)]) == 1
    assert "CONTAMINATED" in capsys.readouterr().out
    # Two runs together are judged by both counts.
    both = judge(load_records([alone.requests_path, shared.requests_path]))
    counted = [outcome.validity.server_side_requests or 0 for outcome in (alone, shared)]
    assert both.server_side_requests == sum(counted)


def test_runs_of_which_one_has_no_count_are_not_judged_by_the_others(tmp_path: Path) -> None:
    requests = [ForeignRequest(request_id=str(n), sent=1e-9 + n, first=n + 0.05, end=n + 0.9) for n in range(5)]
    table = table_of(engine("aiperf"), "", requests)
    one = write_parquet(with_count(table, 5), tmp_path / "1.parquet")
    two = write_parquet(table, tmp_path / "2.parquet")
    assert judge(load(one)).server_side_requests == 5
    assert judge(load([one, two])).server_side_requests is None


def test_the_summary_names_pages_that_cannot_be_read(pages: Pages, tmp_path: Path) -> None:
    scraper = scraped([pages.page("a", counts(None))], tmp_path)
    assert list(server_side(scraper).summary["errors"]) == [f"{pages.url}/a/metrics"]
