"""The loop of kills: all that staging does, killed at chosen requests and at any moment; what is wrong is counted.

A kill comes before a request, after the server did it and before the answer, or at a random moment of the work.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

from include.errors import IntegrityError
from include.local import s3
from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.staging.api import resolve_revision, verify
from include.staging.context import StagingContext
from include.staging.inspection import Depth
from include.staging.target import LOCK_NAME
from tests.include.staging import killing
from tests.include.staging.conftest import MODELS_URI, Server, contents, staged_contents
from tests.include.staging.killing import Work
from tests.include.staging.killproxy import KillProxy, Point

BUCKET = "hyperpod-models"
PATIENCE_SECONDS = 180
# The first kills of every loop, however short: the ends of uploads, of files and of the whole.
LATE = (
    ("folder", Point("publish", 1, "before")), ("hub", Point("complete", 1, "after")),
    ("folder", Point("head", 1, "after")), ("hub", Point("publish", 1, "after")),
    ("folder", Point("release", 1, "before")), ("repair", Point("complete", 1, "before")),
)  # fmt: skip
# What the other kills hit, and how often.
KINDS = ("folder", "folder", "folder", "hub", "hub", "hub", "repair", "delete", "fetch")
AT_ANY_MOMENT = 0.25


@contextmanager
def forking() -> Iterator[ForkServerContext]:
    """A fork server that knows the environment of now."""
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([killing.__name__])
    yield context
    stop: Any = forkserver._forkserver
    stop._stop()


def start(processes: ForkServerContext, work: Work, answer: Connection | None = None) -> ForkServerProcess:
    process = processes.Process(target=killing.run, args=(work, answer))
    process.start()
    return process


def finish(processes: ForkServerContext, work: Work) -> tuple[str, int]:
    """Work to the end; return the manifest's digest and the bytes moved."""
    ours, theirs = processes.Pipe()
    process = start(processes, work, theirs)
    theirs.close()
    try:
        found = ours.recv()
    except EOFError:
        raise AssertionError(f"{work.owner} did not finish") from None
    process.join()
    assert process.exitcode == 0
    return tuple(found)


@dataclass
class Tally:
    """What the kills came to.

    :param at_work: victims that died at work; the others had ended before.
    :param resumed: retries that moved less than everything.
    :param troubles: a sentence for each thing that was wrong.
    """

    seed: int
    kills: int = 0
    at_work: int = 0
    resumed: int = 0
    wrong_staged: int = 0
    orphan_uploads: int = 0
    not_identical: int = 0
    not_finished: int = 0
    points: Counter[str] = field(default_factory=Counter)
    troubles: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        points = ", ".join(f"{name} {count}" for name, count in sorted(self.points.items()))
        return "\n".join(
            [
                f"{self.kills} kills (seed {self.seed}), {self.at_work} at work, {self.resumed} retries went on",
                f"wrong 'staged': {self.wrong_staged}, orphan multipart uploads: {self.orphan_uploads}, "
                f"contents not identical: {self.not_identical}, retries that failed: {self.not_finished}",
                f"killed at: {points}",
                *self.troubles,
            ]
        )


