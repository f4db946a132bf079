"""A scheduled night runs what changed, failed or is due, and says why not of the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.catalog.loader import load_catalog
from include.catalog.specs import NightlyCell
from include.objects import Objects
from include.results.due import due, inputs, note, record_skipped
from include.results.index import Index
from include.results.store import ResultsStore
from tests.include.results.builders import record, run_of

CELL = "llama--chat--local"


def _entry(**more: object) -> NightlyCell:
    return NightlyCell(model="llama", workloads=("chat",), cluster="local", every_days=7, **more)  # type: ignore[arg-type]


@pytest.fixture
def objects(tmp_path: Path) -> Objects:
    """A cell that ran well in night 0."""
    kept = Objects.open(str(tmp_path))
    note(kept, run_of(0, cell=CELL), "in-1")
    ResultsStore(kept).put_record(record(0, run=run_of(0, cell=CELL)))
    return kept


@pytest.mark.parametrize(("night", "runs"), [(0, True), (1, False), (6, False), (7, True)])
def test_an_unchanged_cell_waits_for_its_day(objects: Objects, night: int, runs: bool) -> None:
    """In night 0 the same run asks again, as a retry does."""
    assert due(objects, run_of(night, cell=CELL), "in-1", _entry()).run is runs


def test_a_changed_and_a_failed_cell_are_due_at_once(objects: Objects) -> None:
    assert "changed" in due(objects, run_of(1, cell=CELL), "in-2", _entry()).reason
    note(objects, run_of(1, cell=CELL), "in-1")
    assert "did not succeed" in due(objects, run_of(2, cell=CELL), "in-1", _entry()).reason
    assert due(objects, run_of(1, cell="new"), "in-1", _entry()).reason == "has never run"


def test_a_quarantine_is_a_skipped_night_with_a_reason_and_ends_by_itself(objects: Objects) -> None:
    entry = _entry(quarantine={"until": "2026-10-03", "reason": "waits for capacity"})
    answer = due(objects, run_of(2, cell=CELL), "in-2", entry)
    assert answer.quarantined
    record_skipped(objects, run_of(2, cell=CELL), "llama", ["chat"], answer.reason)
    (row,) = Index(ResultsStore(objects)).query("SELECT reason, message FROM runs WHERE state = 'skipped'")
    assert row == {"reason": "Quarantined", "message": "quarantined until 2026-10-03: waits for capacity"}
    assert due(objects, run_of(3, cell=CELL), "in-2", entry).run


def test_the_inputs_are_what_the_catalog_says() -> None:
    catalog = load_catalog()
    one = inputs(catalog, "smollm2-135m", "smoke", "local")
    assert one == inputs(load_catalog(), "smollm2-135m", "smoke", "local")
    assert one != inputs(catalog, "smollm2-135m-long", "smoke", "local")
    assert inputs(catalog, "nothing", "smoke", "local")
