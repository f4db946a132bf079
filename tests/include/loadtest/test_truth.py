"""What the engine reports is what the server did: each request against the server's own log."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from include.catalog.specs import Slo
from include.loadtest.api import LoadOutcome, load_records
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Fault, Script
from include.loadtest.spool import META, ROW, Row, read_spool
from include.objects import PROJECT_ROOT
from tests.include.loadtest.conftest import Run, runner


def paired(outcome: LoadOutcome, server: ReferenceServer) -> list[tuple[dict, dict]]:
    """Return (our record, the server's) for each measured request."""
    truth = {answer["request_id"]: answer for answer in server.log()["answers"]}
    rows = load_records(outcome.requests_path).phase("measure").table.to_pylist()
    return [(row, truth[row["request_id"]]) for row in rows]


@pytest.mark.parametrize(
    "shape", [{}, {"pieces": 3}, {"merge": 4}, {"chunk_pieces": 3}, {"role_ms": 2.0}, {"per_chunk": 4}]
)
def test_every_chunk_is_seen_whatever_the_packets_look_like(
    server: ReferenceServer, run: Run, shape: dict[str, float]
) -> None:
    script = {"ttft_ms": 20.0, "itl_ms": 3.0, **shape}
    server.play(Script(**script))  # type: ignore[arg-type]
    outcome = run(load={"concurrency": 2, "requests": 8}, prompt={"output_tokens": 16})
    per_chunk = int(shape.get("per_chunk", 1))
    for row, truth in paired(outcome, server):
        assert row["ok"], row["error"]
        assert row["chunks"] == 16 // per_chunk
        assert row["output_tokens"] == truth["tokens"] == 16
        assert row["input_tokens"] == truth["prompt_tokens"] == 8
        first_content = truth["writes"][1 if "role_ms" in shape else 0]
        waited = row["first_token_ns"] - row["sent_ns"]
        assert waited >= first_content - truth["received"]
        assert row["first_byte_ns"] <= row["first_token_ns"] <= row["last_token_ns"] <= row["end_ns"]
        assert row["scheduled_ns"] <= row["sent_ns"]


@pytest.mark.parametrize("part", ["reasoning_content", "reasoning", "tool_calls"])
def test_streams_of_thoughts_and_tool_calls_are_timed_like_text(server: ReferenceServer, run: Run, part: str) -> None:
    server.play(Script(ttft_ms=20, itl_ms=3, part=part))
    outcome = run(load={"concurrency": 2, "requests": 8}, prompt={"output_tokens": 16})
    for row, truth in paired(outcome, server):
        assert row["ok"], row["error"]
        assert (row["chunks"], row["output_tokens"]) == (16, 16)
        assert row["first_token_ns"] - row["sent_ns"] >= truth["writes"][0] - truth["received"]
        assert row["last_token_ns"] - row["first_token_ns"] > 0
    assert outcome.validity.details["numbers"]["unstreamed"] == 0


def test_chunks_and_tokens_are_told_apart(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=20, itl_ms=5, per_chunk=4))
    found = run(load={"concurrency": 1, "requests": 8}, prompt={"output_tokens": 32}).statistics
    assert found.chunk_gap_ms.p50 is not None
    assert found.tpot_ms.mean is not None
    assert found.chunk_gap_ms.p50 == pytest.approx(20, rel=0.25)
    assert found.tpot_ms.mean == pytest.approx(20 * 7 / 31, rel=0.25)


def test_asked_streams_are_delivered(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=300, itl_ms=2))
    outcome = run(load={"concurrency": 64, "requests": 192})
    assert server.log()["peak"] == 64
    assert outcome.validity.details["numbers"]["peak_streams"] == 64


def test_arrivals_keep_their_schedule_while_the_server_stands_still(server: ReferenceServer, run: Run) -> None:
    """Coordinated omission: with a cap of 4 in flight the queue counts from the scheduled, not the sent time."""
    server.play(Script(ttft_ms=5, itl_ms=1, freeze_at_s=0.5, freeze_s=1.0))
    outcome = run(load={"rate": 50, "arrivals": "constant", "concurrency": 4, "duration_s": 2.5, "mode": "open"})
    records = load_records(outcome.requests_path).phase("measure")
    scheduled = records.times("scheduled_ns")
    assert np.allclose(np.diff(scheduled), 0.02, atol=1e-6)
    ttft = (records.times("first_token_ns") - scheduled) * 1e3
    ttft_sent = (records.times("first_token_ns") - records.times("sent_ns")) * 1e3
    # Of the 50 that were due during the freeze the mean waited half a second; four of them were sent in time.
    late = (scheduled > 0.52) & (scheduled < 1.48)
    assert ttft[late].mean() > 400
    assert ttft_sent[late].mean() < 200


