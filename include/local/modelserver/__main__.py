"""``python -m include.local.modelserver [FOLDER] [--port N] …``: serve the one GGUF file of a folder."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from aiohttp import web

from include.local.modelserver.engine import Engine, EngineOptions
from include.local.modelserver.files import find_model, model_folder
from include.local.modelserver.front import Front

log = logging.getLogger("modelserver")
DRAIN_SECONDS = 5.0
PORT_VARIABLE = "HYPERPOD_LOCAL_PORT_"


def arguments(argv: list[str]) -> argparse.Namespace:
    """Parse the command line; an option that has no meaning here ends the process with 2."""
    parser = argparse.ArgumentParser(prog="python -m include.local.modelserver", allow_abbrev=False)
    parser.add_argument("folder", nargs="?", help="folder with the weights; default: $SM_MODEL_DIR")
    parser.add_argument("--model-dir", "--model", dest="model_dir")
    parser.add_argument("--host", help="accepted as vLLM's; the server always binds 127.0.0.1")
    parser.add_argument("--port", type=int, default=8080, help="the container's port")
    parser.add_argument("--served-model-name", default="model")
    parser.add_argument("--max-model-len", type=int, default=2048, help="tokens per request")
    parser.add_argument("--max-num-seqs", type=int, default=2, help="requests decoded at once")
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """Serve until SIGTERM (0); 1 when the model cannot be loaded or llama.cpp ends."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stdout)
    given = arguments(sys.argv[1:] if argv is None else argv)
    try:
        folder = model_folder(given.model_dir or given.folder)
        model = find_model(folder)
    except FileNotFoundError as error:
        log.error("%s", error)
        return 1
    # The container's port is a free port of the host, which the node agent chose.
    port = int(os.environ.get(f"{PORT_VARIABLE}{given.port}", given.port))
    engine = Engine(
        EngineOptions(str(model), given.served_model_name, given.max_num_seqs, given.max_model_len, given.threads)
    )
    front = Front(
        engine, folder, given.served_model_name, given.max_model_len, given.max_num_seqs,
        list(sys.argv[1:] if argv is None else argv), os._exit,
    )  # fmt: skip
    log.info("start: 127.0.0.1:%d, %s, %d bytes", port, model.name, model.stat().st_size)
    _run(front, port)
    return 0


def _run(front: Front, port: int) -> None:
    import uvloop

    web.run_app(
        front.application(),
        host="127.0.0.1",
        port=port,
        print=lambda *_: None,
        access_log=None,
        shutdown_timeout=DRAIN_SECONDS,
        handler_cancellation=True,
        loop=uvloop.new_event_loop(),
    )


if __name__ == "__main__":
    sys.exit(main())
