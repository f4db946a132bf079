"""Timers of nanosecond resolution: uvloop's own have one millisecond, too coarse for a send time."""

from __future__ import annotations

import ctypes
import heapq
import os
import sys
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio

NS = 1_000_000_000
_CLOCK_MONOTONIC = 1
_TFD_FLAGS = os.O_NONBLOCK | getattr(os, "O_CLOEXEC", 0)
_TFD_ABSTIME = 1


class _Itimerspec(ctypes.Structure):
    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("value_s", ctypes.c_long),
        ("value_ns", ctypes.c_long),
    )


class TimerFd:
    """A Linux timerfd armed at absolute monotonic times (timerfd_create(2))."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, _TFD_FLAGS)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._spec = _Itimerspec(0, 0, 0, 0)
        self._pointer = ctypes.byref(self._spec)

    def arm(self, due_ns: int) -> None:
        """Become readable at ``due_ns``; a past time means at once."""
        self._spec.value_s, self._spec.value_ns = divmod(max(due_ns, 1), NS)
        self._libc.timerfd_settime(self.fd, _TFD_ABSTIME, self._pointer, None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self.fd)


class Timers:
    """Calls functions at absolute monotonic times, in order of their due time."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._heap: list[tuple[int, int, Callable[..., object], tuple[Any, ...]]] = []
        self._sequence = 0
        self._armed = 0
        self._handle: asyncio.TimerHandle | None = None
        self._timer = TimerFd() if sys.platform == "linux" else None
        if self._timer is not None:
            loop.add_reader(self._timer.fd, self._readable)

    def at(self, due_ns: int, function: Callable[..., object], *args: Any) -> None:
        """Call ``function(*args)`` at ``due_ns`` or as soon after as the loop is free."""
        self._sequence += 1
        heapq.heappush(self._heap, (due_ns, self._sequence, function, args))
        if not self._armed or due_ns < self._armed:
            self._arm(due_ns)

    def _arm(self, due_ns: int) -> None:
        self._armed = due_ns
        if self._timer is not None:
            self._timer.arm(due_ns)
            return
        if self._handle is not None:
            self._handle.cancel()
        delay = max(0, due_ns - monotonic_ns()) / NS
        self._handle = self._loop.call_later(delay, self._fire)

    def _readable(self) -> None:
        assert self._timer is not None  # noqa: S101
        try:
            os.read(self._timer.fd, 8)
        except BlockingIOError:
            return
        self._fire()

    def _fire(self) -> None:
        self._armed = -1
        heap = self._heap
        while heap and heap[0][0] <= monotonic_ns():
            _, _, function, args = heapq.heappop(heap)
            function(*args)
        self._armed = 0
        if heap:
            self._arm(heap[0][0])

    def close(self) -> None:
        """Stop; nothing that is still due is called."""
        self._heap.clear()
        if self._timer is not None:
            self._loop.remove_reader(self._timer.fd)
            self._timer.close()
            self._timer = None
