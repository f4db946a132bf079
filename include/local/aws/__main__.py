"""``python -m include.local.aws --port P --moto URL --state DIR …``: serve the AWS APIs on 127.0.0.1."""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from aiohttp import web

from include.local.aws.gateway import Gateway


def main() -> int:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    parser = argparse.ArgumentParser(prog="python -m include.local.aws", description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--moto", required=True, help="base URL of moto's server")
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    parser.add_argument("--fsx", type=Path, required=True, help="folder of the FSx file systems")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of each passing lifecycle state")
    given = parser.parse_args()
    gateway = Gateway(given.state, given.moto, given.kubeconfig, given.fsx, given.seconds)
    web.run_app(
        gateway.application(),
        host="127.0.0.1",
        port=given.port,
        print=lambda *_: None,
        access_log=None,
        shutdown_timeout=1.0,
        handler_cancellation=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
