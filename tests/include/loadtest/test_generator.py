"""The generator process under bad fortune: told to stop, orphaned, out of disk, given nonsense."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from include.errors import PipelineError
from include.loadtest.api import load_records
from include.loadtest.job import Endpoint, Job, Load, Prompts, encode_job
from include.loadtest.records import compact, read_shard
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Fault, Script
from include.loadtest.spool import ROW, Row, SpoolWriter, read_spool
from include.objects import PROJECT_ROOT
from tests.include.loadtest.conftest import Run, runner


def job(server: ReferenceServer, out: Path, **changes: Any) -> Job:
    endpoint = Endpoint(
        host="localhost", port=server.port, host_header="localhost", path="/v1/chat/completions", body="openai-chat"
    )
    plain = Job(
        endpoint=endpoint,
        prompts=[Prompts(input_tokens=4, output_tokens=4)],
        load=Load(mode="closed", concurrency=2, duration_s=60),
        out=str(out / "x.spool"),
        salt="s",
    )
    return msgspec.structs.replace(plain, **changes)


def start(content: bytes) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-m", "include.loadtest", "run", "--job", "-"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=PROJECT_ROOT,
    )  # fmt: skip
    assert process.stdin is not None
    process.stdin.write(content)
    process.stdin.flush()
    return process


def events_until(process: subprocess.Popen[bytes], name: str) -> dict[str, Any]:
    assert process.stdout is not None
    for line in process.stdout:
        event: dict[str, Any] = json.loads(line)
        if event["event"] == name:
            return event
    raise AssertionError(f"no event {name}")


@pytest.mark.parametrize("how", ["signal", "pipe"])
def test_a_stop_cuts_requests_off_and_leaves_whole_records(server: ReferenceServer, tmp_path: Path, how: str) -> None:
    server.play(Script(ttft_ms=5, itl_ms=1, faults=(Fault(kind="hang", every=7, offset=6),)))
    process = start(encode_job(job(server, tmp_path, progress_s=0.2)))
    events_until(process, "progress")
    if how == "signal":
        process.send_signal(signal.SIGTERM)
    else:
        assert process.stdin is not None
        process.stdin.close()
    events_until(process, "finished")
    assert process.wait(10) == 0
    shard = read_shard(tmp_path / "x.spool")
    assert shard.summary is not None
    assert shard.summary["stop"] == ("terminated" if how == "signal" else "parent_gone")
    assert {row.error_class for row in shard.rows} <= {"", "cancelled"}
    assert any(row.error_class == "cancelled" for row in shard.rows)


def test_a_stop_during_a_warm_up_that_is_never_answered(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(faults=(Fault(kind="hang"),)))
    process = start(encode_job(job(server, tmp_path, warmup_requests=1)))
    deadline = time.monotonic() + 20
    while not (tmp_path / "x.spool").exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) != 0


def test_the_health_that_counts_is_that_of_the_load(server: ReferenceServer, run: Run) -> None:
    """The first beat is at t0, and one is where the load ends: a drain of another 300 ms is told apart from it."""
    server.play(Script(ttft_ms=300, itl_ms=0.1))
    outcome = run(load={"concurrency": 2, "duration_s": 0.5, "workers": 2})
    for worker in load_records(outcome.requests_path).workers:
        beats, summary = [beat["at"] for beat in worker["health"]], worker["summary"]
        assert summary["t0"] - beats[0] <= 1_000_000
        assert min(abs(at - summary["stopped_at"]) for at in beats) < 50_000_000
        assert beats[-1] > summary["stopped_at"]


def test_a_generator_without_users_ends_at_once(server: ReferenceServer, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=1, itl_ms=0.1))
    load = Load(mode="closed", concurrency=2, requests=30)
    process = start(encode_job(job(server, tmp_path, worker=2, workers=3, load=load)))
    assert process.wait(20) == 0
    assert read_shard(tmp_path / "x.spool").rows == []


@pytest.mark.parametrize("content", [b"\n", b"{}\n", b"not json\n", b'{"endpoint": 3}\n'])
def test_nonsense_for_a_job_is_said_and_ends(content: bytes) -> None:
    process = start(content)
    assert events_until(process, "error")["reason"] == "BadJob"
    assert process.wait(10) == 2


def children() -> set[int]:
    mine = Path(f"/proc/{os.getpid()}/task")
    return {int(pid) for task in mine.iterdir() for pid in (task / "children").read_text().split()}


def test_a_full_disk_ends_the_run_and_keeps_what_was_written(server: ReferenceServer, run: Run, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=1, itl_ms=0.1))
    # The servers of other tests live in this process too, and their files must not end at this size.
    servers, limited = children(), set[int]()

    def progress(event: dict[str, Any]) -> None:
        if event["event"] == "started" and not limited:
            limited.update(children() - servers)
            for child in limited:
                resource.prlimit(child, resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    with pytest.raises(PipelineError) as caught:
        run(load={"concurrency": 8, "duration_s": 60}, run_args={"progress": progress})
    assert caught.value.reason == "DiskFull", str(caught.value)
    kept = load_records(next(tmp_path.glob("*/requests.parquet"))).table
    assert kept.num_rows > 50
    assert len(set(kept["request_id"].to_pylist())) == kept.num_rows
    assert set(kept["ok"].to_pylist()) == {True}


def test_a_spool_that_fails_in_the_middle_is_whole_when_it_can_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / "a.spool"
    code = (
        "import resource, sys\n"
        "from include.loadtest.spool import HEALTH, SpoolError, SpoolWriter\n"
        "spool = SpoolWriter(sys.argv[1])\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))\n"
        "for number in range(200): spool.add(HEALTH, {'number': number})\n"
        "for _ in range(2):\n"
        "    try: spool.flush()\n"
        "    except SpoolError as error: print(error.reason)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "spool.close()\n"
    )
    command = [sys.executable, "-c", code, str(path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    assert found.stdout.split() == ["DiskFull", "DiskFull"]
    assert [value["number"] for _, value in read_spool(path)] == list(range(200))


def test_records_that_cannot_be_collected_are_kept_and_told(server: ReferenceServer, run: Run, tmp_path: Path) -> None:
    server.play(Script(ttft_ms=1, itl_ms=0.1))

    def in_the_way(event: dict[str, Any]) -> None:
        if event["event"] == "started":
            next(tmp_path.glob("*/*.spool")).with_name("requests.partial").mkdir()

    def broken(event: dict[str, Any]) -> None:
        in_the_way(event)
        if event["event"] == "finished":
            raise RuntimeError("what went wrong first")

    with pytest.raises(PipelineError, match=r"requests\.parquet cannot be written.*collect") as caught:
        run(load={"concurrency": 1, "requests": 5}, run_args={"progress": in_the_way})
    assert caught.value.reason == "RecordsNotWritten"
    spool = next(tmp_path.glob("*/*.spool"))
    spool.with_name("requests.partial").rmdir()
    assert load_records(compact(spool.parent)).table.num_rows == 5
    spool.unlink()
    with pytest.raises(RuntimeError, match="what went wrong first"):
        run(load={"concurrency": 1, "requests": 5}, run_args={"progress": broken})


def test_a_full_disk_at_the_end_keeps_the_spools_and_leaves_no_half_file(tmp_path: Path) -> None:
    spool = SpoolWriter(tmp_path / "x.spool")
    row = Row(*("r", 0, "measure", -1, 0, -1, 0), *(1,) * 7, b"\1" * 8000, *(1,) * 6, "", "", "stop", 1, 0, True, 0)
    for number in range(300):
        spool.add(ROW, msgspec.structs.replace(row, request_id=os.urandom(64).hex(), index=number))
    spool.close()
    code = (
        "import resource, sys\n"
        "from pathlib import Path\n"
        "from include.errors import PipelineError\n"
        "from include.loadtest.api import collect\n"
        "from include.loadtest.job import Endpoint, Job, Load\n"
        "folder = Path(sys.argv[1])\n"
        "endpoint = Endpoint(host='h', port=1, path='/', body='openai-chat')\n"
        "job = Job(endpoint=endpoint, prompts=[], load=Load(mode='closed'), out=str(folder / 'x.spool'))\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))\n"
        "try: collect(folder, [job])\n"
        "except PipelineError as error: print(error)\n"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    assert found.stdout.startswith("DiskFull: "), found.stdout + found.stderr
    assert f"python -m include.loadtest collect {tmp_path}" in found.stdout
    assert [path.name for path in tmp_path.iterdir()] == ["x.spool"]


def test_a_process_that_dies_without_a_record_is_an_error_with_its_last_words(
    server: ReferenceServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        "import os; os.environ.get('X_FAIL') and (_ for _ in ()).throw(SystemExit(9))"
    )
    monkeypatch.setenv("PYTHONPATH", str(broken))
    monkeypatch.setenv("X_FAIL", "1")
    with pytest.raises(PipelineError) as caught:
        runner(server.url, tmp_path)(load={"concurrency": 1, "requests": 1})
    assert caught.value.reason == "LoadGeneratorDied"


def test_the_generator_imports_nothing_heavy() -> None:
    code = (
        "import sys, include.loadtest.engine.main\n"
        "heavy = {'pydantic', 'numpy', 'pyarrow', 'pandas', 'boto3', 'botocore', 'yaml', 'requests'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True)
    assert found.stdout.strip() == "[]"


def test_long_prompts_do_not_hold_up_the_other_streams(server: ReferenceServer, tmp_path: Path) -> None:
    """Half a megabyte per request: written in pieces while the other answers are read."""
    server.play(Script(ttft_ms=20, itl_ms=2))
    outcome = runner(server.url, tmp_path)(
        load={"concurrency": 8, "requests": 24}, prompt={"input_tokens": 100_000, "output_tokens": 8}
    )
    assert outcome.statistics.requests_ok == 24, outcome.statistics.failures
    assert outcome.statistics.input_tokens == 2_400_000
    assert load_records(outcome.requests_path).table.num_rows == 24