def test_backlog_of_a_rate_that_the_server_cannot_take_is_shown(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=20, itl_ms=1, slots=1))  # 27 ms each: 37 per second at most
    outcome = run(load={"rate": 80, "arrivals": "constant", "duration_s": 2}, slo=Slo(ttft_ms=100))
    records = load_records(outcome.requests_path).phase("measure")
    e2e = (records.times("end_ns") - records.times("scheduled_ns")) * 1e3
    # request k ends at (k + 1) × 27 ms and was due at k × 12.5 ms
    expected = np.arange(1, 161) * 27.0 - np.arange(160) * 12.5
    assert np.all(e2e > 0.98 * expected)
    assert any(reason.startswith("UNSTEADY") for reason in outcome.validity.reasons)
    assert outcome.statistics.goodput_share is not None
    assert outcome.statistics.goodput_share < 0.2


def rows_of(spools: list[Path]) -> list[dict[str, Any]]:
    """Return what the generators wrote, read frame by frame, as the rows that must come of it."""
    found = []
    for spool in spools:
        meta: dict[str, Any] = {}
        for kind, value in read_spool(spool):
            if kind == META:
                meta = value
            elif kind == ROW:
                found.append(expected(value, meta["anchor_ns"], meta["job"]))
    return sorted(found, key=lambda row: (row["scheduled_ns"], row["request_id"]))


def expected(row: Row, anchor: int, job: dict[str, Any]) -> dict[str, Any]:
    marks = [int.from_bytes(row.marks[at : at + 8], "little") for at in range(0, len(row.marks), 8)]
    values = msgspec.structs.asdict(row)
    times = ("scheduled", "ready", "sent", "first_byte", "first_token", "last_token", "end")
    counts = ("session", "group", "input_tokens", "output_tokens", "cached_tokens", "asked_input", "asked_output")
    kept = {name: value for name, value in values.items() if name not in (*times, *counts, "marks")}
    return (
        kept
        | {f"{name}_ns": values[name] + anchor if values[name] else None for name in times}
        | {name: values[name] if values[name] >= 0 else None for name in counts}
        | {"worker": job["worker"], "arm": job["arm"], "ok": not row.error_class, "chunks": len(marks)}
        | {"chunk_offsets_ns": [mark - row.sent for mark in marks]}
    )


def test_merged_workers_equal_the_union(server: ReferenceServer, run: Run, tmp_path: Path) -> None:
    """Every value of every row, failed ones too, as the generators wrote them."""
    server.play(Script(ttft_ms=10, itl_ms=1, faults=(Fault(kind="cut", at=3, every=9),)))
    ids: dict[int, list[str]] = {}
    starts: dict[int, float] = {}
    for workers in (1, 2, 4):
        kept = tmp_path / "kept" / str(workers)
        kept.mkdir(parents=True)

        def keep(event: dict[str, Any], kept: Path = kept) -> None:
            if event["event"] == "finished":  # its spool is closed; collecting removes it
                spool = next(tmp_path.glob(f"*/*-{event['worker']}.spool"))
                shutil.copy(spool, kept)

        outcome = run(
            load={"rate": 120, "duration_s": 1, "workers": workers, "arrivals": "gamma", "burstiness": 0.5},
            salt="same",
            run_args={"progress": keep},
        )
        spools = sorted(kept.iterdir())
        assert len(spools) == workers
        records = load_records(outcome.requests_path)
        assert records.table.to_pylist() == rows_of(spools)
        table = records.phase("measure").table
        ids[workers] = sorted(table["request_id"].to_pylist())
        assert len(set(table["worker"].to_pylist())) == workers
        assert len(records.workers) == workers
        scheduled = np.sort(table["scheduled_ns"].to_numpy())
        starts[workers] = float(np.diff(scheduled).sum())
    assert ids[1] == ids[2] == ids[4]
    assert len(ids[1]) == 120
    assert starts[2] == pytest.approx(starts[1], rel=0.05)


