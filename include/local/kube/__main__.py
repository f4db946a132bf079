"""``python -m include.local.kube``: run the API server until SIGTERM or SIGINT."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from include.local.kube.certificates import server_context
from include.local.kube.kubeconfig import write_kubeconfig
from include.local.kube.server import Server, serve
from include.local.kube.store import HISTORY

_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def main() -> None:
    """Parse the command line and serve."""
    parser = argparse.ArgumentParser(prog="python -m include.local.kube", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0: a free one, see the kubeconfig")
    parser.add_argument("--state", type=Path, required=True, help="folder; everything is kept in it")
    parser.add_argument("--kubeconfig", type=Path, help="where to write it; <state>/kubeconfig by default")
    parser.add_argument("--token-file", type=Path, help='static tokens: token,user,uid,"group1,group2"')
    parser.add_argument("--tls", action="store_true", help="HTTPS; then every request needs a token")
    parser.add_argument("--history", type=int, default=HISTORY, help="events kept per resource for watches")
    given = parser.parse_args()
    if not given.tls and given.host not in _LOOPBACK:
        parser.error("without --tls the server only listens on loopback")
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(levelname)s %(message)s")
    given.state.mkdir(parents=True, exist_ok=True)
    port = given.port or _free_port(given.host)
    server = Server(given.state, tokens=given.token_file, anonymous_admin=not given.tls, history=given.history)
    context = server_context(given.state, given.host) if given.tls else None
    write_kubeconfig(
        given.kubeconfig or given.state / "kubeconfig",
        f"{'https' if given.tls else 'http'}://{given.host}:{port}",
        server.users.admin_token(),
        authority=given.state / "ca.crt" if given.tls else None,
    )
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError):
        asyncio.run(_until_stopped(serve(server, given.host, port, context)))


async def _until_stopped(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.create_task(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    await task


def _free_port(host: str) -> int:
    with socket.create_server((host, 0)) as probe:
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()
