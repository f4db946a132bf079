"""Pods agree on a start through their results folder: each says that it is ready, the first one names the time."""

from __future__ import annotations

import time

from include.errors import FailureClass, PipelineError
from include.objects import AlreadyExistsError, Objects

START, SCRAPING = "start", "scraping"
POLL_S = 0.25
# Later than every pod's next look at the folder, however slow the store is at it.
AHEAD_NS = 2_000_000_000


class Rendezvous:
    """One pod's part. The nodes' clocks are trusted (chrony and the Amazon Time Sync Service: below a millisecond).

    :param store: a folder that belongs to this run of the Job alone.
    :param wait_s: how long the last pod may take.
    """

    def __init__(self, store: Objects, index: int, pods: int, wait_s: float) -> None:
        self._store, self._index, self._pods, self._wait_s = store, index, pods, wait_s

    def meet(self) -> int:
        """Say that this pod is ready; return when all start (Unix ns).

        :raises PipelineError: ``PodsDidNotMeet`` names those that did not come.
        """
        self._store.put(_mark(self._index), b"")
        deadline = time.monotonic() + self._wait_s
        while True:
            named = self._store.get(START)
            if named is not None:
                return int(named)
            missing = self._missing()
            if not missing and self._index == 0:
                return self._name()
            if time.monotonic() > deadline:
                raise PipelineError(
                    "PodsDidNotMeet",
                    f"{len(missing)} of {self._pods} load pods were not ready within {self._wait_s:.0f} s: "
                    f"{', '.join(map(str, missing)) or 'the first named no start'}",
                    fix="Look at the pods' events: no room for them, or the image is slow to pull.",
                    failure_class=FailureClass.CAPACITY,
                )
            time.sleep(POLL_S)

    def scraping(self) -> None:
        """Say that the servers' counters were read: from now on requests may be sent."""
        self._store.put(SCRAPING, b"")

    def await_scraping(self) -> None:
        """Return once the first pod has read the servers' counters: no warm-up comes before that.

        :raises PipelineError: ``PodsDidNotMeet``.
        """
        deadline = time.monotonic() + self._wait_s
        while self._store.head(SCRAPING) is None:
            if time.monotonic() > deadline:
                raise PipelineError(
                    "PodsDidNotMeet",
                    f"load pod 0 of {self._pods} did not begin to scrape within {self._wait_s:.0f} s",
                    fix="Look at its events: no room for it, or the image is slow to pull.",
                    failure_class=FailureClass.CAPACITY,
                )
            time.sleep(POLL_S)

    def done(self) -> None:
        """Say that this pod sends nothing any more."""
        self._store.put(f"done-{self._index}", b"")

    def all_done(self, wait_s: float) -> bool:
        """Return true once every pod has said so, false when one has not within ``wait_s``."""
        deadline = time.monotonic() + wait_s
        while any(self._store.head(f"done-{index}") is None for index in range(self._pods)):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_S)
        return True

    def _missing(self) -> list[int]:
        return [index for index in range(self._pods) if self._store.head(_mark(index)) is None]

    def _name(self) -> int:
        at = time.time_ns() + AHEAD_NS
        try:
            self._store.put(START, str(at).encode(), create=True)
        except AlreadyExistsError:
            return int(self._store.get(START) or at)
        return at


def _mark(index: int) -> str:
    return f"ready-{index}"
