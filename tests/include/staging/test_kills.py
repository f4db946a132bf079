"""SIGKILL at any moment, and stagers that meet: one retry completes, nothing is left, nothing wrong counts as staged.

``STAGING_KILLS=200 pytest tests/include/staging/test_kills.py`` runs the long loop; ``STAGING_SEED`` picks another.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import time
from collections.abc import Iterator
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest

from include.errors import IntegrityError
from include.staging.api import resolve_revision, stage, verify
from include.staging.context import StagingContext
from include.staging.inspection import Depth
from include.staging.lock import ABANDONED_SECONDS
from include.staging.target import LOCK_NAME, Target
from tests.include.staging import killing
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, staged_contents

pytestmark = [pytest.mark.local, pytest.mark.timeout(3600)]
KILLS = int(os.environ.get("STAGING_KILLS", "6"))
SEED = int(os.environ.get("STAGING_SEED", "7"))
SIZES = (18 << 20, 5 << 20, 2 << 20)


@pytest.fixture(scope="module")
def processes(server: Server) -> Iterator[ForkServerContext]:
    """Makes processes that know the S3 server of this session."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killing.__name__])
    yield context
    stop: Any = forkserver._forkserver  # type: ignore[attr-defined]
    stop._stop()


def start(processes: ForkServerContext, *arguments: Any) -> ForkServerProcess:
    process = processes.Process(target=killing.stage_folder, args=arguments)
    process.start()
    return process


def finish(processes: ForkServerContext, folder: Path, name: str, owner: str) -> tuple[str, int]:
    """Stage to the end; return the manifest's digest and the bytes moved."""
    ours, theirs = processes.Pipe()
    process = start(processes, str(folder), name, owner, theirs)
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise AssertionError(f"{owner} did not finish") from None
    process.join()
    assert process.exitcode == 0
    return tuple(found)


def revision_of(server: Server, name: str) -> str:
    return server.keys(f"models/{name}/")[0].split("/")[2]


def remove(server: Server, name: str) -> None:
    for key in server.keys(f"models/{name}/"):
        server.client.delete_object(Bucket="hyperpod-models", Key=key)


def test_killed_stagers_leave_nothing_that_one_retry_does_not_mend(
    server: Server, context: StagingContext, processes: ForkServerContext, tmp_path: Path
) -> None:
    dice, folder = random.Random(SEED), tmp_path / "model"
    make_model(folder, "unused", SIZES, seed=SEED + 1000)
    begun = time.monotonic()
    whole = finish(processes, folder, "measure", "once")
    took = time.monotonic() - begun
    revision = revision_of(server, "measure")
    remove(server, "measure")
    killed_at_work = resumed = 0
    for number in range(KILLS):
        name = f"killed-{number}"
        victim = start(processes, str(folder), name, "run")
        victim.join(timeout=dice.uniform(0.02, took / 2))
        killed_at_work += victim.exitcode is None
        victim.kill()
        victim.join()
        staged_is_true(server, context, folder, name, revision)
        digest, moved = finish(processes, folder, name, "run")
        resumed += moved < whole[1]
        assert staged_contents(server, name, revision) == contents(folder), f"kill {number}, seed {SEED}"
        verify(MODELS_URI, name, revision, context, depth=Depth.CHECKSUMS)
        assert digest == Target.open(MODELS_URI, name, revision, context).require_manifest().digest
        assert server.uploads() == [], f"kill {number}, seed {SEED}: parts were left behind"
        names = {key.rsplit("/", 1)[-1] for key in server.keys(f"models/{name}/") if "/files/" not in key}
        assert names == {"manifest.json"}
        remove(server, name)
    assert killed_at_work >= KILLS // 3, "the kills came too late to prove anything"
    assert resumed, "no retry found a file that its predecessor had finished"


def staged_is_true(server: Server, context: StagingContext, folder: Path, name: str, revision: str) -> None:
    """After a kill: either there is no manifest, or everything is there."""
    try:
        verify(MODELS_URI, name, revision, context, depth=Depth.CHECKSUMS)
    except IntegrityError as error:
        assert error.reason == "NotStaged", error  # noqa: PT017 (anything else would be a wrong "staged")
        return
    assert staged_contents(server, name, revision) == contents(folder)


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
        start(processes, str(folder), "together", f"run-{number}", theirs)
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
    victim = start(processes, str(folder), "taken-over", "first")
    wait_for("an upload", server.uploads)
    victim.kill()
    victim.join()
    finish(processes, folder, "taken-over", "second")
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
