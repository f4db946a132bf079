"""``python -m include.local.agent``: the node agent: kubelet, scheduler, Deployment, Job and Endpoints controllers."""

from __future__ import annotations

import argparse
import asyncio
import logging
import signal
from pathlib import Path

from include.local.agent.agent import NodeAgent
from include.local.controller.api import Api
from include.local.node.config import load_config


async def _main(state: Path) -> None:
    api = await Api.connect()
    agent = NodeAgent(api, state, load_config(state))
    task = asyncio.create_task(agent.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        # Asked to stop: take the pods along. A killed agent leaves them to its successor.
        await agent.end_pods()
    finally:
        await agent.close()


def main() -> None:
    """Run until SIGTERM."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    parser = argparse.ArgumentParser(prog="python -m include.local.agent", description=__doc__)
    parser.add_argument("--state", type=Path, required=True)
    asyncio.run(_main(parser.parse_args().state))


if __name__ == "__main__":
    main()