def test_the_same_seed_and_salt_ask_the_same_and_other_salts_share_nothing(server: ReferenceServer, run: Run) -> None:
    server.play(Script(ttft_ms=2, itl_ms=0.1))
    schedules = []
    for _ in range(2):
        outcome = run(load={"rate": 100, "duration_s": 0.5}, run_args={"seed": 3})
        times = load_records(outcome.requests_path).phase("measure").times("scheduled_ns")
        schedules.append(np.round(times, 6))
    assert np.array_equal(schedules[0], schedules[1])


@pytest.mark.parametrize("victim", ["generator", "parent"])
def test_what_was_measured_survives_sigkill(server: ReferenceServer, tmp_path: Path, victim: str) -> None:
    server.play(Script(ttft_ms=5, itl_ms=1))
    code = (  # noqa: UP031
        "import sys; sys.path.insert(0, %r)\n"
        "from pathlib import Path\n"
        "from include.catalog.specs import *\n"
        "from include.loadtest.api import run_load, Target\n"
        "load = LoadSpec(mode='closed', concurrency=2, duration_s=60)\n"
        "spec = WorkloadSpec(name='t', prompts=(PromptSpec(output_tokens=4),), loads=(load,), warmup_requests=0)\n"
        "outcome = run_load(Target(base_url=%r), spec, load, out_dir=Path(%r), salt='k',\n"
        "                   progress=lambda e: print(e['event'], flush=True))\n"
        "print('reasons', outcome.validity.reasons)\n"
    ) % (str(PROJECT_ROOT), server.url, str(tmp_path))
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    while "progress" not in parent.stdout.readline():
        assert parent.poll() is None
    child = generator_of(parent.pid)
    os.kill(child if victim == "generator" else parent.pid, signal.SIGKILL)
    rest = parent.communicate(timeout=30)[0]
    deadline = time.monotonic() + 20
    while running(child):
        assert time.monotonic() < deadline, "the generator outlived its parent"
        time.sleep(0.02)
    records = load_records(tmp_path)
    assert records.table.num_rows >= 20
    ends = records.times("end_ns")
    assert np.nanmax(ends) > 0.5
    if victim == "generator":
        assert "INCOMPLETE" in rest


def generator_of(parent: int) -> int:
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return int(children[0])


def running(pid: int) -> bool:
    try:
        return json.loads("true") and Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except OSError:
        return False


def test_tls_with_a_custom_ca(certificate: tuple[str, str], tmp_path: Path) -> None:
    with ReferenceServer(Script(ttft_ms=5, itl_ms=1), certificate=certificate[0], key=certificate[1]) as server:
        load = {"concurrency": 4, "requests": 12}
        trusted = runner(server.url, tmp_path, ca_file=certificate[0])(load=load)
        assert trusted.statistics.requests_ok == 12, trusted.statistics.failures
        blind = runner(server.url, tmp_path, insecure=True)(load=load)
        assert blind.statistics.requests_ok == 12
        wary = runner(server.url, tmp_path)(load={"concurrency": 1, "requests": 2})
        assert wary.statistics.failures == {"tls": 2}


def test_a_contended_core_flags_itself(server: ReferenceServer, tmp_path: Path) -> None:
    """Eight busy processes on the one core that the generator may use: it must not pass for VALID."""
    server.play(Script(ttft_ms=20, itl_ms=2))
    core = min(os.sched_getaffinity(0))
    before = os.sched_getaffinity(0)
    spin = "while True: pass"
    rivals = [
        subprocess.Popen([sys.executable, "-c", f"import os; os.sched_setaffinity(0, {{{core}}})\n{spin}"])
        for _ in range(8)
    ]
    outcomes: list[LoadOutcome] = []

    def measure() -> None:
        os.sched_setaffinity(0, {core})  # this thread, and what it starts
        outcomes.append(runner(server.url, tmp_path)(load={"concurrency": 32, "duration_s": 2}))

    try:
        thread = threading.Thread(target=measure)
        thread.start()
        thread.join()
    finally:
        for rival in rivals:
            rival.kill()
            rival.wait()
    assert os.sched_getaffinity(0) == before
    verdict = outcomes[0].validity
    assert any(reason.startswith("CLIENT_BOUND") for reason in verdict.reasons), verdict.details["numbers"]
