"""A tiny container image for tests: an HTTP server without a model.

``GET`` answers 200 on any path with what the container was given: arguments, model files, and the environment
without values that look secret. ``POST`` answers with the request's body; ``--choices 1`` adds the frame of a
completion without text. It is no language model.
"""

from __future__ import annotations

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

HIDDEN = ("SECRET", "TOKEN", "PASSWORD")


class Handler(BaseHTTPRequestHandler):
    """Answers every request."""

    def do_GET(self) -> None:
        """What this container was given."""
        folder = Path(os.environ.get("SM_MODEL_DIR", "/nonexistent"))
        files = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        shown = {k: "***" if any(word in k for word in HIDDEN) else v for k, v in os.environ.items()}
        self._answer({"args": sys.argv[1:], "files": files, "env": shown, "pid": os.getpid()})

    def do_POST(self) -> None:
        """The body, back."""
        said: dict[str, object] = {"echo": self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()}
        self._answer({**said, "choices": []} if "--choices" in sys.argv else said)

    def log_message(self, format: str, *args: object) -> None:
        """Log to standard output, which is the container's log."""
        sys.stdout.write(f"{format % args}\n")
        sys.stdout.flush()

    def _answer(self, body: dict[str, object]) -> None:
        data = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    """Serve until killed; ``--exit CODE`` ends at once, ``--sleep SECONDS`` before."""
    arguments = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=False))
    time.sleep(float(arguments.get("--sleep", 0)))
    if "--exit" in arguments:
        raise SystemExit(int(arguments["--exit"]))
    port = int(os.environ.get("HYPERPOD_LOCAL_PORT_8080", "0"))
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
