"""Host ports for container ports: free, and outside the range that outgoing connections use."""

from __future__ import annotations

import random
import socket

FIRST_PORT = 20000
LAST_PORT = 31999
ATTEMPTS = 2000
ANNOTATION = "hyperpod-local/port."
VARIABLE = "HYPERPOD_LOCAL_PORT_"


class PortAllocator:
    """Hands out ports; one that was handed out is not given again until it is released."""

    def __init__(self) -> None:
        self._taken: set[int] = set()

    def take(self) -> int:
        """Return a free port.

        :raises RuntimeError: when none is found.
        """
        for _ in range(ATTEMPTS):
            port = random.randint(FIRST_PORT, LAST_PORT)
            if port not in self._taken and _is_free(port):
                self._taken.add(port)
                return port
        raise RuntimeError(f"no free port between {FIRST_PORT} and {LAST_PORT}")

    def keep(self, port: int) -> None:
        """Mark a port of an adopted pod."""
        self._taken.add(port)

    def release(self, ports: list[int]) -> None:
        """Give ports back."""
        self._taken.difference_update(ports)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
