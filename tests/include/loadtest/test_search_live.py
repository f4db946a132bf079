"""The search on a live server whose capacity is known: four requests at once, the fifth waits."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.catalog.specs import LoadSpec, PromptSpec, SearchSpec, Slo, WorkloadSpec
from include.errors import ConfigurationError
from include.loadtest.api import Target, load_records
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.loadtest.search import verdict
from include.loadtest.sweep import found_json, search_goodput, sentence

FOUR_AT_ONCE = Script(ttft_ms=80, itl_ms=4, slots=4)
WORKLOAD = WorkloadSpec(
    name="w",
    prompts=(PromptSpec(output_tokens=21),),
    loads=(LoadSpec(mode="closed", concurrency=1, requests=1),),
    warmup_requests=0,
)


def test_the_search_finds_how_many_users_a_server_can_have(server: ReferenceServer, tmp_path: Path) -> None:
    """An answer takes 160 ms: a fifth user makes each wait 40 ms for its slot, 20 more than the SLO has room for.

    On a machine that is too busy for it probes are not valid; then it may find nothing, but never more than there is.
    """
    server.play(FOUR_AT_ONCE)
    search = SearchSpec(by="concurrency", start=4, limit=64, duration_s=2, attainment=0.9, precision=0.05)
    slo = Slo(ttft_ms=100)
    found = search_goodput(Target(base_url=server.url), WORKLOAD, slo, search, out_dir=tmp_path, salt="s")
    if all(probe.valid for probe in found.probes):
        assert (found.highest_met, found.lowest_missed, found.resolved) == (4, 5, True)
        assert len(found.probes) <= 6
        assert sentence(found, search).startswith("4 users meet the SLO, 5 misses it")
    assert found.highest_met in (4, None)
    assert not any(probe.level > 4 and verdict(probe, 0.9) == "meets" for probe in found.probes)
    kept = found_json(found, search, slo)
    assert json.loads(json.dumps(kept)) == kept
    for number, probe in enumerate(found.probes):
        records = load_records(tmp_path / f"probe-{number}" / "requests.parquet")
        assert records.table.num_rows >= probe.total > 0


def test_a_search_without_a_latency_limit_is_refused(server: ReferenceServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="limit"):
        search_goodput(Target(base_url=server.url), WORKLOAD, Slo(), SearchSpec(), out_dir=tmp_path, salt="s")


def cli(server: ReferenceServer, tmp_path: Path, *more: str) -> int:
    from include.loadtest.cli import main

    return main(["search", "--url", server.url, "--workload", "probe", "--out", str(tmp_path / "out"), *more])


def test_the_command_prints_a_bracket_and_keeps_the_probes(
    server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.play(Script(ttft_ms=20, itl_ms=1, slots=1))
    options = ("--by", "concurrency", "--start", "1", "--limit", "4", "--duration", "1.5", "--attainment", "0.9")
    cli(server, tmp_path, *options, "--ttft-ms", "35", "--max-probes", "6", "--json")
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert said == json.loads((tmp_path / "out" / "search.json").read_text())
    assert said["highest_met"] in (1, None)  # a busy machine may leave it open; it never claims two
    assert said["slo"]["ttft_ms"] == 35
    assert all(probe["good"] < 0.9 * probe["total"] for probe in said["probes"] if probe["level"] >= 3)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--duration", "-1"), "--duration -1.0"),
        (("--attainment", "1.5"), "--attainment 1.5"),
        (("--ttft-ms", "0"), "--ttft-ms 0.0"),
    ],
)
def test_bad_options_are_named(
    server: ReferenceServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, str], words: str
) -> None:
    assert cli(server, tmp_path, *options) == 2
    assert words in capsys.readouterr().err
