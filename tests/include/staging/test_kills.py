"""SIGKILL at any moment, and stagers that meet: one retry completes, nothing is left, nothing wrong counts as staged.

``make kills N=200 SEED=7`` runs the long loop, which is in ``killloop``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest

from include.staging.api import resolve_revision, stage
from include.staging.context import StagingContext
from include.staging.lock import ABANDONED_SECONDS
from include.staging.target import LOCK_NAME, Target
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, staged_contents
from tests.include.staging.killing import Work
from tests.include.staging.killloop import KillLoop, finish, forking, start

pytestmark = [pytest.mark.local, pytest.mark.timeout(7200)]
KILLS = int(os.environ.get("STAGING_KILLS", "8"))
SEED = int(os.environ.get("STAGING_SEED", "7"))
SIZES = (18 << 20, 5 << 20, 2 << 20)


@pytest.fixture
def processes(server: Server) -> Iterator[ForkServerContext]:
    """Makes processes that know the S3 server."""
    with forking() as context:
        yield context


def revision_of(server: Server, name: str) -> str:
    return server.keys(f"models/{name}/")[0].split("/")[2]


def test_whoever_is_killed_leaves_nothing_that_one_retry_does_not_mend(
    server: Server, processes: ForkServerContext, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    make_model(folder, "unused", SIZES, seed=SEED + 1000)
    with KillLoop(server, processes, folder, tmp_path / "fetched", SEED) as loop:
        tally = loop.run(KILLS)
    with capsys.disabled():
        sys.stdout.write(f"\n{tally}\n")
    assert tally.troubles == []
    assert tally.at_work >= KILLS // 2, "the kills came too late to prove anything"
    assert tally.resumed, "no retry found a file that its predecessor had finished"


def test_the_lock_of_a_stager_that_died_after_publishing_goes_with_the_next_check(
    server: Server, context: StagingContext, tmp_path: Path
) -> None:
    model = make_model(tmp_path / "model", "left-lock", (2 << 20,), seed=SEED + 3000)
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="run")
    key, place = f"models/left-lock/{revision}/{LOCK_NAME}", "hyperpod-models"

    def left_by(holder: str, seconds_ago: float) -> bool:
        content = json.dumps({"holder": holder, "token": "dead", "at": time.time() - seconds_ago}).encode()
        server.client.put_object(Bucket=place, Key=key, Body=content)
        assert stage(model, revision, MODELS_URI, context, owner="run").reused
        return key in server.keys(key)

    assert not left_by("run", 1)
    assert left_by("another run, just repairing", 1)
    assert not left_by("another run, long dead", 2 * ABANDONED_SECONDS)


def test_two_at_once_make_one_manifest(
    server: Server, processes: ForkServerContext, tmp_path: Path
) -> None:  # fmt: skip
    folder = tmp_path / "model"
    make_model(folder, "unused", SIZES, seed=3000)
    pipes = [processes.Pipe() for _ in range(3)]
    for number, (_, theirs) in enumerate(pipes):
        start(processes, Work(str(folder), "together", f"run-{number}"), theirs)
        theirs.close()
    answers = [ours.recv() for ours, _ in pipes]
    assert len({digest for digest, _ in answers}) == 1
    assert sorted(moved for _, moved in answers)[:2] == [0, 0], "the bytes moved more than once"
    revision = revision_of(server, "together")
    assert staged_contents(server, "together", revision) == contents(folder)
    assert server.uploads() == []


def test_a_dead_holder_of_the_lock_is_taken_over_by_another_run(
    server: Server, processes: ForkServerContext, tmp_path: Path
) -> None:
    from tests.include.local.stack import wait_for

    folder = tmp_path / "model"
    make_model(folder, "unused", SIZES, seed=4000)
    victim = start(processes, Work(str(folder), "taken-over", "first"))
    wait_for("an upload", server.uploads)
    victim.kill()
    victim.join()
    finish(processes, Work(str(folder), "taken-over", "second"))
    assert staged_contents(server, "taken-over", revision_of(server, "taken-over")) == contents(folder)
    assert server.uploads() == []


def test_of_two_that_take_over_one_gets_the_lock(server: Server, context: StagingContext) -> None:
    from include.staging.lock import StagingLock

    objects = Target.open(MODELS_URI, "locked", "1", context).objects
    first = StagingLock(objects, "staging.lock", "same")
    assert first._acquire(lambda: False, 5)
    second = StagingLock(objects, "staging.lock", "same")
    _, etag = second._read()
    third = StagingLock(objects, "staging.lock", "same")
    assert [second._write(etag), third._write(etag)] == [True, False]
    assert not first._write(first._etag), "who was taken over must notice"
    objects.delete("staging.lock")
