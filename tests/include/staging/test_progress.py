"""How far a staging is, is told also while it reads digests and copies inside the bucket."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from include.staging.api import resolve_revision, stage
from include.staging.context import Progress, StagingContext
from include.staging.digests import remembered_digests
from include.staging.progress import Meter
from tests.include.staging.conftest import MODELS_URI, Server, make_model, model_of

SIZES = (3 << 20, 2 << 20)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("include.staging.progress.SECONDS_BETWEEN", 0.0)


def test_bytes_of_many_threads_add_up_and_the_end_is_told() -> None:
    told: list[Progress] = []
    meter = Meter(80_000, told.append)
    works = [threading.Thread(target=lambda: [meter.count("a", 10) for _ in range(1000)]) for _ in range(4)]
    works += [threading.Thread(target=lambda: [meter.take("b", 10) for _ in range(1000)]) for _ in range(4)]
    for work in works:
        work.start()
    for work in works:
        work.join()
    assert (meter.done, meter.taken) == (40_000, 40_000)
    assert (told[-1].done, told[-1].total, told[-1].eta_s) == (80_000, 80_000, 0.0)
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert "100 %" in str(told[-1])


def test_reading_digests_tells_what_is_read_and_nothing_when_they_are_known(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    told: list[Progress] = []
    remembered_digests([path], tmp_path / "cache", told.append)
    assert [one.done for one in told] == [1 << 20, 2 << 20, 3 << 20]


@pytest.mark.local
def test_copies_inside_the_bucket_count_as_progress_and_not_as_moved(
    server: Server, context: StagingContext, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    make_model(folder, "first", SIZES, seed=16_000)
    read: list[Progress] = []
    reading = replace(context, reading=read.append)
    revision = resolve_revision(model_of(folder, "first"), reading)
    total = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert read[-1].done == read[-1].total == total
    stage(model_of(folder, "first"), revision, MODELS_URI, context, owner="test")
    told: list[Progress] = []
    again = stage(model_of(folder, "second"), revision, MODELS_URI, context, owner="test", progress=told.append)
    assert told[-1].done == told[-1].total == total
    assert again.moved_bytes < min(SIZES)
