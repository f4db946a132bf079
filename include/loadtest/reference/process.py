"""The reference server as a process of its own, for tests and benchmarks."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import urllib.request
from types import TracebackType
from typing import Any

import msgspec

from include.loadtest.reference.script import Script
from include.objects import PROJECT_ROOT


class ReferenceServer:
    """Starts the server on a free port; leaving the context ends it.

    :param certificate: PEM file; with ``key``: serve TLS.
    :param prefix: command in front, such as ``taskset -c 0``.
    """

    def __init__(
        self,
        script: Script | None = None,
        *,
        certificate: str | None = None,
        key: str | None = None,
        prefix: tuple[str, ...] = (),
    ) -> None:
        self._certificate = certificate
        content = msgspec.json.encode(script or Script()).decode()
        command = [*prefix, sys.executable, "-m", "include.loadtest.reference", "--script", content]
        if certificate and key:
            command += ["--certificate", certificate, "--key", key]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=PROJECT_ROOT
        )
        assert self.process.stdout is not None  # noqa: S101
        self.port = int(json.loads(self.process.stdout.readline())["port"])
        self.url = f"{'https' if certificate else 'http'}://localhost:{self.port}"

    def __enter__(self) -> ReferenceServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()

    def play(self, script: Script) -> None:
        """Change the script and forget what was logged."""
        self._call("/_script", msgspec.json.encode(script))
        self._call("/_reset", b"{}")

    def log(self) -> dict[str, Any]:
        """Return ``{"peak": streams at once, "answers": [...]}``: what was truly done, times in monotonic ns."""
        found: dict[str, Any] = json.loads(self._call("/_log", None))
        return found

    def _call(self, path: str, body: bytes | None) -> bytes:
        context = ssl.create_default_context(cafile=self._certificate) if self._certificate else None
        request = urllib.request.Request(self.url + path, data=body)  # noqa: S310
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:  # noqa: S310
            return bytes(answer.read())
