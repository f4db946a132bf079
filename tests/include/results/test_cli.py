"""The commands answer what they are asked, and say what is wrong with a question."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from include.results.cli import main
from include.results.index import Index
from include.results.store import ResultsStore
from include.results.verdicts import judge_night, keep, read_night
from tests.include.results.builders import provenance, record, result, run_of, statistics


@pytest.fixture
def store(tmp_path: Path) -> ResultsStore:
    """Twelve good nights, one that failed, then a step of 20 % with a new image."""
    kept, rng = ResultsStore.open(str(tmp_path / "store")), np.random.default_rng(1)
    for night in range(12):
        kept.put_result(result(night, ttft=100 * float(np.exp(rng.normal(0, 0.01)))), None)
    kept.put_record(record(12, state="failed", failed_stage="wait_until_ready", reason="ImagePullBackOff"))
    kept.put_result(result(13, ttft=120.0, provenance=provenance(image_digest="sha256:new")), None)
    return kept


def _run(store: ResultsStore, *arguments: str) -> int:
    return main(["--store", store.objects.uri.removeprefix("file://"), *arguments])


def test_show_tells_series_nights_and_failures(store: ResultsStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(store, "show") == 0
    out = capsys.readouterr().out
    assert "llama · chat · c=4 · cold" in out
    series = out.splitlines()[1].split()[0]
    assert _run(store, "show", series) == 0
    assert "failed: wait_until_ready: ImagePullBackOff" in capsys.readouterr().out
    assert _run(store, "show", "nothing") == 2


def test_verdict_suspects_the_step_and_names_the_image(store: ResultsStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(store, "verdict", "--keep") == 0
    out = capsys.readouterr().out
    assert "to be confirmed by a re-run" in out
    assert "image: sha256:444" in out
    made = read_night(store.objects)
    assert made is not None
    assert {one.metric for one in made.to_confirm} >= {"ttft_ms_p50"}


def test_an_accepted_change_is_recorded_and_ends_the_suspicion(
    store: ResultsStore, capsys: pytest.CaptureFixture[str]
) -> None:
    series = judge_night(Index(store)).verdicts[0].series
    assert _run(store, "verdict", "--accept", series, "--night", "2026-10-14") == 2
    assert "--reason" in capsys.readouterr().err
    assert _run(store, "verdict", "--accept", series, "--night", "2026-10-14", "--reason", "bigger context") == 0
    made = judge_night(Index(store))
    assert not made.to_confirm
    assert keep(store.objects, made).endswith("2026-10-14.json")


def test_a_failed_night_is_a_verdict_with_its_reason(store: ResultsStore) -> None:
    made = judge_night(Index(store), "2026-10-13")
    assert {one.outcome for one in made.verdicts} == {"inconclusive"}
    assert all("ImagePullBackOff (1 night(s) in a row)" in one.reason for one in made.verdicts)


def test_compare_refuses_what_is_not_comparable_and_pairs_the_rest(
    store: ResultsStore, capsys: pytest.CaptureFixture[str]
) -> None:
    ids: dict[str, list[str]] = {"a": [], "b": []}
    for place in range(6):
        for arm, ttft in (("a", 100.0), ("b", 103.0)):
            one = result(20, run=run_of(20, run_id=f"{arm}{place}"), ttft=ttft + place / 10)
            ids[arm].append(store.put_result(one, None).result_id)
    other = store.put_result(result(21, workload="rag"), None).result_id
    assert _run(store, "compare", ids["a"][0], other) == 2
    assert "workload: 'chat' != 'rag'" in capsys.readouterr().err
    assert _run(store, "compare", ",".join(ids["a"]), ",".join(ids["b"])) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("ttft_ms_p50"))
    assert "+3.0%" in line
    assert "higher" in line
    assert _run(store, "compare", ids["a"][0], ids["b"][0]) == 0
    assert "inconclusive" in capsys.readouterr().out


def test_import_and_export_go_through_the_store(
    store: ResultsStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = store.of_run(run_of(0).path)[0]
    out = tmp_path / "out.json"
    assert _run(store, "export", source.result_id, "--format", "vllm-bench", "--out", str(out)) == 0
    other = ResultsStore.open(str(tmp_path / "other"))
    assert _run(other, "import", str(out)) == _run(other, "import", str(out)) == 0
    assert len(set(capsys.readouterr().out.split())) == 1
    assert _run(other, "export", "--format", "vllm-bench") == 0
    assert json.loads(capsys.readouterr().out) == json.loads(out.read_text())
    out.write_text(out.read_text()[:40])
    assert _run(other, "import", str(out)) == 2
    assert "field (file)" in capsys.readouterr().err


def test_cost_says_how_many_instances(store: ResultsStore, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.include.results.builders import statistics

    stats = statistics(goodput_rps=4.0, goodput_share=0.99)
    store.put_result(result(30, statistics=stats, cost_usd="0.0510"), None)
    assert _run(store, "cost", "--rate", "10") == 0
    cells = capsys.readouterr().out.splitlines()[2].split()
    assert cells[2:5] == ["ml.g5.8xlarge", "3", "9.18"]
    assert _run(store, "cost", "--rate", "0") == 2


def test_pairs_of_re_runs_turn_a_suspicion_into_a_failure(
    store: ResultsStore, capsys: pytest.CaptureFixture[str]
) -> None:
    series = judge_night(Index(store)).to_confirm[0].series
    ids: dict[str, list[str]] = {"a": [], "b": []}
    for place in range(6):
        for arm, ttft in (("a", 100.0), ("b", 119.0)):
            one = result(0, run=run_of(0, dag_id="re-run", run_id=f"{arm}{place}"), ttft=ttft + place / 5, load="c=5")
            ids[arm].append(store.put_result(one, None).result_id)
    pairs = (",".join(ids["a"]), ",".join(ids["b"]))
    assert _run(store, "confirm", series, *pairs, "--metric", "goodput_rps") == 2
    assert "is not suspected" in capsys.readouterr().err
    assert _run(store, "confirm", series, *pairs, "--metric", "ttft_ms_p50") == 1
    assert "confirmed: B over A +1" in capsys.readouterr().out
    (page,) = judge_night(Index(store)).pages
    assert (page.outcome, page.metric) == ("fail", "ttft_ms_p50")
    assert _run(store, "verdict") == 1


@pytest.mark.parametrize("night", ["2026-10-99", "2027-01-01", "tonight"])
def test_a_night_that_never_was_is_refused_where_it_is_judged_and_where_it_is_decided_on(
    store: ResultsStore, capsys: pytest.CaptureFixture[str], night: str
) -> None:
    series = judge_night(Index(store)).verdicts[0].series
    assert _run(store, "verdict", "--night", night) == 2
    for kind in ("--accept", "--pin"):
        assert _run(store, "verdict", kind, series, "--night", night, "--reason", "a typo") == 2
    assert capsys.readouterr().err.count("NightUnknown") == 3
    assert not list(store.objects.list("verdicts/decisions"))


def test_goodput_of_zero_is_the_worst_regression_and_no_missing_night(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept, rng = ResultsStore.open(str(tmp_path / "store")), np.random.default_rng(2)
    for night in range(14):
        rate = 0.0 if night == 13 else 2 * float(np.exp(rng.normal(0, 0.01)))
        kept.put_result(result(night, statistics=statistics(goodput_rps=rate)), None)
    assert _run(kept, "verdict", "--json") == 0
    (mine,) = [one for one in json.loads(capsys.readouterr().out)["verdicts"] if one["metric"] == "goodput_rps"]
    assert mine["confirm"]
    assert mine["effect"] == pytest.approx(-1, abs=1e-4)


@pytest.mark.parametrize("place", ["verdicts/decisions/x.json", "verdicts/confirmations/2026-10-14/x.json"])
def test_a_broken_file_beside_the_results_is_named(
    store: ResultsStore, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    store.objects.put(place, b"{")
    assert _run(store, "verdict") == 2
    assert place in capsys.readouterr().err


def test_a_broken_index_is_named_and_made_again(store: ResultsStore, capsys: pytest.CaptureFixture[str]) -> None:
    assert _run(store, "reindex") == 0
    assert "13 results and 1 runs" in capsys.readouterr().out
    segment = next(store.objects.list("index/segments/results")).path
    store.objects.put(segment, (store.objects.get(segment) or b"")[:-20])
    assert _run(store, "show") == 2
    assert "reindex" in capsys.readouterr().err
    assert _run(store, "reindex") == 0
    assert _run(store, "show") == 0


def test_a_store_that_is_none_is_refused_and_an_empty_one_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for uri in ("s3://", "ftp://host/x"):
        assert main(["--store", uri, "show"]) == 2
    assert capsys.readouterr().err.count("StoreInvalid") == 2
    assert main(["--store", str(tmp_path), "show"]) == 0
    assert "no results in" in capsys.readouterr().err
