"""``python -m include.loadtest.reference``: serve until standard input ends; prints its port as JSON first."""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import ssl
import sys

import msgspec
import uvloop

from include.loadtest.reference.script import Script
from include.loadtest.reference.server import serve


def main() -> int:
    """Serve on 127.0.0.1 until standard input ends or the process is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m include.loadtest.reference", description=__doc__)
    parser.add_argument("--script", default="{}", help="JSON: see include/loadtest/reference/script.py")
    parser.add_argument("--port", type=int, default=0, help="0: any free one")
    parser.add_argument("--certificate", help="PEM file: serve TLS")
    parser.add_argument("--key", help="PEM file of its private key")
    options = parser.parse_args()
    uvloop.run(_serve(options))
    return 0


async def _serve(options: argparse.Namespace) -> None:
    context = None
    if options.certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(options.certificate, options.key)
    script = msgspec.json.decode(options.script, type=Script)
    listening, _ = await serve(script, port=options.port, context=context)
    print(json.dumps({"port": listening.sockets[0].getsockname()[1]}), flush=True)
    gc.freeze()
    gc.disable()
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def readable() -> None:
        if not os.read(0, 4096):
            loop.remove_reader(0)
            ended.set()

    loop.add_reader(0, readable)
    await ended.wait()


if __name__ == "__main__":
    sys.exit(main())
