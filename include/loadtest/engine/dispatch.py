"""Sends requests over a pool of kept-alive connections; queues them when the cap on requests in flight is met."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from time import monotonic_ns

from include.loadtest.engine.clock import NS, Timers
from include.loadtest.engine.exchange import Exchange
from include.loadtest.engine.prompts import Ask
from include.loadtest.engine.replies import RawReply
from include.loadtest.engine.wire import Connection
from include.loadtest.job import Endpoint

CONNECT_TIMEOUT_S = 15.0
SIDE_TIMEOUT_S = 5.0
SWEEP_NS = 50_000_000
STALE_IDLE_NS = NS
OPEN_AT_ONCE = 64
STALE_ANSWER_NS = 50_000_000

Render = Callable[[bytes, str], bytes]


class Dispatcher:
    """Owner of all connections of a generator.

    :param render: makes head and body (and signature) from a body and a request id.
    :param limit: most requests in flight; ``None``: no cap.
    :param finished: called with each finished exchange, after its connection is free again.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        addresses: list[str],
        context: ssl.SSLContext | None,
        timers: Timers,
        render: Render,
        *,
        salt: str,
        timeout_s: float,
    ) -> None:
        self._endpoint = endpoint
        self._addresses = deque(addresses)
        self._refusing: list[str] = []
        self._context = context
        self._timers = timers
        self._render = render
        self._salt = salt
        self._timeout_ns = round(timeout_s * NS)
        self._idle: list[Connection] = []
        self._flying: dict[Exchange, Connection] = {}
        self._queue: deque[Exchange] = deque()
        self._connecting: set[asyncio.Task[None]] = set()
        self._closing = False
        self._opened = 0
        self.limit: int | None = None
        self.finished: Callable[[Exchange], None] = _nobody
        self.peak = 0
        timers.at(monotonic_ns() + SWEEP_NS, self._sweep)

    @property
    def busy(self) -> int:
        """Requests in flight, connecting or queued."""
        return len(self._flying) + len(self._connecting) + len(self._queue)

    @property
    def in_flight(self) -> int:
        """Requests sent and not finished."""
        return len(self._flying)

    async def open(self, count: int) -> None:
        """Open connections until ``count`` are idle; those that fail are left to the requests to report."""
        self._opened = count
        missing = count - len(self._idle)
        for start in range(0, missing, OPEN_AT_ONCE):
            batch = [self._connect() for _ in range(min(OPEN_AT_ONCE, missing - start))]
            for result in await asyncio.gather(*batch, return_exceptions=True):
                if isinstance(result, Connection):
                    self._idle.append(result)

    async def refresh(self, until: int) -> None:
        """Replace idle connections that were opened long ago, as far as that is done by ``until`` (monotonic ns).

        Servers close them after a few seconds without a request, just when all are used at once.
        """
        while monotonic_ns() < until:
            now = monotonic_ns()
            old = [connection for connection in self._idle if now - connection.idle_since >= STALE_IDLE_NS]
            missing = max(0, self._opened - len(self._idle))
            batch = [self._connect() for _ in range(min(OPEN_AT_ONCE, len(old) + missing))]
            found = await asyncio.gather(*batch, return_exceptions=True)
            fresh = [connection for connection in found if isinstance(connection, Connection)]
            if not fresh:
                return
            for connection in old[: max(0, len(fresh) - missing)]:
                self.on_idle_lost(connection)
                connection.close()
            self._idle += fresh

    def submit(self, ask: Ask, scheduled: int, phase: str) -> Exchange:
        """Send now if a connection or room for one is there, else queue."""
        exchange = Exchange(ask, scheduled, phase)
        self._launch(exchange)
        return exchange

    async def ask_once(self, path_render: Callable[[], bytes]) -> tuple[int, bytes]:
        """Send one side request outside the records; return status and body, status 0 when it failed."""
        exchange = Exchange(Ask(b""), monotonic_ns(), "side")
        try:
            connection = await self._connect()
        except (OSError, TimeoutError):
            return 0, b""
        reply = RawReply()
        done = asyncio.get_running_loop().create_future()
        connection.owner = _Waiter(done)
        connection.send(exchange, path_render(), reply)
        try:
            await asyncio.wait_for(done, min(SIDE_TIMEOUT_S, self._timeout_ns / NS))
        except TimeoutError:
            return 0, b""
        finally:
            connection.close()
        return (exchange.status, b"".join(reply.parts)) if exchange.ok else (0, b"")

    def drop_queue(self, error_class: str, error: str) -> None:
        """Give up what was never sent; each is recorded as a failure."""
        while self._queue:
            exchange = self._queue.popleft()
            self._fail(exchange, error_class, error)

    def abort_all(self, error_class: str, error: str) -> None:
        """End every request in flight."""
        self.drop_queue(error_class, error)
        for task in list(self._connecting):
            task.cancel()
        for connection in list(self._flying.values()):
            connection.abort(error_class, error)

    def close(self) -> None:
        """Close idle connections."""
        self._closing = True
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    # connections

    def on_finished(self, connection: Connection, exchange: Exchange) -> None:
        """Free the connection for the next in the queue, then report."""
        self._flying.pop(exchange, None)
        stale = self._is_stale(connection, exchange)
        if connection.usable and not self._closing:
            if self._queue:
                self._send(connection, self._queue.popleft(), exchange.end)
            else:
                self._idle.append(connection)
        elif self._queue:
            self._connect_for(self._queue.popleft())
        if stale:
            exchange.error_class = exchange.error = ""
            exchange.resent += 1
            self._connect_for(exchange)
            return
        self.finished(exchange)

    def on_idle_lost(self, connection: Connection) -> None:
        """Forget a connection that the server closed."""
        if connection in self._idle:
            self._idle.remove(connection)

    def _is_stale(self, connection: Connection, exchange: Exchange) -> bool:
        """True when a long idle connection was closed just as it was used again: the server never saw the request.

        The news of that takes a round trip; connecting took one at least.
        """
        return (
            exchange.error_class == "cut"
            and not exchange.first_byte
            and not exchange.resent
            and exchange.reused
            and exchange.idle_ns >= STALE_IDLE_NS
            and exchange.end - exchange.sent <= max(STALE_ANSWER_NS, 2 * connection.connect_ns)
        )

    def _launch(self, exchange: Exchange) -> None:
        if self._idle:
            self._send(self._idle.pop(), exchange, exchange.scheduled)
        elif self.limit is None or len(self._flying) + len(self._connecting) < self.limit:
            self._connect_for(exchange)
        else:
            self._queue.append(exchange)

    def _send(self, connection: Connection, exchange: Exchange, ready: int) -> None:
        exchange.ready = ready
        self._flying[exchange] = connection
        if len(self._flying) > self.peak:
            self.peak = len(self._flying)
        connection.send(exchange, self._render(exchange.ask.body, exchange.request_id(self._salt)))

    def _connect_for(self, exchange: Exchange) -> None:
        task = asyncio.ensure_future(self._connect_and_send(exchange))
        self._connecting.add(task)
        task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        """An exception here is a defect of ours, and its request would be missing: it must not pass silently."""
        self._connecting.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error

    async def _connect_and_send(self, exchange: Exchange) -> None:
        start = monotonic_ns()
        error_class, error = "", ""
        connection = None
        try:
            connection = await self._connect()
        except ssl.SSLError as problem:
            error_class, error = "tls", str(problem)
        except TimeoutError:
            error_class, error = "connect_timeout", f"no connection within {CONNECT_TIMEOUT_S:g} s"
        except (OSError, ValueError) as problem:
            error_class, error = "connect", str(problem)
        except asyncio.CancelledError:
            error_class, error = "cancelled", "the run ended while connecting"
        now = monotonic_ns()
        exchange.connect_ns = now - start
        self._connecting.discard(_current_task())
        if connection is None:
            self._fail(exchange, error_class, error)
            self._serve_queue()
        else:
            self._send(connection, exchange, now)

    def _serve_queue(self) -> None:
        """A connection attempt failed: the next in the queue tries its own."""
        if self._queue and not self._closing:
            self._connect_for(self._queue.popleft())

    def _fail(self, exchange: Exchange, error_class: str, error: str) -> None:
        exchange.fail(error_class, error)
        exchange.end = monotonic_ns()
        self.finished(exchange)

    async def _connect(self) -> Connection:
        """Connect to the next address in turn; to the others when it refuses, and to it no more if one of them works.

        A name may have addresses at which nobody listens (``localhost`` is ``::1`` too).
        """
        tried: list[str] = []
        self._addresses.rotate(-1)
        addresses = [*self._addresses, *self._refusing]
        for address in addresses:
            try:
                connection = await self._connect_to(address, CONNECT_TIMEOUT_S / len(addresses))
            except ssl.SSLError:
                raise
            except OSError:
                tried.append(address)
                if len(tried) == len(addresses):
                    raise
            else:
                self._prefer(address, tried)
                return connection
        raise OSError("the endpoint's name has no address")

    def _prefer(self, address: str, tried: list[str]) -> None:
        """Put the addresses that refused behind the one that answered."""
        refused = [other for other in tried if other in self._addresses]
        if refused or address in self._refusing:
            self._addresses = deque(other for other in self._addresses if other not in tried)
            self._refusing = [other for other in self._refusing if other != address] + refused
            if address not in self._addresses:
                self._addresses.append(address)

    async def _connect_to(self, address: str, timeout_s: float) -> Connection:
        loop = asyncio.get_running_loop()
        endpoint = self._endpoint
        started = monotonic_ns()
        coroutine = loop.create_connection(
            lambda: Connection(endpoint, self),
            address,
            endpoint.port,
            ssl=self._context,
            server_hostname=endpoint.host if self._context else None,
        )
        _, connection = await asyncio.wait_for(coroutine, timeout_s)
        connection.connect_ns = monotonic_ns() - started
        return connection

    def _sweep(self) -> None:
        """Time out the oldest requests; all have the same limit, so those at the front are the oldest."""
        now = monotonic_ns()
        late = []
        for exchange, connection in self._flying.items():
            if now - exchange.sent < self._timeout_ns:
                break
            late.append(connection)
        for connection in late:
            connection.abort("timeout", f"no complete answer within {self._timeout_ns / NS:g} s")
        self._timers.at(now + SWEEP_NS, self._sweep)


class _Waiter:
    """Owner of a side request's connection."""

    def __init__(self, done: asyncio.Future[None]) -> None:
        self._done = done

    def on_finished(self, _connection: Connection, _exchange: Exchange) -> None:
        """Wake the waiting coroutine."""
        if not self._done.done():
            self._done.set_result(None)

    def on_idle_lost(self, _connection: Connection) -> None:
        """Nothing is waiting."""


def _nobody(_exchange: Exchange) -> None:
    """Nobody waits for this exchange."""


def _current_task() -> asyncio.Task[None]:
    task = asyncio.current_task()
    assert task is not None  # noqa: S101
    return task
