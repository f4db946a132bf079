"""HTTP connections that take what has arrived from the kernel at once, for :mod:`include.staging.reader`.

The standard library's TLS asks the kernel twice for each record of 16 KiB, and each answer acknowledges little: that
took a fifth of a fetch's processor time.
"""

from __future__ import annotations

import io
import os
import socket
import ssl
from collections.abc import Callable
from http.client import HTTPConnection, HTTPSConnection
from typing import Any, TypeVar, cast

# Waking for each record costs more than decrypting it.
ENOUGH = 256 << 10
T = TypeVar("T")


def trust() -> ssl.SSLContext:
    """Return what connections trust: the system's authorities, ``SSL_CERT_FILE`` and ``AWS_CA_BUNDLE``."""
    context = ssl.create_default_context()
    if bundle := os.environ.get("AWS_CA_BUNDLE"):
        context.load_verify_locations(bundle)
    return context


def connection(scheme: str, host: str, tls: ssl.SSLContext, seconds: float) -> HTTPConnection:
    """Return a connection, not yet made; it fails when for ``seconds`` less than ``ENOUGH`` arrives of a long body."""
    return Https(host, timeout=seconds, context=tls) if scheme == "https" else HTTPConnection(host, timeout=seconds)


def receiver(made: HTTPConnection, file: io.BufferedReader) -> Callable[[memoryview, int], int]:
    """Return what receives bytes of an answer's body behind what its head left in ``file``.

    It gets a buffer and how many bytes are to come in all, buffer included; returns how many it brought, 0 at the end.
    """
    below = made.sock
    if below is None:
        # An answer that is the connection's last has taken it over.
        return lambda into, _: file.readinto1(into)
    awake_at = 1

    def receive(into: memoryview, left: int) -> int:
        nonlocal awake_at
        # What is decrypted only in part does not arrive again; more than is to come must not be waited for.
        size = ENOUGH if left > 2 * ENOUGH else 1
        if size != awake_at:
            below.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, size)
            awake_at = size
        return below.recv_into(into)

    return receive


class Tls:
    """A TLS connection: what the standard library's client of HTTP needs of a socket."""

    def __init__(self, below: socket.socket, context: ssl.SSLContext, host: str) -> None:
        self._below = below
        self._arrived, self._leaving = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._arrived, self._leaving, server_hostname=host)
        self._buffer = memoryview(bytearray(ENOUGH))
        self._done(self._tls.do_handshake)

    def _done(self, step: Callable[[], T]) -> T:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                self._fill()
            finally:
                self._flush()

    def _flush(self) -> None:
        if self._leaving.pending:
            self._below.sendall(self._leaving.read())

    def _fill(self) -> None:
        # The other side may wait for it.
        self._flush()
        if got := self._below.recv_into(self._buffer):
            self._arrived.write(self._buffer[:got])
        else:
            self._arrived.write_eof()

    def recv_into(self, into: memoryview) -> int:
        """Decrypt up to a record."""
        while True:
            try:
                return cast("int", self._tls.read(len(into), into))
            except ssl.SSLWantReadError:
                self._fill()

    def sendall(self, data: bytes) -> None:
        """Encrypt and send."""
        self._done(lambda: self._tls.write(data))

    def setsockopt(self, *option: int) -> None:
        """Set an option of the socket below."""
        self._below.setsockopt(*option)

    def makefile(self, _: str) -> io.BufferedReader:
        """Return a file; as a socket's, it keeps the connection open until both are closed."""
        return io.BufferedReader(_Decrypted(self, self._below.makefile("rb", buffering=0)))

    def close(self) -> None:
        """Close the socket below."""
        self._below.close()


class _Decrypted(io.RawIOBase):
    def __init__(self, connection: Tls, hold: Any) -> None:
        self._connection = connection
        self._hold = hold

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int:
        return self._connection.recv_into(into)

    def close(self) -> None:
        self._hold.close()
        super().close()


class Https(HTTPSConnection):
    """HTTP over :class:`Tls`."""

    def __init__(self, host: str, *, timeout: float, context: ssl.SSLContext) -> None:
        super().__init__(host, timeout=timeout, context=context)
        self._trust = context

    def connect(self) -> None:
        """Connect, and check whom to."""
        HTTPConnection.connect(self)
        below = self.sock
        try:
            self.sock = cast("socket.socket", Tls(below, self._trust, self.host))
        except BaseException:
            below.close()
            raise
