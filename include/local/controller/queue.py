"""Level-triggered reconciliation: a key is reconciled once at a time, again when it changed meanwhile."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from include.local.controller.api import ApiError

logger = logging.getLogger(__name__)
K = TypeVar("K", bound=Hashable)
FIRST_RETRY_SECONDS = 0.1
LONGEST_RETRY_SECONDS = 10.0


class Reconciler(Generic[K]):
    """Runs ``reconcile(key)`` for every key added.

    :param reconcile: returns seconds after which to look again, or ``None`` to wait for a change.
    :param workers: how many different keys are reconciled at once.
    """

    def __init__(self, name: str, reconcile: Callable[[K], Awaitable[float | None]], *, workers: int = 4) -> None:
        self._name = name
        self._reconcile = reconcile
        self._limit = asyncio.Semaphore(workers)
        self._running: set[K] = set()
        self._again: set[K] = set()
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._failures: dict[K, int] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def add(self, key: K) -> None:
        """Reconcile ``key`` as soon as possible."""
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._running:
            self._again.add(key)
            return
        self._running.add(key)
        task = asyncio.get_running_loop().create_task(self._run(key))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def add_after(self, key: K, seconds: float) -> None:
        """Reconcile ``key`` later, unless something asks earlier."""
        if key in self._running and key in self._again:
            return
        old = self._timers.pop(key, None)
        if old:
            old.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self.add, key)

    async def stop(self) -> None:
        """Cancel what runs and forget what waits."""
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(self, key: K) -> None:
        again: float | None = None
        try:
            async with self._limit:
                again = await self._attempt(key)
        finally:
            self._running.discard(key)
        if key in self._again:
            self._again.discard(key)
            self.add(key)
        elif again is not None:
            self.add_after(key, again)

    async def _attempt(self, key: K) -> float | None:
        again: float | None
        try:
            again = await self._reconcile(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            expected = isinstance(error, ApiError) and error.status in (0, 404, 409)
            logger.log(
                logging.INFO if expected else logging.ERROR,
                "%s %s: %s",
                self._name,
                key,
                error,
                exc_info=None if isinstance(error, ApiError) else error,
            )
            return min(FIRST_RETRY_SECONDS * 2.0 ** min(failures - 1, 10), LONGEST_RETRY_SECONDS)
        self._failures.pop(key, None)
        return again
