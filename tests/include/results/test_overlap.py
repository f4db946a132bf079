"""Runs that shared an endpoint are flagged, and the baseline is that of the isolated ones."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from include.results.decisions import Decision, Decisions, decide, read_decisions
from include.results.index import Index
from include.results.series import load_series, streak
from include.results.store import ResultsStore
from include.results.verdict.overlap import Window, contaminated
from tests.include.results.builders import START, provenance, record, result, run_of

BEGAN = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def _window(key: str, endpoint: str, start: float, end: float) -> Window:
    return Window(key, endpoint, BEGAN + dt.timedelta(seconds=start), BEGAN + dt.timedelta(seconds=end))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 60), st.integers(0, 30)), max_size=25))
def test_the_sweep_agrees_with_comparing_all_pairs(given_windows: list[tuple[str, int, int]]) -> None:
    windows = [_window(str(n), e, start, start + length) for n, (e, start, length) in enumerate(given_windows)]
    found = contaminated(windows)
    for one in windows:
        others = {
            two.key
            for two in windows
            if two.key != one.key and two.endpoint == one.endpoint and one.start < two.end and two.start < one.end
            and two.end > two.start and one.end > one.start
        }  # fmt: skip
        assert set(found[one.key].others if one.key in found else ()) == others
        if one.key in found:
            assert 0 < found[one.key].share <= 1


def test_a_replay_of_overlapping_runs_gives_the_isolated_baseline(tmp_path: Path) -> None:
    """Two of five nightly runs share their endpoint with another team's run that takes a third of the throughput."""
    store, rng, truth = ResultsStore.open(str(tmp_path)), np.random.default_rng(3), 500.0
    planted = set()
    for night in range(30):
        shared = night % 5 in (1, 3)
        value = truth * float(np.exp(rng.normal(0, 0.01))) * (0.66 if shared else 1.0)
        mine = result(night, provenance=provenance(endpoint_uid="uid-1"))
        stats = mine.statistics.model_copy(update={"output_tokens_per_s": value})
        store.put_result(mine.model_copy(update={"statistics": stats}), None)
        if shared:
            planted.add(mine.result_id)
            other = run_of(night, dag_id="someone_else")
            begun = START + dt.timedelta(days=night, minutes=10, seconds=20)
            store.put_result(
                result(night, run=other, workload="rag", provenance=provenance(endpoint_uid="uid-1"),
                       started_at=begun, ended_at=begun + dt.timedelta(minutes=3)),
                None,
            )  # fmt: skip
    (mine_series,) = [one for one in load_series(Index(store)) if one.identity["workload"] == "chat"]
    assert set(mine_series.overlaps) == planted
    history = mine_series.history("output_tokens_per_s", Decisions())
    kept = [value for value in history.values if value is not None]
    assert len(kept) == 18
    assert abs(np.median(kept) / truth - 1) < 0.01
    everything = [row["output_tokens_per_s"] for row in mine_series.rows]
    assert abs(np.mean(everything) / truth - 1) > 0.1


def test_levels_of_one_run_do_not_contaminate_each_other(tmp_path: Path) -> None:
    store = ResultsStore.open(str(tmp_path))
    for load in ("c=1", "c=4"):
        store.put_result(result(0, load=load, provenance=provenance(endpoint_uid="u")), None)
    assert all(not one.overlaps for one in load_series(Index(store)))


def test_failed_nights_are_in_the_series_with_their_reason(tmp_path: Path) -> None:
    store = ResultsStore.open(str(tmp_path))
    for night in range(4):
        store.put_result(result(night), None)
    for night in (4, 5):
        store.put_record(record(night, state="failed", reason="ImagePullBackOff"))
    (one,) = load_series(Index(store))
    assert len(one.nights) == 6
    assert {gap["reason"] for gap in one.gaps.values()} == {"ImagePullBackOff"}
    assert one.history("ttft_ms_p50", Decisions()).values[-2:] == [None, None]
    assert streak(one) == 2


def test_repeats_in_a_night_teach_noise_and_do_not_become_nights(tmp_path: Path) -> None:
    store = ResultsStore.open(str(tmp_path))
    for number, ttft in enumerate((100.0, 102.0)):
        store.put_result(result(0, run=run_of(0, run_id=f"try-{number}"), ttft=ttft), None)
    history = load_series(Index(store))[0].history("ttft_ms_p50", Decisions())
    assert len(history.values) == 1
    assert sorted(history.repeats[0]) == [100.0, 102.0]


def test_a_changed_slo_starts_goodput_anew_and_nothing_else(tmp_path: Path) -> None:
    store = ResultsStore.open(str(tmp_path))
    for night in range(6):
        store.put_result(result(night, slo={"ttft_ms": 300.0 if night < 4 else 200.0}), None)
    (one,) = load_series(Index(store))
    assert one.history("goodput_rps", Decisions()).since == "2026-10-05"
    assert one.history("ttft_ms_p50", Decisions()).since == ""


def test_decisions_are_kept_with_reason_and_the_last_pin_stands(tmp_path: Path) -> None:
    store = ResultsStore.open(str(tmp_path))
    for second, (kind, nights) in enumerate(
        [("accept", ("2026-10-05",)), ("pin", ("2026-10-01", "2026-10-02")), ("unpin", ())]
    ):
        at = BEGAN + dt.timedelta(seconds=second)
        decide(store.objects, Decision(kind=kind, series="s", nights=nights, reason="new driver", at=at))  # type: ignore[arg-type]
        if kind == "pin":
            assert read_decisions(store.objects).pinned("s", "ttft_ms_p50") == ("2026-10-01", "2026-10-02")
    made = read_decisions(store.objects)
    assert made.since("s", "ttft_ms_p50") == "2026-10-05"
    assert made.pinned("s", "ttft_ms_p50") == ()
    assert {item.reason for item in made.of("s")} == {"new driver"}
