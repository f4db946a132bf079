"""One stager per revision: a lock object with a heartbeat; a dead holder is taken over, atomically."""

from __future__ import annotations

import contextlib
import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from include.errors import FailureClass, PipelineError

if TYPE_CHECKING:
    from obstore import PutMode

    from include.objects import Objects

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0
POLL_SECONDS = 1.0
# Heartbeats come every few seconds; no two clocks differ by this much.
ABANDONED_SECONDS = 3600.0


class StagingLock:
    """Exclusive right to write one revision.

    Each write names the entity tag that it replaces, so of two that take over one wins, and a holder that was
    taken over learns it at its next heartbeat. The manifest's conditional write is what correctness rests on; the
    lock saves moving bytes twice.

    :param holder: owner of the run; a retry of the same owner takes over at once, others wait for silence.
    :param stale_seconds: silence after which a holder counts as dead.
    :param tags: of the lock object, where a bucket takes no object without them.
    """

    def __init__(
        self,
        objects: Objects,
        path: str,
        holder: str,
        stale_seconds: float = STALE_SECONDS,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        self.objects = objects
        self.path = path
        self.holder = holder
        self.stale_seconds = stale_seconds
        self.tags = dict(tags or {}) or None
        self.token = uuid.uuid4().hex
        self.lost = False
        self._etag: str | None = None
        self._stop = threading.Event()

    @contextmanager
    def held(self, finished: Callable[[], bool], timeout: float = 3600) -> Iterator[bool]:
        """Yield True while we hold the lock, False when ``finished`` became true while we waited.

        :raises PipelineError: when somebody else holds it for longer than ``timeout`` seconds.
        """
        if not self._acquire(finished, timeout):
            yield False
            return
        beat = threading.Thread(target=self._beat, daemon=True)
        beat.start()
        try:
            yield True
        finally:
            self._stop.set()
            beat.join(timeout=HEARTBEAT_SECONDS)
            self._release()

    def require_held(self) -> None:
        """Stop when another stager has taken over.

        :raises PipelineError: StagingTakenOver.
        """
        if self.lost:
            raise PipelineError(
                "StagingTakenOver",
                f"another run took over {self.objects.url(self.path)}",
                fix="nothing to do: a retry checks what that run has staged",
                failure_class=FailureClass.TRANSIENT,
            )

    def is_ours(self) -> bool:
        """Ask the store who holds the lock now; a heartbeat may be seconds away."""
        content, _ = self._read()
        return self.token.encode() in content

    def clear_abandoned(self) -> None:
        """Remove the lock of a holder that died after it had published: our own predecessor, or one long silent."""
        content, _ = self._read()
        if content and (self._same_holder(content) or self._age(content) > ABANDONED_SECONDS):
            self.objects.delete(self.path)

    @staticmethod
    def _age(content: bytes) -> float:
        """Seconds since the holder's last heartbeat, if its clock is right."""
        try:
            return time.time() - float(json.loads(content)["at"])
        except (ValueError, KeyError, TypeError):
            return 0.0

    def _acquire(self, finished: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        seen: tuple[str | None, float] = (None, time.monotonic())
        while time.monotonic() < deadline:
            if self._write(None):
                return True
            content, etag = self._read()
            if etag is None:
                continue
            if etag != seen[0]:
                seen = (etag, time.monotonic())
            # Silence is measured by our own clock: two machines' clocks need not agree.
            stale = time.monotonic() - seen[1] > self.stale_seconds
            if (stale or self._same_holder(content)) and self._write(etag):
                return True
            if finished():
                return False
            time.sleep(POLL_SECONDS)
        raise PipelineError(
            "StagingBusy",
            f"{self.objects.url(self.path)} is held by another run for more than {timeout:.0f} s",
            fix="wait for that run, or delete the lock object if it is gone",
            failure_class=FailureClass.CAPACITY,
        )

    def _write(self, replaces: str | None) -> bool:
        """Write the lock where there is none, or in place of the one with this entity tag."""
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        content = json.dumps({"holder": self.holder, "token": self.token, "at": time.time()}).encode()
        mode: PutMode = "create" if replaces is None else {"e_tag": replaces}
        try:
            done = obstore.put(self.objects.native, self.path, content, mode=mode, tags=self.tags)
        except (AlreadyExistsError, PreconditionError, FileNotFoundError):
            return False
        self._etag = done["e_tag"]
        return True

    def _read(self) -> tuple[bytes, str | None]:
        import obstore

        try:
            found = obstore.get(self.objects.native, self.path)
            return bytes(found.bytes()), found.meta["e_tag"]
        except FileNotFoundError:
            return b"", None

    def _same_holder(self, content: bytes) -> bool:
        try:
            return bool(json.loads(content).get("holder") == self.holder)
        except (ValueError, AttributeError):
            return True

    def _beat(self) -> None:
        from obstore.exceptions import BaseError

        while not self._stop.wait(HEARTBEAT_SECONDS):
            try:
                if not self._write(self._etag) and not self._wrote_before():
                    self.lost = True
                    return
            except (OSError, BaseError):
                # A store that does not answer now may answer before we count as dead.
                continue

    def _wrote_before(self) -> bool:
        """True when the lock is ours after all: the answer to an earlier write was lost on its way."""
        content, etag = self._read()
        self._etag = etag
        return self.token.encode() in content

    def _release(self) -> None:
        from obstore.exceptions import BaseError

        # What was staged is staged: a lock that cannot be removed goes stale by itself.
        with contextlib.suppress(OSError, BaseError):
            if self.is_ours():
                self.objects.delete(self.path)
