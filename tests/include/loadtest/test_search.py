"""The search's arithmetic: what a look proves, how many looks cost, failures, the knee, a lease that is lost."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from include.catalog.loader import load_catalog
from include.catalog.specs import LoadSpec, SearchSpec, Slo, WorkloadSpec
from include.loadtest.cli import main
from include.loadtest.foreign.base import ForeignRequest, table_of
from include.loadtest.foreign.registry import engine
from include.loadtest.records import write_parquet
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.loadtest.search import Probe, confidence, highest_load, saturate, verdict
from include.loadtest.statistics import summarise
from include.loadtest.sweep import search_goodput, sentence
from include.loadtest.target import Target
from tests.include.loadtest.conftest import Run

ATTAINMENT = 0.9


def looked_at(seed: int, z: float) -> bool:
    """Run a level that just meets the share up to three times, as the search does; true: something was "proven"."""
    rng, good = random.Random(seed), 0
    for look in (1, 2, 3):
        good += sum(rng.random() < ATTAINMENT for _ in range(200))
        if verdict(Probe(level=1, good=good, total=200 * look), ATTAINMENT, z=z) != "unresolved":
            return True
    return False


def test_three_looks_at_a_level_are_wrong_no_oftener_than_one() -> None:
    wrong = [sum(looked_at(seed, z) for seed in range(2000)) / 2000 for z in (confidence(1), confidence(3))]
    assert wrong[0] > 0.07  # the fault: one look's interval, looked at three times
    assert wrong[1] <= 0.05


@pytest.mark.parametrize(
    ("failed", "said"), [(0, "meets"), (4, "meets"), (5, "unresolved"), (30, "misses")], ids=str
)  # fmt: skip
def test_failures_are_compared_with_their_own_limit(failed: int, said: str) -> None:
    probe = Probe(level=1, good=400 - failed, total=400, failed=failed)
    assert verdict(probe, 0.5, error_rate=0.01) == said
    assert verdict(probe, 0.5) == "meets"


def test_a_level_whose_failures_are_too_many_bounds_the_search() -> None:
    def run(level: float, _attempt: int) -> Probe:
        failed = 0 if level <= 10 else 20
        return Probe(level=level, good=400 - failed, total=400, failed=failed)

    assert highest_load(run, start=1, limit=64, attainment=0.9).highest_met == 64
    found = highest_load(run, start=1, limit=64, attainment=0.9, error_rate=0.01)
    assert found.resolved
    assert (found.highest_met or 0) <= 10 < (found.lowest_missed or 0)


@pytest.mark.parametrize("knee", [False, True])
def test_a_search_ends_when_its_lease_is_lost_and_proves_nothing_from_there(knee: bool) -> None:
    levels: list[float] = []

    def run(level: float, _attempt: int) -> Probe:
        levels.append(level)
        return Probe(level=level, good=400, total=400, throughput=level, valid=len(levels) < 3)

    def broken() -> str:
        return "the lease was lost" if len(levels) >= 3 else ""

    if knee:
        found = saturate(run, start=1, limit=64, broken=broken)
    else:
        found = highest_load(run, start=1, limit=64, broken=broken)
        assert found.highest_met == 2
    assert levels == [1, 2, 4]
    assert (found.resolved, found.stop) == (False, "the lease was lost")


@pytest.mark.parametrize("integer", [True, False])
@pytest.mark.parametrize("truth", [3, 10, 47, 200])
def test_the_knee_is_found_and_bracketed_by_levels_that_were_run(truth: float, integer: bool) -> None:
    rng = random.Random(7)

    def run(level: float, _attempt: int) -> Probe:
        assert not integer or level == int(level)
        return Probe(level=level, good=1, total=1, throughput=50 * min(level, truth) * rng.uniform(0.99, 1.01))

    found = saturate(run, start=1, limit=1024, integer=integer)
    assert found.resolved, found
    assert (found.highest_met or 0) <= truth * 1.03
    assert (found.lowest_missed or 0) >= truth * 0.97
    assert (found.lowest_missed or 0) - (found.highest_met or 0) <= max(1.0, 0.15 * truth)
    assert len(found.probes) <= 16


def test_without_a_knee_none_is_named() -> None:
    found = saturate(lambda level, _: Probe(level=level, good=1, total=1, throughput=level), start=1, limit=64)
    assert (found.resolved, found.stop) == (False, "no knee up to the limit")
    assert sentence(found, SearchSpec(knee=True)).startswith("no knee up to the limit")


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"by": "concurrency", "start": 0.5}, "start", "users are whole numbers"),
        ({"by": "concurrency", "limit": 2.5}, "limit", "users are whole numbers"),
        ({"start": 8, "limit": 4}, "limit", "below the first level, start 8"),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_field(given: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words) as caught:
        SearchSpec.model_validate(given)
    assert caught.value.errors()[0]["loc"] == (field,)


def test_the_command_names_option_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    search = ["search", "--url", "http://127.0.0.1:1", "--ttft-ms", "5", "--by", "concurrency"]
    assert main([*search, "--start", "0.5"]) == 2
    assert "--start 0.5: users are whole numbers" in capsys.readouterr().err
    assert main([*search, "--start", "64", "--limit", "8"]) == 2
    assert "--limit 8.0: the limit is below the first level, start 64" in capsys.readouterr().err


def test_two_levels_of_one_label_are_refused() -> None:
    level = {"mode": "open", "rate": 4, "duration_s": 9}
    with pytest.raises(ValidationError, match=r"two levels are rate=4.*put one into a workload of its own"):
        WorkloadSpec.model_validate({"name": "w", "loads": [level, level | {"arrivals": "constant"}]})


def test_a_limit_that_nobody_asked_for_changes_no_workloads_digest() -> None:
    workload = load_catalog().workload("chat")
    assert set(workload.content["slo"]) == {"ttft_ms", "tpot_ms", "e2e_ms", "error_rate"}
    asked = workload.model_copy(update={"slo": Slo(chunk_gap_ms=80)})
    assert asked.content["slo"]["chunk_gap_ms"] == 80


def test_a_pause_within_an_answer_is_no_good_answer(tmp_path: Path) -> None:
    """Every fourth request stalls once for 200 ms: its TPOT hides that among 50 tokens."""
    requests = []
    for place in range(40):
        gaps = [0.01] * 49
        gaps[17] = 0.2 if place % 4 == 0 else 0.01
        sent = 1e-9 + place
        requests.append(ForeignRequest(request_id=str(place), sent=sent, first=sent + 0.1, gaps=gaps, output_tokens=50))
    requests.append(ForeignRequest(request_id="whole", sent=41.0, first=41.1, output_tokens=1))
    path = write_parquet(table_of(engine("aiperf"), "", requests), tmp_path / "r.parquet")
    share = {
        name: summarise(path, Slo.model_validate({name: 20})).goodput_share for name in ("tpot_ms", "chunk_gap_ms")
    }
    # The first request, one of those that stall, is before the steady window.
    assert share == {"tpot_ms": 1.0, "chunk_gap_ms": pytest.approx(31 / 40)}


def test_the_knee_of_a_server_with_four_slots(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=80, itl_ms=4, slots=4))
    workload = load_catalog().workload("probe")
    search = SearchSpec(by="concurrency", start=1, limit=32, duration_s=1, knee=True, max_probes=8)
    found = search_goodput(Target(base_url=server.url), workload, Slo(), search, out_dir=tmp_path, salt="s",
                           metrics_urls=(f"{server.url}/metrics",))  # fmt: skip
    if found.resolved and all(probe.valid for probe in found.probes):  # a busy machine's probes may not be
        assert (found.highest_met or 0) <= 5
        assert (found.lowest_missed or 0) >= 4
    assert (tmp_path / "probe-0" / "server-metrics.parquet").exists()


def test_goodput_of_a_run_can_be_limited_by_its_pauses(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=5, itl_ms=30))
    load = LoadSpec(mode="closed", concurrency=2, requests=8).model_dump(exclude_none=True)
    found = run(load=load, slo=Slo(chunk_gap_ms=15))
    assert found.statistics.goodput_share == 0
