"""What a load engine must not get wrong, as figures: merged workers, a killed run, bytes split anywhere. All are 0."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa

from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
from include.loadtest.api import Target, run_load
from include.loadtest.engine.events import ServerSentEvents
from include.loadtest.records import load, read_shard, shard_table
from include.loadtest.reference.process import ReferenceServer
from include.loadtest.reference.script import Script
from include.objects import PROJECT_ROOT

KEY = ("request_id", "ascending")
# Records reach the file every 0.2 s; what ended later before the kill may be lost.
UNWRITTEN_NS = 500_000_000
Add = Callable[[str, str, str, list[float], str], None]


def measure(server: ReferenceServer, add: Add) -> None:
    """Run them all; ``add`` takes case, tool, metric, values and unit."""
    for workers in (2, 4):
        add(f"merge-{workers}", "ours", "differing_rows", [merged(server, workers)], "rows")
    readable, lost = killed(server)
    add("sigkill", "ours", "readable_rows", [readable], "rows")
    add("sigkill", "ours", "lost_rows", [lost], "rows")
    add("split", "ours", "differing_records", [split(2000)], "splits")


def merged(server: ReferenceServer, workers: int) -> float:
    """Return how many rows differ between the workers' own files and the merged one, and from the server's log."""
    server.play(Script(ttft_ms=5, itl_ms=1))
    level = LoadSpec(mode="open", rate=300, arrivals="poisson", duration_s=4, workers=workers)
    workload = WorkloadSpec(name="w", prompts=(PromptSpec(output_tokens=16),), loads=(level,), warmup_requests=0)
    with tempfile.TemporaryDirectory() as name:
        folder, kept = Path(name) / "run", Path(name) / "kept"
        kept.mkdir()

        def keep(_: dict[str, Any]) -> None:
            """Link the workers' files to a place where they outlive the merging."""
            for spool in folder.glob("*.spool"):
                if not (kept / spool.name).exists():
                    os.link(spool, kept / spool.name)

        done = run_load(Target(base_url=server.url), workload, level, out_dir=folder, salt="m", progress=keep)
        whole = load(done.requests_path).table.replace_schema_metadata(None)
        parts = [shard_table(read_shard(spool)).replace_schema_metadata(None) for spool in kept.glob("*.spool")]
    found = whole.sort_by([KEY]).to_pylist()
    union = pa.concat_tables([part.cast(whole.schema) for part in parts]).sort_by([KEY]).to_pylist()
    served = sorted(answer["request_id"] for answer in server.log()["answers"])
    differing = abs(len(found) - len(union)) + sum(mine != theirs for mine, theirs in zip(found, union, strict=False))
    return float(differing + len(set(served) ^ {row["request_id"] for row in found}) + abs(len(parts) - workers))


def killed(server: ReferenceServer) -> tuple[float, float]:
    """Kill a run in the middle; return how many rows can be read, and how many of those due by then cannot."""
    server.play(Script(ttft_ms=5, itl_ms=1))
    with tempfile.TemporaryDirectory() as name:
        command = [
            sys.executable, "-m", "include.loadtest", "run", "--url", server.url, "--model", "reference",
            "--concurrency", "8", "--duration", "60", "--output-tokens", "8", "--out", name,
        ]  # fmt: skip
        process = subprocess.Popen(
            command, cwd=PROJECT_ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        while len(server.log()["answers"]) < 1000:
            time.sleep(0.2)
            if process.poll() is not None:
                raise RuntimeError(f"the run ended by itself: {process.returncode}")
        family = psutil.Process(process.pid).children(recursive=True)
        os.killpg(process.pid, signal.SIGKILL)
        at = time.monotonic_ns()
        process.wait()
        psutil.wait_procs(family, timeout=10)
        spools = list(Path(name).rglob("*.spool"))
        rows = {row.request_id for spool in spools for row in read_shard(spool).rows}
    answers = server.log()["answers"]
    due = {one["request_id"] for one in answers if one["writes"] and one["writes"][-1] < at - UNWRITTEN_NS}
    return float(len(rows)), float(len(due - rows))


def split(times: int) -> float:
    """Split the same stream at random places; return how often other events came out."""
    draw = random.Random(7)
    stream = b"".join(
        b"data: " + text.encode() + end
        for text in ('{"a":1}', "x" * 300, "é", "[DONE]")
        for end in (b"\n\n", b"\r\n\r\n", b"\ndata: more\n\n", b"\n: note\nevent: e\n\n")
    )
    whole = _events([stream])
    wrong = 0
    for _ in range(times):
        places = sorted(draw.sample(range(1, len(stream)), draw.randrange(1, 40)))
        wrong += _events([stream[a:b] for a, b in zip([0, *places], [*places, len(stream)], strict=True)]) != whole
    return float(wrong)


def _events(pieces: list[bytes]) -> list[bytes]:
    decoder = ServerSentEvents()
    return [event for piece in pieces for event in decoder.feed(piece)] + decoder.finish()
