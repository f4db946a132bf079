"""Arrivals, percentiles, windows, searches, histograms: the arithmetic."""

from __future__ import annotations

import math
import random
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom

from include.catalog.specs import LoadSpec, PromptSpec
from include.loadtest.engine.arrivals import schedule
from include.loadtest.engine.calibrate import check, single_token_words
from include.loadtest.engine.texts import Corpus
from include.loadtest.engine.words import VOCABULARY
from include.loadtest.job import Load, share
from include.loadtest.planning import workers_for
from include.loadtest.quantiles import histogram, interval, minimum_sample, quantile, summary
from include.loadtest.search import Probe, highest_load, isotonic, knee, verdict, wilson
from include.loadtest.window import trend


def test_the_sample_rule_is_the_published_one() -> None:
    assert [minimum_sample(p) for p in (50, 90, 95, 99, 99.9)] == [6, 29, 59, 299, 2995]


def test_too_few_values_give_no_percentile_rather_than_a_wrong_one() -> None:
    found = summary(np.arange(58, dtype=float))
    assert found["p90"] is not None
    assert found["p95"] is None
    assert "p95" not in found["ci95"]


@pytest.mark.parametrize("percentile", [50, 90, 99])
@pytest.mark.parametrize("count", [300, 1000])
def test_intervals_hold_the_true_percentile_as_often_as_they_say(percentile: float, count: int) -> None:
    rng = np.random.default_rng(11)
    truth = -math.log(1 - percentile / 100)
    hits = 0
    for _ in range(400):
        bounds = interval(np.sort(rng.exponential(size=count)), percentile)
        assert bounds is not None
        hits += bounds[0] <= truth <= bounds[1]
    assert hits / 400 > 0.925  # 95 % less three standard errors


@pytest.mark.parametrize("percentile", [1, 5, 50, 90, 95, 99, 99.9])
def test_intervals_cover_at_least_95_percent_from_the_first_sample_that_has_one(percentile: float) -> None:
    """By the binomial distribution itself: the interval of ranks i..j holds the quantile if i <= B < j."""
    p = percentile / 100
    first = minimum_sample(percentile)
    for count in [*range(first, first + 200), 1000, 3000, 10_000]:
        bounds = interval(np.arange(1, count + 1, dtype=float), percentile)
        if bounds is None:
            assert count < first
            continue
        low, high = bounds
        covered = binom.cdf(high - 1, count, p) - binom.cdf(low - 1, count, p)
        assert covered >= 0.95 - 1e-9, (count, bounds, covered)


@given(st.lists(st.floats(0.001, 1e6), min_size=1, max_size=200), st.integers(0, 200))
@settings(deadline=None)
def test_histograms_of_parts_add_up_to_that_of_the_whole(values: list[float], cut: int) -> None:
    parts = [histogram(np.array(part, dtype=float)) for part in (values[:cut], values[cut:])]
    total = {key: sum(part.get(key, 0) for part in parts) for key in {*parts[0], *parts[1]}}
    assert total == histogram(np.array(values))
    assert sum(total.values()) == len(values)


def test_a_quantile_is_numpys() -> None:
    values = np.sort(np.random.default_rng(1).random(500))
    assert quantile(values, 95) == pytest.approx(np.quantile(values, 0.95))


