"""Closed loop, where users wait for their answers, and open loop, where arrivals wait for nobody."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from array import array
from time import monotonic_ns

from include.loadtest.engine.clock import NS, Timers
from include.loadtest.engine.dispatch import Dispatcher
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.prompts import Ask, Source
from include.loadtest.engine.recorder import MEASURE, Recorder

CONNECT_BACKOFF_NS = 100_000_000
LATE_ARRIVALS_NS = 10_000_000
_CONNECT_FAILURES = frozenset({"connect", "connect_timeout", "tls"})


class Loop(ABC):
    """What both kinds share: when to stop, follow-up turns, the end."""

    def __init__(self, dispatcher: Dispatcher, source: Source, recorder: Recorder, timers: Timers) -> None:
        self._dispatcher = dispatcher
        self._source = source
        self._recorder = recorder
        self._timers = timers
        self._waiting = 0
        self.stopping = ""
        self.stopped_at = 0
        self.issued = 0
        self.done = asyncio.Event()

    @abstractmethod
    def start(self, t0: int) -> None:
        """Schedule what begins the load at ``t0`` (monotonic ns)."""

    def stop(self, reason: str) -> None:
        """Issue nothing more; what is in flight is awaited."""
        if not self.stopping:
            self.stopping = reason
            self.stopped_at = monotonic_ns()
        self._check()

    def on_finished(self, exchange: Exchange) -> None:
        """Let the request's user go on, then record: the next request does not wait for the bookkeeping."""
        self._next_of(exchange)
        self._recorder.add(exchange)
        if self._recorder.too_many_errors:
            self.stop("error_rate")
        self._check()

    @abstractmethod
    def _next_of(self, exchange: Exchange) -> None:
        """Let the finished request's user go on."""

    @abstractmethod
    def _exhausted(self) -> bool:
        """True when the bounds leave nothing more to issue."""

    def _check(self) -> None:
        """Done when nothing is under way and nothing more will be issued."""
        if self._dispatcher.busy == 0 and (self.stopping or (self._waiting == 0 and self._exhausted())):
            if not self.stopped_at:
                self.stopped_at = monotonic_ns()
            self.done.set()

    def _issue(self, ask: Ask, scheduled: int) -> None:
        self.issued += 1
        if self._recorder.wants_text:
            self._recorder.text_kept()
            ask.keep_text = True
        self._dispatcher.submit(ask, scheduled, MEASURE)


class ClosedLoop(Loop):
    """``users`` users, each with one request in flight; the first wave is spread over ``ramp_ns``.

    A request is due when its user's previous answer ended, plus the think time.

    :param requests: bound on requests, follow-up turns included; ``None``: until stopped.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        source: Source,
        recorder: Recorder,
        timers: Timers,
        *,
        users: int,
        requests: int | None,
        ramp_ns: int,
    ) -> None:
        super().__init__(dispatcher, source, recorder, timers)
        self._users = users
        self._requests = requests
        self._ramp_ns = ramp_ns

    def start(self, t0: int) -> None:
        """Schedule each user's first request."""
        self._waiting = self._users
        for user in range(self._users):
            due = t0 + self._ramp_ns * user // self._users
            self._timers.at(due, self._begin, due)
        self._check()  # without users nothing else would ever say that it is over

    def _begin(self, due: int) -> None:
        self._waiting -= 1
        if not self._bounded():
            self._issue(self._source.take(), due)
        self._check()

    def _bounded(self) -> bool:
        return bool(self.stopping) or (self._requests is not None and self.issued >= self._requests)

    def _exhausted(self) -> bool:
        return not self._users or (self._requests is not None and self.issued >= self._requests)

    def _next_of(self, exchange: Exchange) -> None:
        if self._bounded():
            return
        ask = self._source.followup(exchange)
        pause = round(self._source.think_time_s(exchange.ask) * NS)
        if exchange.error_class in _CONNECT_FAILURES:
            pause = max(pause, CONNECT_BACKOFF_NS)
        due = exchange.end + pause
        if pause:
            self._waiting += 1
            self._timers.at(due, self._resume, ask, due)
        else:
            self._issue(ask or self._source.take(), due)

    def _resume(self, ask: Ask | None, due: int) -> None:
        self._waiting -= 1
        if not self._bounded():
            self._issue(ask or self._source.take(), due)
        self._check()


class OpenLoop(Loop):
    """Requests at the given offsets from t0, whatever became of the earlier ones."""

    def __init__(
        self, dispatcher: Dispatcher, source: Source, recorder: Recorder, timers: Timers, *, due: array[int]
    ) -> None:
        super().__init__(dispatcher, source, recorder, timers)
        self._due = due
        self._place = 0
        self._t0 = 0

    def start(self, t0: int) -> None:
        """Schedule the first arrival."""
        self._t0 = t0
        self._arrive()

    def _arrive(self) -> None:
        due, t0 = self._due, self._t0
        while self._place < len(due) and not self.stopping:
            at = t0 + due[self._place]
            if at > monotonic_ns():
                self._timers.at(at, self._arrive)
                return
            self._place += 1
            self._issue(self._source.take(), at)
        self._check()

    def end_arrivals(self) -> None:
        """The load's time is up: sessions get no further turn, what has arrived is awaited."""
        if self._place >= len(self._due):
            self.stop("duration")
        else:
            self._timers.at(monotonic_ns() + LATE_ARRIVALS_NS, self.end_arrivals)

    def _exhausted(self) -> bool:
        return self._place >= len(self._due)

    def _next_of(self, exchange: Exchange) -> None:
        ask = None if self.stopping else self._source.followup(exchange)
        if ask is None:
            return
        due = exchange.end + round(self._source.think_time_s(exchange.ask) * NS)
        self._waiting += 1
        self._timers.at(due, self._resume, ask, due)

    def _resume(self, ask: Ask, due: int) -> None:
        self._waiting -= 1
        if not self.stopping:
            self._issue(ask, due)
        self._check()
