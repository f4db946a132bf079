"""The store keeps what it is given, once, and tells what is broken."""

from __future__ import annotations

import datetime as dt
import json
import threading
from pathlib import Path

import pytest

from include.catalog.plan import RunIdentity
from include.endpoint.model import TeardownReport
from include.errors import IntegrityError
from include.objects import Objects
from include.results.journal import RunJournal
from include.results.paths import safe_segment
from include.results.schema import StageOutcome
from include.results.schemas import FOLDER, PUBLISHED, schema_of
from include.results.store import ResultsStore
from tests.include.results.builders import (
    START,
    percentiles,
    provenance,
    record,
    requests_file,
    result,
    run_of,
    statistics,
)


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    return ResultsStore.open(str(tmp_path / "store"))


def test_published_schemas_are_those_of_the_models() -> None:
    for name in PUBLISHED:
        assert json.loads((FOLDER / f"{name}.schema.json").read_text()) == schema_of(name), f"publish() {name} again"


def test_second_put_keeps_the_first_and_its_requests(store: ResultsStore, tmp_path: Path) -> None:
    first = store.put_result(result(ttft=100.0), requests_file(tmp_path / "a.parquet", ttft_ms=100))
    again = store.put_result(result(ttft=999.0), requests_file(tmp_path / "b.parquet", ttft_ms=999))
    assert again == first
    assert again.statistics.ttft_ms.p50 == 100.0
    kept = Path(first.requests_uri.removeprefix("file://")).read_bytes()
    assert kept == (tmp_path / "a.parquet").read_bytes()
    assert list(store.results()) == [first]


def test_writers_at_once_leave_one_result_with_its_own_requests(store: ResultsStore, tmp_path: Path) -> None:
    files = [requests_file(tmp_path / f"{n}.parquet", ttft_ms=100 + n) for n in range(6)]
    gate = threading.Barrier(6)

    def write(n: int) -> None:
        gate.wait()
        store.put_result(result(ttft=100.0 + n), files[n])

    threads = [threading.Thread(target=write, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (kept,) = store.results()
    number = int(kept.statistics.ttft_ms.p50 - 100)  # type: ignore[operator]
    assert Path(kept.requests_uri.removeprefix("file://")).read_bytes() == files[number].read_bytes()


def test_a_value_without_json_or_of_a_wrong_type_is_refused_before_anything_is_written(store: ResultsStore) -> None:
    bad = result().model_copy(update={"statistics": statistics(ttft_ms=percentiles(float("nan")))})
    with pytest.raises(IntegrityError, match="SchemaViolation"):
        store.put_result(bad, None)
    wrong = result().model_copy(update={"workload": 7})
    with pytest.raises(IntegrityError, match="workload"):
        store.put_result(wrong, None)
    assert not list(store.objects.list())


def test_of_run_finds_its_own_results_only(store: ResultsStore) -> None:
    mine, other = run_of(3, cell="a--chat"), run_of(3, cell="b--chat")
    for minute, load in enumerate(("c=8", "c=1")):
        store.put_result(result(run=mine, load=load, started_at=START + dt.timedelta(minutes=minute)), None)
    store.put_result(result(run=other), None)
    assert [item.load for item in store.of_run(mine.path)] == ["c=8", "c=1"]
    assert store.of_run(run_of(4).path) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "a/b", "<script>", "..", "", "模型", "x" * 300, "a b"])
def test_hostile_names_stay_one_segment_and_round_trip(store: ResultsStore, name: str) -> None:
    kept = store.put_result(result(provenance=provenance(model=name), result_id=f"id {name}"), None)
    assert kept.provenance.model == name
    (path,) = store.result_paths()
    assert path.count("/") == 3
    assert ".." not in path.split("/")
    assert list(store.results(model=name)) == [kept]


def test_names_that_differ_never_share_a_segment() -> None:
    names = ["a/b", "a_b", "a b", "A/b", "..", "."]
    assert len({safe_segment(name) for name in names}) == len(names)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda data: data[: len(data) // 2], "ResultInvalid"),
        (lambda data: data.replace(b'"workload": "chat"', b'"workload": 7'), "workload"),
        (lambda data: data.replace(b'"schema_version": 1', b'"schema_version": 9'), "schema_version 9"),
        (lambda data: b"", "ResultInvalid"),
    ],
)
def test_a_damaged_file_is_named(store: ResultsStore, damage: object, says: str) -> None:
    store.put_result(result(), None)
    (path,) = store.result_paths()
    data = store.objects.get(path)
    store.objects.put(path, damage(data))  # type: ignore[operator]
    with pytest.raises(IntegrityError, match=says) as caught:
        list(store.results())
    assert path in str(caught.value)


def test_journal_keeps_a_run(store: ResultsStore) -> None:
    journal = RunJournal(store.objects, run_of(1))
    assert journal.read_record() is None
    journal.write_record(record(1, state="failed", reason="ImagePullBackOff"))
    journal.write_teardown(TeardownReport(endpoint="e", absent=True))
    assert journal.read_record() == record(1, state="failed", reason="ImagePullBackOff")
    assert [item.reason for item in store.records()] == ["ImagePullBackOff"]
    teardown = RunJournal(Objects.open(store.objects.uri), run_of(1)).read_teardown()
    assert teardown is not None
    assert teardown.absent


def test_the_outcome_of_the_stage_named_record_is_not_taken_for_a_runs_record(tmp_path: Path) -> None:
    store = ResultsStore.open(str(tmp_path))
    journal = RunJournal(store.objects, RunIdentity(dag_id="d", run_id="r", started_at=dt.datetime.now(dt.UTC)))
    journal.write_outcome(StageOutcome(stage="record", state="success", attempt=1, started_at=dt.datetime.now(dt.UTC)))
    assert list(store.records()) == []
