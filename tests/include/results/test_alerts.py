"""An alert is told once, stays open in silence, and closes when the trouble is over."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from include.objects import Objects
from include.results.alerts import Alert, Trouble, failures, keep, message, read_open, reconcile, regressions
from include.results.verdicts import VerdictRecord


def _trouble(key: str = "regression/s") -> Trouble:
    return Trouble(key=key, kind="regression", title="llama is worse", text="+12 %", owner="ml-platform")


def test_the_same_trouble_is_told_once_and_closed_when_judged_fine(tmp_path: Path) -> None:
    objects = Objects.open(str(tmp_path))
    first = reconcile(read_open(objects), [_trouble()], "2026-10-21", {"regression/s"})
    assert len(first.opened) == 1
    keep(objects, first)
    second = reconcile(read_open(objects), [_trouble()], "2026-10-22", {"regression/s"})
    assert (len(second.opened), len(second.kept), second.kept[0].nights) == (0, 1, 2)
    keep(objects, second)
    silent = reconcile(read_open(objects), [], "2026-10-23", set())
    assert (len(silent.kept), len(silent.closed)) == (1, 0)
    over = reconcile(read_open(objects), [], "2026-10-24", {"regression/s"})
    keep(objects, over)
    assert "over on 2026-10-24, open since 2026-10-21 (owner: ml-platform)" in message(over.closed[0])
    assert read_open(objects) == []


@settings(max_examples=60, deadline=None)
@given(st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")), st.sets(st.sampled_from("abcdef")))
def test_nothing_is_lost_and_nothing_told_twice(known: set[str], now: set[str], judged: set[str]) -> None:
    alerts = [Alert(trouble=_trouble(key), opened="1", last_seen="1") for key in known]
    made = reconcile(alerts, [_trouble(key) for key in now], "2", judged)
    opened, kept, closed = ({one.trouble.key for one in part} for part in (made.opened, made.kept, made.closed))
    assert opened == now - known
    assert closed == (known - now) & judged
    assert kept == known - closed


def test_only_confirmed_regressions_are_told_one_per_series_to_the_models_owner() -> None:
    def verdict(series: str, metric: str, outcome: str) -> VerdictRecord:
        return VerdictRecord(series=series, name="llama · chat", metric=metric, night="n", outcome=outcome, reason="r")  # type: ignore[arg-type]

    troubles, judged = regressions(
        [verdict("s", "ttft_ms_p50", "fail"), verdict("s", "tpot_ms_p50", "fail"), verdict("t", "x", "inconclusive"),
         verdict("u", "x", "pass")],
        {"llama": "team-a"},
    )  # fmt: skip
    assert [(one.key, one.owner) for one in troubles] == [("regression/s", "team-a")]
    assert judged == {"regression/s", "regression/u"}


def test_failed_nights_in_a_row_are_one_trouble() -> None:
    def run(state: str, cell: str) -> dict[str, str]:
        return {"dag_id": "nightly_benchmark", "cell": cell, "model": "llama", "state": state, "failed_stage": "stage",
                "reason": "Denied", "message": "m", "fix": "f"}  # fmt: skip

    runs = [run("failed", "a"), run("failed", "a"), run("success", "a"), run("success", "b"), run("failed", "b"),
            run("skipped", "c")]  # fmt: skip
    troubles, ran = failures(runs, {"llama": "o"})
    assert [one.title for one in troubles] == ["nightly_benchmark/a failed 2 time(s) in a row"]
    assert ran == {"failed/nightly_benchmark/a", "failed/nightly_benchmark/b"}
