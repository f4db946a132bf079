"""The pages as a folder of HTML files: every page that a reader could click to, each with its style inside."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from include.errors import ConfigurationError
from include.results.pages.board import Board
from include.results.pages.compare import compare
from include.results.pages.history import history
from include.results.pages.html import Files, as_files, el, page
from include.results.pages.inventory import cost, endpoints, run, runs
from include.results.pages.overview import overview
from include.results.series import METRICS

FIRST = "index.html"
MOST_PAGES = 2000
DEFAULTS = {"page": "1", "metric": "ttft_ms_p50"}
MARK = ".benchmark-report"
Query = Mapping[str, str]


@dataclass(frozen=True)
class Written:
    """What was written: pages, and pages that the limit left out."""

    folder: Path
    pages: int
    left_out: int


@dataclass
class _Site:
    """Pages by address; a page that is linked for the first time is put in the queue."""

    most: int
    names: dict[str, str] = field(default_factory=dict)
    queue: deque[tuple[str, Query, str]] = field(default_factory=deque)
    left_out: set[str] = field(default_factory=set)

    def address(self, kind: str, query: Query) -> str | None:
        query = {name: value for name, value in query.items() if DEFAULTS.get(name) != value}
        key = f"{kind}?{urlencode(sorted(query.items()))}"
        if key in self.names:
            return self.names[key]
        if kind not in PAGES:
            return None
        if len(self.names) >= self.most:
            self.left_out.add(key)
            return None
        name = f"{kind}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.html"
        self.names[key] = name if self.names else FIRST
        self.queue.append((kind, query, self.names[key]))
        return self.names[key]


def write(board: Board, folder: Path, *, most: int = MOST_PAGES, rate: float = 10.0, airflow: str = "") -> Written:
    """Write the pages below a folder, ``index.html`` first; files of an earlier report there are replaced.

    :param most: pages at most; what is linked beyond them is text.
    :param rate: requests/s of the cost page, which has no form here.
    :param airflow: address of Airflow's UI; empty: no links to it.
    :raises ConfigurationError: the folder holds something else.
    """
    _prepare(folder)
    site = _Site(most)
    with as_files(Files(site.address, airflow)):
        site.address("verdicts", {})
        while site.queue:
            kind, query, name = site.queue.popleft()
            text = PAGES[kind](board, query, rate)
            (folder / name).write_text(text or _missing(kind), encoding="utf-8")
    return Written(folder, len(site.names), len(site.left_out))


def _prepare(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / MARK
    if not mark.exists() and any(folder.iterdir()):
        raise ConfigurationError(
            "FolderInUse", f"--out = {folder} holds something that is no report", fix="name an empty or new folder"
        )
    mark.touch()
    for old in folder.glob("*.html"):
        old.unlink()


def _series(board: Board, query: Query, rate: float) -> str | None:  # noqa: ARG001 (one signature for all pages)
    found = board.one(query.get("id", ""))
    metric = query.get("metric", DEFAULTS["metric"])
    return history(board, found, metric) if found and metric in METRICS else None


def _compare(board: Board, query: Query, rate: float) -> str | None:  # noqa: ARG001
    a, b = board.result(query["a"]), board.result(query["b"])
    return compare(board, a, b) if a and b else None


def _report(board: Board, query: Query, rate: float) -> str | None:  # noqa: ARG001
    data = board.file(f"{query['path']}/report.html")
    return None if data is None else data.decode("utf-8", errors="replace")


def _missing(name: str) -> str:
    return page("Not found", name, el("p", "The store no longer has what this page showed."))


PAGES: dict[str, Callable[[Board, Query, float], str | None]] = {
    "verdicts": lambda board, query, _: overview(board, query.get("q", ""), int(query.get("page", 1))),
    "series": _series,
    "compare": _compare,
    "endpoints": lambda board, _, __: endpoints(board, dt.datetime.now(dt.UTC)),
    "runs": lambda board, query, _: runs(board, int(query.get("page", 1))),
    "run": lambda board, query, _: run(board, query["path"]),
    "report": _report,
    "cost": lambda board, _, rate: cost(board, rate),
}
