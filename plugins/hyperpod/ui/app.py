"""The FastAPI app that Airflow's api-server mounts at ``/hyperpod``; every route needs a permission.

Routes are plain functions, which FastAPI runs in threads: reading the store must not block the api-server's loop.
"""

from __future__ import annotations

import datetime as dt
import math
from functools import cache
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from hyperpod.run import default_results_uri
from hyperpod.ui.access import may_read_results
from include.results.pages import html
from include.results.pages.board import Board

PREFIX = "/hyperpod"
HEADERS = {
    "Content-Security-Policy": html.CSP,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
# A report has its styles within; nothing of it may act on the page around it.
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; sandbox; frame-ancestors 'self'"
_FILES = ("results/", "runs/")

Page = Annotated[int, Query(ge=1, le=100_000)]
router = APIRouter(dependencies=[Depends(may_read_results)])


def create_app() -> FastAPI:
    """Return the app; it has no public route, no documentation pages included."""
    app = FastAPI(title="HyperPod benchmarks", docs_url=None, redoc_url=None, openapi_url=None)
    app.include_router(router)
    return app


@cache
def board() -> Board:
    """Return the reader of the results store."""
    return Board(default_results_uri())


def _html(text: str | None) -> HTMLResponse:
    if text is None:
        raise HTTPException(404, "Not found", headers=HEADERS)
    return HTMLResponse(text, headers=HEADERS)


@router.get("/")
def root() -> RedirectResponse:
    """Go to the verdicts."""
    return RedirectResponse("verdicts")


@router.get("/style.css")
def style() -> Response:
    """The only asset."""
    content = Path(html.__file__).with_name("style.css").read_bytes()
    return Response(content, media_type="text/css", headers=HEADERS)


@router.get("/verdicts")
def verdicts(q: str = "", page: Page = 1) -> HTMLResponse:
    """Latest verdicts."""
    from include.results.pages.overview import overview

    return _html(overview(board(), q[:200], page))


@router.get("/series")
def series(id: str, metric: str = "ttft_ms_p50") -> HTMLResponse:
    """History of one series."""
    from include.results.pages.history import history
    from include.results.series import METRICS

    found = board().one(id) if metric in METRICS else None
    return _html(history(board(), found, metric) if found else None)


@router.get("/compare")
def compare(a: str, b: str) -> HTMLResponse:
    """Two results side by side."""
    from include.results.pages.compare import compare as render

    one, two = board().result(a), board().result(b)
    return _html(render(board(), one, two) if one and two else None)


@router.get("/endpoints")
def endpoints() -> HTMLResponse:
    """Inventory of endpoints."""
    from include.results.pages.inventory import endpoints as render

    return _html(render(board(), dt.datetime.now(dt.UTC)))


@router.get("/runs")
def runs(page: Page = 1) -> HTMLResponse:
    """All runs."""
    from include.results.pages.inventory import runs as render

    return _html(render(board(), page))


@router.get("/run")
def run(path: str) -> HTMLResponse:
    """One run."""
    from include.results.pages.inventory import run as render

    return _html(render(board(), path))


@router.get("/cost")
def cost(rate: Annotated[float, Query(gt=0, le=1e9)] = 10.0) -> HTMLResponse:
    """Instances for a rate."""
    from include.results.pages.inventory import cost as render

    return _html(render(board(), rate if math.isfinite(rate) else 10.0))


@router.get("/report")
def report(path: str) -> Response:
    """The report of a run, as it was written."""
    data = board().file(_checked(f"{path}/report.html"))
    if data is None:
        raise HTTPException(404, "Not found", headers=HEADERS)
    return HTMLResponse(data, headers=HEADERS | {"Content-Security-Policy": REPORT_POLICY})


@router.get("/file")
def file(path: str) -> Response:
    """A result's JSON or its requests, as a download."""
    if not path.endswith((".json", ".parquet")):
        raise HTTPException(404, "Not found", headers=HEADERS)
    data = board().file(_checked(path))
    if data is None:
        raise HTTPException(404, "Not found", headers=HEADERS)
    name = "".join(char if char.isalnum() or char in "._-" else "_" for char in path.rsplit("/", 1)[-1])
    disposition = {"Content-Disposition": f'attachment; filename="{name.encode("ascii", "replace").decode()}"'}
    return Response(data, media_type="application/octet-stream", headers=HEADERS | disposition)


def _checked(path: str) -> str:
    """Return a path of results or runs; nothing else of the store is served."""
    if not path.startswith(_FILES) or any(part in ("", ".", "..") for part in path.split("/")):
        raise HTTPException(404, "Not found", headers=HEADERS)
    return path
