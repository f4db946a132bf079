"""Stagers that meet: who was taken over stops, and destroys nothing of whoever goes on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

import include.staging.api as api
import include.staging.lock as locks
from include.errors import FailureClass, PipelineError
from include.staging.api import stage
from include.staging.cli import _parser
from include.staging.context import StagingContext
from include.staging.lock import StagingLock
from include.staging.model import StagedModel
from include.staging.sources import Listing, SourceFile, list_source
from include.staging.target import LOCK_NAME, Target
from tests.include.local.stack import wait_for
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, staged_contents

pytestmark = pytest.mark.local
SHARD = "model-0.safetensors"


@dataclass
class Gate:
    """A shard whose first part is read, and whose rest waits."""

    reached: threading.Event = field(default_factory=threading.Event)
    go: threading.Event = field(default_factory=threading.Event)

    def before_the_end_of(self, listing: Listing) -> Listing:
        """Put the gate into the shard of a listing."""
        files = tuple(replace(file, open=self._opened(file)) if file.path == SHARD else file for file in listing.files)
        return replace(listing, files=files)

    def _opened(self, file: SourceFile) -> Callable[[], Iterator[bytes]]:
        def chunks() -> Iterator[bytes]:
            seen = 0
            for chunk in file.open():
                seen += len(chunk)
                if seen > 17 << 20 and not self.reached.is_set():
                    self.reached.set()
                    assert self.go.wait(60)
                yield chunk

        return chunks


@pytest.fixture
def gates(monkeypatch: pytest.MonkeyPatch) -> list[Gate]:
    """One gate for each stager, in the order in which they begin."""
    made, waiting = [Gate(), Gate()], iter(range(2))

    def listed(*arguments: Any) -> Listing:
        return made[next(waiting)].before_the_end_of(list_source(*arguments))

    monkeypatch.setattr(api, "list_source", listed)
    return made


@pytest.fixture
def begin(context: StagingContext, tmp_path: Path) -> Iterator[Callable[[str, str], Future[StagedModel]]]:
    """Stages a model in a thread."""
    with ThreadPoolExecutor(2) as pool:

        def started(name: str, owner: str) -> Future[StagedModel]:
            model = make_model(tmp_path / "model", name, (30 << 20,), seed=len(name) * 1000)
            # As the plan did, before any gate.
            revision = list_source(model, context).revision
            return pool.submit(stage, model, revision, MODELS_URI, context, owner=owner)

        yield started


def test_who_is_taken_over_by_its_own_retry_leaves_the_retrys_uploads_alone(
    server: Server, gates: list[Gate], begin: Callable[[str, str], Future[StagedModel]], tmp_path: Path
) -> None:
    zombie = begin("met", "run")
    wait_for("the first upload", lambda: gates[0].reached.is_set() and server.uploads())
    retry = begin("met", "run")
    wait_for("the retry's upload", lambda: gates[1].reached.is_set() and server.uploads())
    gates[0].go.set()
    with pytest.raises(PipelineError) as caught:
        zombie.result(60)
    assert caught.value.retryable
    assert len(server.uploads()) == 1, "the retry's upload was aborted"
    gates[1].go.set()
    staged = retry.result(60)
    assert staged_contents(server, "met", staged.revision) == contents(tmp_path / "model")
    assert server.uploads() == []


def test_a_taken_over_stager_stops_in_the_middle_of_a_file(
    server: Server,
    context: StagingContext,
    gates: list[Gate],
    begin: Callable[[str, str], Future[StagedModel]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[StagingLock] = []

    class Seen(StagingLock):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            made.append(self)

    monkeypatch.setattr(api, "StagingLock", Seen)
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.05)
    stager = begin("stopped", "first")
    wait_for("the upload", lambda: gates[0].reached.is_set() and server.uploads())
    (lock,) = made
    key = next(key for key in server.keys("models/stopped/") if key.endswith(LOCK_NAME))
    server.client.put_object(Bucket="hyperpod-models", Key=key, Body=b'{"holder": "second", "token": "x", "at": 0}')
    wait_for("a heartbeat", lambda: lock.lost)
    gates[0].go.set()
    with pytest.raises(PipelineError) as caught:
        stager.result(60)
    assert (caught.value.reason, caught.value.retryable) == ("StagingTakenOver", True)
    assert not [key for key in server.keys("models/stopped/") if key.endswith((SHARD, "manifest.json"))]
    assert server.uploads() == []


def test_a_lock_that_others_keep_is_said_to_be_busy(
    server: Server, context: StagingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "POLL_SECONDS", 0.01)
    objects = Target.open(MODELS_URI, "busy", "1", context).objects
    holder = StagingLock(objects, LOCK_NAME, "first")
    with holder.held(lambda: False) as ours:
        assert ours
        with (
            pytest.raises(PipelineError, match="StagingBusy") as caught,
            StagingLock(objects, LOCK_NAME, "second").held(lambda: False, timeout=0.1),
        ):
            pass
    assert caught.value.failure_class is FailureClass.CAPACITY
    assert server.keys("models/busy/") == []


def test_a_heartbeat_whose_answer_was_lost_is_no_takeover(
    server: Server, context: StagingContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locks, "HEARTBEAT_SECONDS", 0.02)
    lock = StagingLock(Target.open(MODELS_URI, "beating", "1", context).objects, LOCK_NAME, "run")
    beats: list[str | None] = []

    class Beating(StagingLock):
        def _write(self, replaces: str | None) -> bool:
            beats.append(replaces)
            return super()._write(replaces)

    lock.__class__ = Beating
    with lock.held(lambda: False):
        # The store has a newer one of ours than we know of.
        lock._etag = '"an earlier one"'
        seen = len(beats)
        wait_for("later heartbeats", lambda: len(beats) > seen + 3)
        assert not lock.lost
        lock.require_held()


def test_two_shells_of_one_machine_are_two_owners() -> None:
    owners = {_parser().parse_args(["stage", "m"]).owner for _ in range(2)}
    assert len(owners) == 2, "the second would take the first for its dead predecessor"
