"""One stager per revision: a lock object with a heartbeat; a dead holder is taken over."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from include.errors import FailureClass, PipelineError
from include.objects import AlreadyExistsError, Objects

HEARTBEAT_SECONDS = 5.0
STALE_SECONDS = 30.0


class StagingLock:
    """Exclusive right to write one revision.

    :param holder: owner of the run; a retry of the same owner takes over at once, others wait for silence.
    """

    def __init__(self, objects: Objects, path: str, holder: str) -> None:
        self.objects = objects
        self.path = path
        self.holder = holder
        self.token = uuid.uuid4().hex
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

    def _acquire(self, finished: Callable[[], bool], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        seen: tuple[bytes | None, float] = (None, time.monotonic())
        while time.monotonic() < deadline:
            try:
                self.objects.put(self.path, self._content(), create=True)
            except AlreadyExistsError:
                content = self.objects.get(self.path)
                if content != seen[0]:
                    seen = (content, time.monotonic())
                # Silence is measured by our own clock: two machines' clocks need not agree.
                stale = time.monotonic() - seen[1] > STALE_SECONDS
                if content is None or stale or self._same_holder(content):
                    self.objects.delete(self.path)
                    continue
                if finished():
                    return False
                time.sleep(1)
            else:
                return True
        raise PipelineError(
            "StagingBusy",
            f"{self.objects.url(self.path)} is held by another run for more than {timeout:.0f} s",
            fix="wait for that run, or delete the lock object if it is gone",
            failure_class=FailureClass.CAPACITY,
        )

    def _content(self) -> bytes:
        return json.dumps({"holder": self.holder, "token": self.token, "at": time.time()}).encode()

    def _same_holder(self, content: bytes) -> bool:
        try:
            return bool(json.loads(content).get("holder") == self.holder)
        except (ValueError, AttributeError):
            return True

    def _beat(self) -> None:
        while not self._stop.wait(HEARTBEAT_SECONDS):
            self.objects.put(self.path, self._content())

    def _release(self) -> None:
        content = self.objects.get(self.path)
        if content is not None and self.token in content.decode(errors="replace"):
            self.objects.delete(self.path)
