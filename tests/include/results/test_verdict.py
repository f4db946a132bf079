"""The verdict engine finds what was planted and keeps quiet otherwise; the unit is the run."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import results_simulation as sim
from include.errors import ConfigurationError
from include.results.verdict.attribution import Change, bisect, changes
from include.results.verdict.confirm import decide, plan, stands
from include.results.verdict.fdr import adjusted
from include.results.verdict.judge import History, examine, judge
from include.results.verdict.noise import Noise, learn
from include.results.verdict.paired import Pair, compare, pairs_needed, plan_order, unpaired
from include.results.verdict.segments import change_points


def _series(seed: int, count: int, cv: float = 0.01, step: float = 0.0, at: int = 0) -> list[float]:
    rng = np.random.default_rng(seed)
    return [100 * math.exp(rng.normal(0, cv)) * (1 + (step if n >= at else 0)) for n in range(count)]


def _names(count: int) -> list[str]:
    return [f"2026-10-{n + 1:02d}" if n < 31 else f"2026-11-{n - 30:02d}" for n in range(count)]


def _history(values: list[float | None], **more: object) -> History:
    return History("s/ttft_ms_p50", values, _names(len(values)), **more)  # type: ignore[arg-type]


def test_a_planted_step_is_a_change_point_with_its_size() -> None:
    points, noise = change_points(np.log(_series(1, 40, step=0.05, at=25)))
    (point,) = points
    assert point.index == 25
    assert point.low < 0.05 < point.high
    assert 0.005 < noise.cv < 0.02


def test_a_step_is_suspected_the_same_night_and_fails_only_once_confirmed() -> None:
    finding = examine(_history([*_series(2, 30), 106.0]))
    (open_one,) = judge([finding])
    assert (open_one.outcome, open_one.confirm, open_one.page) == ("inconclusive", True, False)
    (failed,) = judge([finding], {"s/ttft_ms_p50": "confirmed"})
    assert (failed.outcome, failed.page) == ("fail", True)
    (refuted,) = judge([finding], {"s/ttft_ms_p50": "refuted"})
    assert (refuted.outcome, refuted.page) == ("pass", False)


def test_a_quiet_series_passes_and_says_what_it_could_have_seen() -> None:
    (verdict,) = judge([examine(_history(list(_series(3, 30))))])
    assert verdict.outcome == "pass"
    assert 0 < verdict.finding.seen < 0.06
    assert "smallest change" in verdict.reason


def test_a_noisy_series_is_inconclusive_rather_than_passed() -> None:
    found = [judge([examine(_history(list(_series(seed, 30, cv=0.08))))])[0] for seed in range(20)]
    assert sum(one.outcome == "inconclusive" for one in found) >= 12
    assert min(one.finding.seen for one in found) > 0.12


def test_a_worsening_as_large_as_the_tolerance_hardly_ever_passes() -> None:
    found = [judge([examine(_history(list(_series(s, 34, cv=0.04, step=0.05, at=29))))])[0] for s in range(40)]
    assert sum(one.outcome == "pass" for one in found) <= 4


@pytest.mark.parametrize("step", [-0.08, 0.08])
def test_better_is_never_paged(step: float) -> None:
    worse = "higher" if step < 0 else "lower"
    finding = examine(_history(list(_series(5, 34, step=step, at=31)), worse=worse))
    (verdict,) = judge([finding])
    assert (verdict.outcome, verdict.page, verdict.confirm) == ("pass", False, False)
    assert "better" in verdict.reason


def test_a_night_without_a_value_is_inconclusive_and_never_zero() -> None:
    values: list[float | None] = [*_series(6, 20), None]
    (verdict,) = judge([examine(_history(values))])
    assert verdict.outcome == "inconclusive"
    assert "no valid, isolated result tonight" in verdict.reason
    values[7] = values[8] = None
    assert examine(_history([*values, 100.0])).p > 0.001


def test_one_outlier_night_raises_no_change_point_and_no_later_suspicion() -> None:
    values = _series(7, 30)
    values[22] *= 1.25
    assert not examine(_history(list(values))).changes
    (verdict,) = judge([examine(_history(list(values)))])
    assert verdict.outcome == "pass"


def test_slow_drift_is_named_and_not_called_a_step() -> None:
    values = [value * math.exp(0.004 * n) for n, value in enumerate(_series(8, 36))]
    finding = examine(_history(list(values)))
    assert finding.drift == pytest.approx(0.004, abs=0.0015)
    assert finding.p > 0.01


def test_autocorrelated_noise_widens_the_interval() -> None:
    rng = np.random.default_rng(9)
    noise = rng.normal(0, 0.01, 200)
    for place in range(1, 200):
        noise[place] += 0.6 * noise[place - 1]
    assert learn(noise).rho == pytest.approx(0.6, abs=0.15)
    assert learn(rng.normal(0, 0.01, 200)).rho < 0.2


def test_too_few_nights_say_so() -> None:
    (verdict,) = judge([examine(_history([100.0, 101.0, 99.0]))])
    assert verdict.outcome == "inconclusive"
    assert "3 nights of history" in verdict.reason


def test_an_accepted_change_starts_a_new_baseline() -> None:
    values = _series(10, 20) + _series(11, 14, step=0.1, at=0)
    names = _names(34)
    finding = examine(_history(list(values), since=names[20]))
    assert finding.first >= names[20]
    assert finding.p > 0.01


def test_a_pinned_baseline_sees_what_creeps() -> None:
    values = [value * math.exp(0.004 * n) for n, value in enumerate(_series(12, 40))]
    finding = examine(_history(list(values), pinned=tuple(_names(40)[:8])))
    assert finding.effect > 0.1
    assert finding.p < 1e-4


def test_paired_finds_three_percent_under_drift_where_unpaired_does_not() -> None:
    rng = np.random.default_rng(13)
    paired = alone = 0
    for _ in range(40):
        level, pairs, order = 100.0, [], plan_order(8)
        for place in range(8):
            arms = {}
            for arm in order[2 * place : 2 * place + 2]:
                level *= math.exp(0.02 + rng.normal(0, 0.005))
                arms[arm] = level * (1.03 if arm == "b" else 1.0) * math.exp(rng.normal(0, 0.004))
            pairs.append(Pair(arms["a"], arms["b"], order[2 * place]))
        found = compare(pairs)
        paired += found.verdict == "higher" and found.low < 0.03 < found.high
        alone += unpaired([p.a for p in pairs], [p.b for p in pairs]).verdict == "higher"
    assert paired >= 36
    assert alone <= 4


def test_pairs_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="TooFewPairs"):
        compare([Pair(1, 2)])
    with pytest.raises(ConfigurationError, match="NotPositive"):
        compare([Pair(1, 2), Pair(1, 0), Pair(1, 2)])


def test_a_confirmation_is_planned_by_noise_and_decided_by_its_interval() -> None:
    assert plan(0.05, Noise(0.01, 0, 20)).pairs == 6
    assert not plan(0.05, Noise(0.08, 0, 20)).enough
    up = [Pair(100, 105 + n % 2, "a" if n % 2 else "b") for n in range(6)]
    assert decide(up, 0.05)[0] == "confirmed"
    flat = [Pair(100, 100 + (n % 2) / 5, "a" if n % 4 < 2 else "b") for n in range(6)]
    assert decide(flat, 0.05)[0] == "refuted"
    assert decide(up, -0.05)[0] == "refuted"
    assert stands(0.05, 0.045)
    assert not stands(0.2, 0.01)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=60))
def test_false_discovery_levels_are_what_the_definition_says(levels: list[float]) -> None:
    found = adjusted(levels)
    ranked = sorted(levels)
    for level, q in zip(levels, found, strict=True):
        at_least = [len(levels) * p / (n + 1) for n, p in enumerate(ranked) if p >= level]
        assert q == pytest.approx(min(1.0, *at_least, 1.0))


@settings(max_examples=30, deadline=None)
@given(st.floats(0.002, 0.05), st.floats(0.01, 0.2))
def test_more_pairs_are_needed_for_less(sigma: float, effect: float) -> None:
    assert pairs_needed(sigma, effect) >= pairs_needed(sigma, effect * 2)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.one_of(st.none(), st.floats(1e-3, 1e6), st.just(math.nan), st.just(0.0)), max_size=45),
)
def test_any_history_gets_a_verdict(values: list[float | None]) -> None:
    (verdict,) = judge([examine(_history(values))])
    assert verdict.outcome in ("pass", "fail", "inconclusive")
    assert verdict.reason


def test_attribution_names_what_changed_and_bisection_the_guilty_one() -> None:
    good = {"image_digest": "sha256:a", "revision": "r1", "spec_digest": "s1", "node_names": "n1"}
    bad = good | {"image_digest": "sha256:b", "spec_digest": "s2", "node_names": "n2"}
    found = changes(good, bad)
    assert [change.factor for change in found] == ["image", "custom resource", "nodes"]
    asked: list[tuple[Change, ...]] = []

    def is_bad(part: tuple[Change, ...]) -> bool:
        asked.append(part)
        return found[1] in part

    assert bisect(found, is_bad) == (found[1],)
    assert len(asked) == len(set(asked))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.data())
def test_bisection_finds_any_guilty_set(count: int, data: st.DataObject) -> None:
    found = [Change(f"f{n}", "a", "b") for n in range(count)]
    guilty = set(data.draw(st.lists(st.sampled_from(found), min_size=1, max_size=3)))
    assert set(bisect(found, lambda part: guilty <= set(part))) == guilty


def test_a_healthy_fleet_is_left_alone_and_steps_are_found() -> None:
    """The bench's simulation, small: 60 series for 6 nights, and 40 steps of 5 % at a CV of 1 %."""
    rng = sim.seeded("test")
    fleet = [sim.series(rng, sim.KINDS[n % 5], sim.CVS[n % 3], 0.0, 40, 40) for n in range(60)]
    cost = sim.Cost()
    pages, levels = sim.ours_fleet(rng, fleet, range(34, 40), cost)
    assert pages == 0
    steps = [sim.series(rng, sim.KINDS[n % 5], 0.01, 0.05, 40, 34) for n in range(40)]
    assert sum(sim.ours_step(rng, one, levels[:3], cost)[0] for one in steps) >= 34


def test_a_coarse_clock_that_moves_a_tick_now_and_then_is_no_change() -> None:
    ticks = [10.0, 10.0, 10.1, 10.0, 10.0] * 6
    assert not judge([examine(History("s", [*ticks, 10.1], [f"{place:03d}" for place in range(31)]))])[0].confirm


def test_pairs_of_any_size_have_a_finite_difference() -> None:
    assert math.isfinite(compare([Pair(1e-300, 1e300)] * 4).effect)


@given(st.lists(st.sampled_from([1e-6, 2.0, 2.1, None]), min_size=1, max_size=40))
@settings(max_examples=60, deadline=None)
def test_a_series_that_jumps_between_nothing_and_all_gets_a_verdict(values: list[float | None]) -> None:
    history = History("s", values, [f"{place:03d}" for place in range(len(values))], "lower")
    assert judge([examine(history)])[0].outcome != "fail"
