"""The server's own figures during the window, on the clock of the records: Prometheus pages, once a second."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
import urllib.request
from pathlib import Path
from types import TracebackType

import msgspec

from include.catalog.specs import JsonObject
from include.loadtest.prometheus import Sample, parse

INTERVAL_S = 1.0
TIMEOUT_S = 5.0
# Counters of finished requests, by server; the first that a page has is taken.
REQUEST_COUNTERS = (
    "vllm:request_success_total",
    "sglang:num_requests_total",
    "tgi_request_success",
    "llamacpp:requests_total",
    "model_invocations_total",
)
# Kept series: queues, running requests, cache use and hits, latencies as the server sees them, GPUs.
PREFIXES = ("vllm:", "sglang:", "tgi_", "llamacpp:", "model_", "DCGM_", "lmcache:")


class Reading(msgspec.Struct, frozen=True):
    """One sample, the round of scraping that it is of, and when (Unix ns) and from where it came."""

    round: int
    at: int
    url: str
    sample: Sample


class Scraper:
    """Scrapes pages in a thread of its own between entering and leaving; a page that fails is tried again.

    :param urls: pages; none: nothing is done.
    :param headers: by URL, such as an ``Authorization``.
    :param path: Parquet file of all samples: ``unix_ns, url, name, labels, value``.
    """

    def __init__(
        self,
        urls: tuple[str, ...],
        path: Path,
        headers: dict[str, dict[str, str]] | None = None,
        ca_file: str | None = None,
    ) -> None:
        self._urls = urls
        self._path = path
        self._headers = headers or {}
        self._context = ssl.create_default_context(cafile=ca_file) if ca_file else None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.readings: list[Reading] = []
        self._rounds = 0
        self.errors: dict[str, str] = {}

    def __enter__(self) -> Scraper:
        if self._urls:
            self._scrape_all()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._scrape_all()
            self._write()

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            due += INTERVAL_S
            if self._stop.wait(max(0.0, due - time.monotonic())):
                return
            self._scrape_all()

    def _scrape_all(self) -> None:
        for url in self._urls:
            try:
                text = self._fetch(url)
            except (OSError, ValueError) as error:
                self.errors[url] = str(error)
                continue
            now = time.time_ns()
            kept = (sample for sample in parse(text) if sample.name.startswith(PREFIXES))
            self.readings += [Reading(self._rounds, now, url, sample) for sample in kept]
        self._rounds += 1

    def _fetch(self, url: str) -> str:
        request = urllib.request.Request(url, headers=self._headers.get(url, {}))  # noqa: S310
        with urllib.request.urlopen(request, timeout=TIMEOUT_S, context=self._context) as page:  # noqa: S310
            return bytes(page.read()).decode(errors="replace")

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        columns = {
            "unix_ns": pa.array([reading.at for reading in self.readings], pa.int64()),
            "url": pa.array([reading.url for reading in self.readings], pa.string()),
            "name": pa.array([reading.sample.name for reading in self.readings], pa.string()),
            "labels": pa.array([json.dumps(dict(reading.sample.labels)) for reading in self.readings], pa.string()),
            "value": pa.array([reading.sample.value for reading in self.readings], pa.float64()),
        }
        with contextlib.suppress(OSError):
            pq.write_table(pa.table(columns), self._path, compression="zstd")


def server_requests(scraper: Scraper) -> int | None:
    """Return how many requests the server finished during the scrape; ``None`` when no page counts them."""
    for name in REQUEST_COUNTERS:
        series = _totals(scraper, name)
        if len(series) >= 2:
            return round(series[-1] - series[0])
    return None


def series_summary(scraper: Scraper) -> JsonObject:
    """Return, per metric, first, last, mean and maximum over the run, summed over labels; and what failed."""
    names = sorted({r.sample.name for r in scraper.readings if not r.sample.name.endswith("_bucket")})
    found: JsonObject = {}
    for name in names:
        values = _totals(scraper, name)
        found[name] = {
            "first": values[0],
            "last": values[-1],
            "mean": sum(values) / len(values),
            "max": max(values),
        }
    return {"series": found, "errors": dict(scraper.errors)} if found or scraper.errors else {}


def _totals(scraper: Scraper, name: str) -> list[float]:
    """Sum a metric over its labels and pages, for each round of scraping in which it was seen."""
    sums: dict[int, float] = {}
    for reading in scraper.readings:
        if reading.sample.name == name:
            sums[reading.round] = sums.get(reading.round, 0.0) + reading.sample.value
    return [sums[number] for number in sorted(sums)]