class KillLoop:
    """Kills processes that stage, repair, delete and fetch one folder's content.

    :param to: an absent folder, for what is fetched.
    """

    def __init__(
        self, server: Server, processes: ForkServerContext, folder: Path, to: Path, seed: int
    ) -> None:  # fmt: skip
        self._server, self._processes, self._folder, self._to = server, processes, folder, to
        self._dice = random.Random(seed)
        self._tally = Tally(seed)
        self._known: dict[str, tuple[Counter[str], float, int]] = {}
        self._closing = ExitStack()

    def __enter__(self) -> KillLoop:
        self._proxy = self._closing.enter_context(KillProxy(self._server.url))
        self._hub = self._closing.enter_context(HubServer([Repository("org/model", self._folder)]))
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()

    def run(self, kills: int) -> Tally:
        """Kill so often; return what was wrong."""
        for number in range(kills):
            kind, point = LATE[number] if number < len(LATE) else (self._dice.choice(KINDS), None)
            self._once(number, kind, point)
        return self._tally

    def _work(self, kind: str, name: str) -> Work:
        hub = self._hub.url if kind == "hub" else ""
        does = kind if kind in ("repair", "delete", "fetch") else "stage"
        to = str(self._to / name)
        return Work(str(self._folder), name, "run", does, hub=hub, store=self._proxy.url, to=to)

    def _once(self, number: int, kind: str, point: Point | None) -> None:
        counts, took, moved_in_all = self._profile(kind)
        work = self._work(kind, f"killed-{number}")
        self._prepare(work)
        if point is None and self._dice.random() >= AT_ANY_MOMENT:
            hit = self._dice.choice(sorted(counts))
            point = Point(hit, self._dice.randint(1, counts[hit]), self._dice.choice(("before", "after")))
        said = f"{kind} at {f'{point.kind} {point.number} {point.when}' if point else 'any moment'}"
        self._kill(work, point, took)
        self._tally.kills += 1
        self._tally.points[f"{kind}/{point.kind if point else 'any moment'}"] += 1
        said = f"kill {number}, seed {self._tally.seed}, {said}"
        published = self._judge_killed(work, said)
        # The same run tries again, or another one comes.
        retry = replace(work, owner=self._dice.choice(("run", "run", "run", "another")))
        try:
            _, moved = finish(self._processes, retry)
            self._tally.resumed += kind in ("folder", "hub") and moved < moved_in_all
        except AssertionError as error:
            self._tally.not_finished += 1
            self._tally.troubles.append(f"{said}: {error}")
        # Another run leaves the lock of one that died after publishing, until it is old: it may be somebody's repair.
        allowed = {LOCK_NAME} if published and retry.owner != work.owner else set[str]()
        self._judge_finished(work, said, allowed)
        self._remove(work)

    def _profile(self, kind: str) -> tuple[Counter[str], float, int]:
        """Requests by kind, seconds and bytes moved of one that nobody kills."""
        if kind not in self._known:
            work = self._work(kind, f"whole-{kind}")
            self._prepare(work)
            self._proxy.arm(None)
            begun = time.monotonic()
            _, moved = finish(self._processes, work)
            self._known[kind] = Counter(self._proxy.seen), time.monotonic() - begun, moved
            self._remove(work)
        return self._known[kind]

    def _prepare(self, work: Work) -> None:
        """What a repair, a deletion or a fetch finds: a staged revision, damaged for a repair."""
        if work.does == "stage":
            return
        self._proxy.arm(None)
        finish(self._processes, replace(work, does="stage"))
        if work.does == "repair":
            key = next(key for key in self._server.keys(f"models/{work.name}/") if key.endswith("model-0.safetensors"))
            body = self._server.body(key)
            self._server.client.put_object(Bucket=BUCKET, Key=key, Body=body[:-1] + bytes([body[-1] ^ 1]))

    def _kill(self, work: Work, point: Point | None, took: float) -> None:
        self._proxy.arm(point)
        victim = start(self._processes, work)
        assert victim.pid is not None
        self._proxy.aim(victim.pid)
        victim.join(timeout=self._dice.uniform(0.02, took) if point is None else PATIENCE_SECONDS)
        self._tally.at_work += victim.exitcode is None or self._proxy.struck.is_set()
        victim.kill()
        victim.join()
        self._proxy.arm(None)

    def _revision(self, work: Work) -> str:
        return resolve_revision(work.model, work.context)

    def _identical(self, work: Work) -> bool:
        return staged_contents(self._server, work.name, self._revision(work)) == contents(self._folder)

    def _judge_killed(self, work: Work, said: str) -> bool:
        """After a kill: what counts as staged or fetched is whole. Returns whether it counts as staged."""
        counts = self._counts_as_staged(work)
        if counts and not self._identical(work):
            self._tally.wrong_staged += 1
            self._tally.troubles.append(f"{said}: counts as staged and is not whole")
        place = Path(work.to) / work.name / self._revision(work)
        if (place / "manifest.json").exists() and contents(place / "files") != contents(self._folder):
            self._tally.wrong_staged += 1
            self._tally.troubles.append(f"{said}: counts as fetched and is not whole")
        return counts

    def _counts_as_staged(self, work: Work) -> bool:
        try:
            verify(MODELS_URI, work.name, self._revision(work), StagingContext(region=s3.REGION), depth=Depth.CHECKSUMS)
        except IntegrityError:
            return False
        return True

    def _judge_finished(self, work: Work, said: str, allowed: set[str]) -> None:
        """After one retry: whole, and nothing else is there."""
        if work.does == "delete":
            whole, rest = self._server.keys(f"models/{work.name}/") == [], set[str]()
        else:
            whole = self._counts_as_staged(work) and self._identical(work)
            keys = self._server.keys(f"models/{work.name}/")
            rest = {key.rsplit("/", 1)[-1] for key in keys if "/files/" not in key} - {"manifest.json"} - allowed
        if work.does == "fetch":
            files = Path(work.to) / work.name / self._revision(work) / "files"
            whole = whole and contents(files) == contents(self._folder)
        if not whole:
            self._tally.not_identical += 1
            self._tally.troubles.append(f"{said}: not what the source has after the retry")
        left = [key for key in self._server.uploads() if f"/{work.name}/" in key]
        if left or rest:
            self._tally.orphan_uploads += len(left)
            self._tally.troubles.append(f"{said}: left behind: {left or rest}")

    def _remove(self, work: Work) -> None:
        for key in self._server.keys(f"models/{work.name}/"):
            self._server.client.delete_object(Bucket=BUCKET, Key=key)
        shutil.rmtree(work.to, ignore_errors=True)
