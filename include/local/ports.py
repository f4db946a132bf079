"""Loopback ports of a stack: the same as last time when they are free, outside the range of outgoing connections."""

from __future__ import annotations

import random
import socket
from collections.abc import Mapping, Sequence

FIRST, LAST = 20000, 32000  # below Linux's ephemeral ports, which any client's connection may take at any time


def choose(names: Sequence[str], before: Mapping[str, int]) -> dict[str, int]:
    """Return a free port for each name.

    :param before: ports of the last run, kept when free: what people pasted somewhere stays right.
    """
    chosen: dict[str, int] = {}
    for name in names:
        last = before.get(name)
        usable = last is not None and last not in chosen.values() and free(last)
        chosen[name] = last if usable and last is not None else _any(set(chosen.values()))
    return chosen


def free(port: int) -> bool:
    """True when a server could listen on ``port`` now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return not listening(port)


def listening(port: int) -> bool:
    """True when something accepts connections on ``port``."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _any(taken: set[int]) -> int:
    source = random.SystemRandom()
    for _ in range(1000):
        port = source.randrange(FIRST, LAST)
        if port not in taken and free(port):
            return port
    raise OSError(f"no free TCP port between {FIRST} and {LAST} on 127.0.0.1")
