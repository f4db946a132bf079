"""The reader processes, from outside. Imports little: they are started before anything else is loaded."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PART = 16 << 20
# One connection each; as many as the machine has cores start at once, more while it is idle.
MOST_READERS = 16


class Readers:
    """Processes that read ranges of objects into files. Loading takes them a moment: start them early."""

    def __init__(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "include.staging.reader"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, cwd=ROOT,
            start_new_session=True,
        )  # fmt: skip

    def __enter__(self) -> Readers:
        return self

    def __exit__(self, *_: object) -> None:
        """End them all, whatever they do. Were we killed instead, they would end with the next word they say."""
        if self._process.returncode is None:
            # Until it is waited for, its number is nobody else's.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def read(self, files: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield what they say of ``files``; both as :mod:`include.staging.reader` describes. Once."""
        given, told_by = self._process.stdin, self._process.stdout
        if given is None or told_by is None:
            return
        with suppress(BrokenPipeError), given:
            given.write(json.dumps({"part": PART, "workers": MOST_READERS, "files": files}).encode())
        yield from map(json.loads, told_by)
