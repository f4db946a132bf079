"""What is sent before t0 warms no cache for what is measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from include.catalog.loader import load_catalog
from include.loadtest.engine.bodies import Shape
from include.loadtest.engine.prompts import Source, TraceEntry
from include.loadtest.engine.texts import Corpus
from include.loadtest.engine.words import VOCABULARY
from include.loadtest.job import Job
from include.loadtest.planning import make_jobs
from include.loadtest.target import Target

FIRST_WORDS = 12
SENT = 40


def source(job: Job, trace: tuple[TraceEntry, ...] = ()) -> Source:
    return Source(job, Shape(job.endpoint), Corpus(VOCABULARY, job.seed), {}, trace)


def job_of(name: str, **changes: Any) -> Job:
    workload = load_catalog().workload(name)
    given = {"out_dir": Path(), "seed": workload.seed, "salt": "run", "arm": "cold", "workers": 1}
    return make_jobs(Target(base_url="http://h"), workload, workload.loads[0], **(given | changes))[0]


def beginnings(bodies: list[bytes]) -> set[str]:
    """What a prefix cache would have of each request: its first words, and the tools that go in front of them."""
    found = set()
    for body in map(json.loads, bodies):
        found.add(" ".join(body["messages"][0]["content"].split()[:FIRST_WORDS]))
        if "tools" in body:
            found.add(json.dumps(body["tools"]))
    return found


@pytest.mark.parametrize("name", ["shared-prefix", "smoke-prefix", "agent", "chat", "mixed"])
def test_the_warm_up_sends_no_beginning_that_is_measured(name: str) -> None:
    job = job_of(name)
    warm = [source(job).warmup(place).body for place in range(job.warmup_requests)]
    asked = source(job)
    measured = [asked.take().body for _ in range(SENT)]
    assert warm
    assert not beginnings(warm) & beginnings(measured)


def test_the_warm_up_of_a_trace_sends_none_of_its_shared_blocks() -> None:
    trace = tuple(TraceEntry(at_s=n, input_tokens=64, output_tokens=2, blocks=[1, n], block_tokens=32) for n in (2, 3))
    job = job_of("chat")
    warm, asked = source(job, trace).warmup(0), source(job, trace)
    measured = [asked.take().body for _ in trace]
    assert len(beginnings(measured)) == 1  # block 1, as the trace says
    assert not beginnings([warm.body]) & beginnings(measured)


def test_another_try_asks_nothing_of_what_the_first_one_asked() -> None:
    first, second = (
        [source(job_of("agent", salt=f"owner:c=4:{attempt}")).take().body for _ in range(1)] for attempt in (1, 2)
    )
    assert not beginnings(first) & beginnings(second)


def test_the_warm_arm_meets_the_prefixes_that_it_primed() -> None:
    job = job_of("shared-prefix", arm="warm")
    primed, asked = source(job).pool(), source(job)
    assert beginnings([asked.take().body for _ in range(SENT)]) <= beginnings([ask.body for ask in primed])
