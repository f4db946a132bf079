"""Client and server on one axis."""

from __future__ import annotations

import numpy as np
import pytest

from include.loadtest.api import load_records
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.loadtest.timeline import draw, plots, timeline
from tests.include.loadtest.conftest import Run


def test_a_queue_at_the_server_shows_at_the_same_seconds_on_both_sides(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=40, itl_ms=10, slots=2))
    outcome = run(
        load={"mode": "closed", "concurrency": 6, "duration_s": 4, "ramp_s": 0.0},
        run_args={"metrics_urls": (f"{server.url}/metrics",)},
    )
    found = outcome.extension["timeline"]
    client, said = found["client"], found["server"]
    assert len(found["seconds"]) == len(client["in_flight"]) == len(said["running"]) == len(said["waiting"])
    steady = slice(1, -1)  # first and last bin hold the ramp and the drain
    running, waiting = (np.array(said[name][steady], dtype=float) for name in ("running", "waiting"))
    assert np.nanmax(running) == 2
    assert np.nanmax(waiting) == 4  # 3 for the moment in which a slot changes hands
    assert np.median(client["in_flight"][steady]) == pytest.approx(6, abs=0.5)
    assert outcome.metrics_path is not None
    assert timeline(load_records(outcome.requests_path), outcome.metrics_path) == found
    page = draw(found)
    assert page.count("<svg") == 2
    assert "server: waiting" in page
    assert "client: in flight" in page
    assert "chat c=6: requests under way" in plots(found, "chat c=6")[0]


def test_in_flight_is_exact_and_nothing_is_made_up_without_metrics(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=20, itl_ms=2))
    outcome = run(load={"mode": "closed", "concurrency": 3, "requests": 60})
    records = load_records(outcome.requests_path).phase("measure")
    found = outcome.extension["timeline"]
    lived = np.nansum(records.times("end_ns") - records.times("sent_ns"))
    width = 2 * found["seconds"][0]
    assert sum(found["client"]["in_flight"]) * width == pytest.approx(lived, rel=1e-3)
    assert sum(found["client"]["requests_per_s"]) * width == pytest.approx(60, rel=1e-3)
    assert found["server"] == {}


def test_a_run_without_answers_has_no_timeline() -> None:
    assert "no request" in draw({})
    assert plots({}) == []
