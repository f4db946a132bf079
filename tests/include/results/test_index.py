"""The index shows everything that the store holds, soon, once, and says what it could not read."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.endpoint.model import TeardownReport
from include.results import index as index_module
from include.results.index import Index
from include.results.journal import RunJournal
from include.results.pending import note, pending
from include.results.store import ResultsStore
from tests.include.results.builders import record, result, run_of


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore.open(str(tmp_path / "store"))


def _nights(index: Index, kind: str) -> list[str]:
    return [row["night"] for row in index.query(f"SELECT night FROM {kind} ORDER BY night")]


def test_a_new_result_is_seen_at_once_and_only_once(store: ResultsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    index = Index(store)
    store.put_result(result(0), None)
    assert _nights(index, "results") == ["2026-10-01"]
    store.put_result(result(1), None)
    index.refresh()
    assert _nights(index, "results") == ["2026-10-01", "2026-10-02"]
    monkeypatch.setattr(index_module, "SETTLE", dt.timedelta(0))
    index.refresh()
    assert not list(pending(store.objects, "results"))
    assert _nights(index, "results") == _nights(Index(store), "results") == ["2026-10-01", "2026-10-02"]


def test_a_reader_without_the_right_to_write_leaves_the_store_alone(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_module, "SETTLE", dt.timedelta(0))
    store.put_result(result(0), None)
    before = sorted(info.path for info in store.objects.list())
    assert len(Index(store).query("SELECT * FROM results")) == 1
    assert sorted(info.path for info in store.objects.list()) == before


def test_a_record_that_is_written_again_shows_its_newest_state(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = Index(store)
    journal = RunJournal(store.objects, run_of(0))
    journal.write_record(record(0, state="failed", reason="OutOfMemory"))
    index.refresh()
    monkeypatch.setattr(index_module, "SETTLE", dt.timedelta(0))
    index.refresh()
    later = record(0).model_copy(update={"ended_at": record(0).ended_at + dt.timedelta(minutes=5)})
    journal.write_record(later)
    index.refresh()
    journal.write_teardown(TeardownReport(endpoint="e", absent=True, gpu_hours=0.5, cost_usd=Decimal("0.01")))
    index.refresh()
    (row,) = index.query("SELECT state, absent, gpu_hours, cost_usd FROM runs")
    assert row == {"state": "success", "absent": True, "gpu_hours": 0.5, "cost_usd": 0.01}
    (same,) = Index(store).query("SELECT state, absent, gpu_hours, cost_usd FROM runs")
    assert same == row


def test_rebuild_finds_what_was_never_marked(store: ResultsStore) -> None:
    for night in range(5):
        store.put_result(result(night), None)
        RunJournal(store.objects, run_of(night)).write_record(record(night))
    for kind in ("results", "runs"):
        for marker in list(pending(store.objects, kind)):  # type: ignore[arg-type]
            store.objects.delete(marker.path)
    index = Index(store)
    assert _nights(index, "results") == []
    index.rebuild()
    assert len(_nights(index, "results")) == len(_nights(Index(store), "runs")) == 5


def test_a_marker_whose_file_never_came_is_dropped_after_an_hour(
    store: ResultsStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    note(store.objects, "results", "results/date=2026-10-01/model=x/gone.json")
    Index(store).refresh()
    assert len(list(pending(store.objects, "results"))) == 1
    monkeypatch.setattr(index_module, "LOST", dt.timedelta(0))
    Index(store).refresh()
    assert not list(pending(store.objects, "results"))


def test_a_broken_file_hides_no_other_and_is_told(store: ResultsStore) -> None:
    for night in range(3):
        store.put_result(result(night), None)
    broken = sorted(store.result_paths())[1]
    store.objects.put(broken, b'{"schema_version": 1, "result_id"')
    index = Index(store)
    index.refresh()
    assert _nights(index, "results") == ["2026-10-01", "2026-10-03"]
    (problem,) = index.problems
    assert broken in problem
    store.objects.put(broken, result(1).model_dump_json().encode())
    index.refresh()
    assert len(_nights(index, "results")) == 3
    assert not index.problems


def test_a_broken_proof_of_absence_hides_no_other_run_and_is_told(store: ResultsStore) -> None:
    for night in range(2):
        RunJournal(store.objects, run_of(night)).write_record(record(night))
    store.objects.put(f"{run_of(0).path}/teardown.json", b'{"endpoint"')
    index = Index(store)
    index.refresh()
    assert _nights(index, "runs") == ["2026-10-02"]
    assert "teardown.json" in index.problems[0]


def test_many_small_segments_become_one(store: ResultsStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "SETTLE", dt.timedelta(0))
    monkeypatch.setattr(index_module, "MOST_SEGMENTS", 3)
    reader = Index(store)
    for night in range(8):
        store.put_result(result(night), None)
        Index(store).refresh()
        reader.refresh(write=False)
    assert len(list(store.objects.list("index/segments/results"))) <= 3
    assert len(_nights(reader, "results")) == len(_nights(Index(store), "results")) == 8


def test_a_segment_of_an_older_version_is_read(store: ResultsStore) -> None:
    import io

    import pyarrow.parquet as pq

    store.put_result(result(0), None)
    index = Index(store)
    index.rebuild()
    (segment,) = [info.path for info in store.objects.list("index/segments/results")]
    content = pq.read_table(io.BytesIO(store.objects.get(segment) or b"")).drop_columns(["goodput_share", "imported"])
    buffer = io.BytesIO()
    pq.write_table(content, buffer)
    store.objects.put(segment, buffer.getvalue())
    (row,) = Index(store).query("SELECT goodput_share, ttft_ms_p50 FROM results")
    assert row == {"goodput_share": None, "ttft_ms_p50": 100.0}


def test_a_run_without_an_answer_is_no_zero(store: ResultsStore) -> None:
    from tests.include.results.builders import statistics

    store.put_result(result(0, statistics=statistics(None, ok=0, tokens_per_s=0.0, requests_failed=9)), None)
    (row,) = Index(store).query("SELECT ttft_ms_p50, output_tokens_per_s, requests_failed FROM results")
    assert row == {"ttft_ms_p50": None, "output_tokens_per_s": None, "requests_failed": 9}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(min_size=1, max_size=40))
def test_values_never_become_sql(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    from tests.include.results.builders import provenance

    own = ResultsStore.open(str(tmp_path_factory.mktemp("store")))
    try:
        own.put_result(result(0, provenance=provenance(model=text)), None)
    except UnicodeEncodeError:
        return
    rows = Index(own).query("SELECT model FROM results WHERE model = ?", [text])
    assert [row["model"] for row in rows] == [text]
