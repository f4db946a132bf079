"""The server's own figures during the window, on the clock of the records: Prometheus pages, once a second."""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType

from include.loadtest.prometheus import parse
from include.loadtest.series import Observed, Series
from include.metricspage import MetricsPage

INTERVAL_S = 1.0
TIMEOUT_S = 5.0
# Kept series: queues, running requests, cache use and hits, latencies as the server sees them, GPUs.
PREFIXES = ("vllm:", "sglang:", "tgi_", "llamacpp:", "model_", "DCGM_", "lmcache:")


class Scraper:
    """Scrapes pages between entering and leaving, each in a thread of its own: a silent one delays no other.

    The first and the last round are of all pages and over before entering and leaving end; a page that fails is tried
    again. Pages are asked directly, as the load goes, whatever proxy the environment names.

    :param pages: or their URLs; none: nothing is done.
    :param path: Parquet file of all samples: ``unix_ns, round, url, name, labels, value``.
    :param headers: by URL, such as an ``Authorization``.
    """

    def __init__(
        self,
        pages: Iterable[MetricsPage | str],
        path: Path,
        headers: dict[str, dict[str, str]] | None = None,
        ca_file: str | None = None,
    ) -> None:
        given = [MetricsPage(page) if isinstance(page, str) else page for page in pages]
        self._pages = {page.url: page for page in given}
        self._path = path
        self._headers = headers or {}
        self._ca_file = ca_file
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self._began = 0.0
        self._samples: dict[str, list[Observed]] = {url: [] for url in self._pages}
        self._openers: dict[str, urllib.request.OpenerDirector] = {}
        self.answered: dict[str, set[int]] = {url: set() for url in self._pages}
        self.errors: dict[str, str] = {}
        self.last = 0

    def __enter__(self) -> Scraper:
        self._began = time.monotonic()
        self._round_of_all(0)
        self._threads = [threading.Thread(target=self._run, args=(page,), daemon=True) for page in self.pages]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        if self._pages:
            self.last = int((time.monotonic() - self._began) / INTERVAL_S) + 1
            self._round_of_all(self.last)
            self._write()

    @property
    def pages(self) -> list[MetricsPage]:
        """What is scraped."""
        return list(self._pages.values())

    def page(self, url: str) -> MetricsPage:
        """Return the page of a URL."""
        return self._pages[url]

    @property
    def samples(self) -> list[Observed]:
        """All samples so far, page by page."""
        return [sample for url in self._pages for sample in self._samples[url]]

    def series(self) -> Series:
        """Return the samples by metric and series."""
        return Series(self.samples)

    def _round_of_all(self, number: int) -> None:
        threads = [threading.Thread(target=self._scrape, args=(page, number), daemon=True) for page in self.pages]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _run(self, page: MetricsPage) -> None:
        number = 1
        while not self._stop.wait(max(0.0, self._began + number * INTERVAL_S - time.monotonic())):
            self._scrape(page, number)
            # Rounds that a slow answer has used up are left out, not made up for.
            number = max(number + 1, int((time.monotonic() - self._began) / INTERVAL_S) + 1)

    def _scrape(self, page: MetricsPage, number: int) -> None:
        try:
            text = self._fetch(page)
        except (OSError, ValueError) as error:
            self.errors[page.url] = str(error)
            return
        now = time.time_ns()
        self._samples[page.url] += [
            Observed(number, now, page.url, sample.name, json.dumps(dict(sample.labels)), sample.value)
            for sample in parse(text)
            if sample.name.startswith(PREFIXES)
        ]
        self.answered[page.url].add(number)

    def _fetch(self, page: MetricsPage) -> str:
        headers = self._headers.get(page.url, {}) | (page.headers() if page.headers else {})
        request = urllib.request.Request(page.url, headers=headers)  # noqa: S310
        with self._opener(page).open(request, timeout=TIMEOUT_S) as answer:
            return bytes(answer.read()).decode(errors="replace")

    def _opener(self, page: MetricsPage) -> urllib.request.OpenerDirector:
        if page.url not in self._openers:
            context = page.context() if page.context else None
            if context is None and self._ca_file:
                context = ssl.create_default_context(cafile=self._ca_file)
            handlers = [urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)]
            self._openers[page.url] = urllib.request.build_opener(*handlers)
        return self._openers[page.url]

    def _write(self) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        samples = self.samples
        columns = {
            "unix_ns": pa.array([sample.at for sample in samples], pa.int64()),
            "round": pa.array([sample.round for sample in samples], pa.int64()),
            "url": pa.array([sample.url for sample in samples], pa.string()),
            "name": pa.array([sample.name for sample in samples], pa.string()),
            "labels": pa.array([sample.labels for sample in samples], pa.string()),
            "value": pa.array([sample.value for sample in samples], pa.float64()),
        }
        with contextlib.suppress(OSError):
            pq.write_table(pa.table(columns), self._path, compression="zstd")