@given(
    rate=st.floats(0.5, 500),
    requests=st.integers(1, 400),
    arrivals=st.sampled_from(["constant", "poisson", "gamma"]),
    burstiness=st.floats(0.2, 5),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_arrivals_ascend_and_offer_exactly_the_rate(
    rate: float, requests: int, arrivals: str, burstiness: float, seed: int
) -> None:
    load = Load(mode="open", rate=rate, requests=requests, arrivals=arrivals, burstiness=burstiness)
    due = schedule(load, seed)
    assert len(due) == requests
    assert list(due) == sorted(due)
    assert due[0] == 0
    assert due[-1] <= requests / rate * 1e9 + 1
    assert due == schedule(load, seed)


@pytest.mark.parametrize("arrivals", ["constant", "poisson", "gamma", "ramp", "replay"])
def test_the_workers_parts_are_the_whole_schedule(arrivals: str) -> None:
    load = Load(mode="open", rate=50, end_rate=90, duration_s=3, arrivals=arrivals, burstiness=0.5)
    trace = [0.1 * number for number in range(40)]
    parts = [list(schedule(load, 5, trace, worker, 3)) for worker in range(3)]
    assert sorted(at for part in parts for at in part) == list(schedule(load, 5, trace))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_a_long_schedule_takes_little_memory() -> None:
    load = Load(mode="open", rate=1000, duration_s=300)
    tracemalloc.start()
    due = schedule(load, 1, worker=1, workers=4)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(due) == 75_000
    assert peak < 16 * 300_000


def test_burstiness_shapes_the_gaps() -> None:
    def variation(**load: Any) -> float:
        gaps = np.diff(np.array(schedule(Load(mode="open", rate=100, requests=5000, **load), 3)))
        return float(gaps.std() / gaps.mean())

    assert variation(arrivals="constant") < 1e-6
    assert variation(arrivals="poisson") == pytest.approx(1.0, abs=0.08)
    assert variation(arrivals="gamma", burstiness=0.25) == pytest.approx(2.0, abs=0.25)
    assert variation(arrivals="gamma", burstiness=4.0) == pytest.approx(0.5, abs=0.05)


def test_a_ramp_rises_evenly() -> None:
    due = np.array(schedule(Load(mode="open", rate=10, end_rate=30, duration_s=10, arrivals="ramp"), 1)) / 1e9
    assert len(due) == 200
    assert ((due >= 0) & (due < 1)).sum() == pytest.approx(11, abs=1)
    assert ((due >= 9) & (due < 10)).sum() == pytest.approx(29, abs=1)


def test_a_trace_keeps_its_own_times() -> None:
    due = schedule(Load(mode="open", arrivals="replay", duration_s=2.0), 1, [5.0, 4.5, 6.25, 9.0])
    assert list(due) == [0, 500_000_000, 1_750_000_000]


@given(st.integers(0, 10_000), st.integers(1, 64))
def test_shares_sum_to_the_whole(total: int, workers: int) -> None:
    parts = [share(total, worker, workers) for worker in range(workers)]
    assert sum(parts) == total
    assert max(parts) - min(parts) <= 1


@given(st.integers(1, 40_000), st.text(max_size=10), st.integers(0, 5))
@settings(max_examples=40, deadline=None)
def test_texts_have_exactly_the_words_asked_for(words: int, key: str, seed: int) -> None:
    text = Corpus(VOCABULARY, seed).text(words, key)
    assert len(text.split(" ")) == words
    assert set(text.split(" ")) <= set(VOCABULARY)


async def test_the_first_word_is_one_whose_tokens_are_known() -> None:
    """A tokenizer to which a word is one token only after a blank, but for the plainest: so do most of them count."""

    async def count(text: str) -> int:
        words = text.split(" ")
        return 1 + len(words) + (words[0] != "the") + sum(len(word) > 8 for word in words)

    found = await single_token_words(VOCABULARY, count)
    assert found is not None
    words, overhead = found
    assert overhead == 1
    assert set(words) == {word for word in VOCABULARY if len(word) <= 8}
    texts = [(Corpus(words, 1).text(length, f"key {length}"), length) for length in (2, 5, 7, 8, 300)]
    assert await check(texts, overhead, count) == (len(texts[::2]), 0)


def test_workers_follow_the_target_rate() -> None:
    prompts = (PromptSpec(output_tokens=100),)
    assert workers_for(LoadSpec(mode="open", rate=10), prompts, 8) == 1
    assert workers_for(LoadSpec(mode="open", rate=1000), prompts, 8) == 3
    assert workers_for(LoadSpec(mode="open", rate=1000), prompts, 2) == 2
    assert workers_for(LoadSpec(mode="closed", concurrency=1024), prompts, 8) == 2
    assert workers_for(LoadSpec(mode="closed", concurrency=1, workers=1), prompts, 8) == 1


def test_drift_is_told_from_noise() -> None:
    rng = np.random.default_rng(5)
    at = np.sort(rng.random(400)) * 60
    assert not trend(at, 100 + rng.normal(0, 10, 400)).unsteady
    assert trend(at, 100 + at + rng.normal(0, 10, 400)).unsteady
    assert not trend(at[:20], at[:20]).tested
    alarms = sum(trend(at, 100 * rng.lognormal(0, 0.4, 400)).unsteady for _ in range(200))
    assert alarms <= 2


@given(st.integers(0, 300), st.integers(1, 300))
def test_wilsons_interval_holds_the_share(good: int, total: int) -> None:
    good = min(good, total)
    low, high = wilson(good, total)
    assert 0 <= low <= good / total + 1e-12
    assert good / total - 1e-12 <= high <= 1


def test_a_level_is_unresolved_while_its_interval_holds_the_share() -> None:
    assert verdict(Probe(level=1, good=20, total=20)) == "unresolved"
    assert verdict(Probe(level=1, good=200, total=200)) == "meets"
    assert verdict(Probe(level=1, good=150, total=200)) == "misses"
    assert verdict(Probe(level=1, good=200, total=200, valid=False)) == "unresolved"


@pytest.mark.parametrize("integer", [False, True])
@given(truth=st.floats(1.5, 200), seed=st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_the_search_brackets_the_truth(integer: bool, truth: float, seed: int) -> None:
    rng = random.Random(seed)

    def run(level: float, _attempt: int) -> Probe:
        share_good = 0.999 if level <= truth else 0.80
        return Probe(level=level, good=sum(rng.random() < share_good for _ in range(400)), total=400)

    found = highest_load(run, start=1, limit=1024, integer=integer, max_probes=30)
    assert found.resolved, found
    assert found.highest_met is not None
    assert found.lowest_missed is not None
    assert found.highest_met <= truth <= found.lowest_missed
    assert found.lowest_missed / found.highest_met <= 1.1 or (integer and found.lowest_missed - found.highest_met == 1)
    assert len(found.probes) <= 20


def test_a_search_says_when_nothing_meets_or_everything_does() -> None:
    bad = highest_load(lambda level, _: Probe(level=level, good=0, total=100), start=8, limit=64, integer=True)
    assert bad.highest_met is None
    assert not bad.resolved
    fine = highest_load(lambda level, _: Probe(level=level, good=200, total=200), start=1, limit=64)
    assert fine.highest_met == 64
    assert fine.lowest_missed is None
    assert "limit" in fine.stop


def test_a_noisy_boundary_is_never_called_resolved() -> None:
    def run(level: float, _attempt: int) -> Probe:
        return Probe(level=level, good=200 if level < 10 else 190, total=200)  # 95 % exactly

    found = highest_load(run, start=1, limit=100, max_probes=30)
    assert found.highest_met is not None
    assert found.highest_met < 10
    assert not found.resolved


def test_isotonic_never_rises_and_keeps_the_mean() -> None:
    values = [1.0, 0.9, 0.95, 0.5, 0.6, 0.1]
    smooth = isotonic(values)
    assert all(a >= b for a, b in pairwise(smooth))
    assert sum(smooth) == pytest.approx(sum(values))


def test_the_knee_is_where_throughput_stops_growing() -> None:
    probes = [Probe(level=n, good=1, total=1, throughput=min(n, 20) * 10.0) for n in (1, 2, 4, 8, 16, 32, 64)]
    found = knee(probes)
    assert found.level == pytest.approx(20, rel=0.3)
    assert found.throughput == pytest.approx(200, rel=0.05)
    assert knee([Probe(level=n, good=1, total=1, throughput=10.0 * n) for n in (1, 2, 4, 8)]).level is None
