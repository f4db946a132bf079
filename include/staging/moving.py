"""Move the files of a revision, several at once; the first failure stops them all."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from include.errors import FailureClass, PipelineError
from include.staging.manifest import ManifestFile
from include.staging.mover import move
from include.staging.progress import Meter
from include.staging.reuse import Reusable, reuse
from include.staging.sources import SourceFile
from include.staging.target import Target

LARGE_AT_ONCE = 4
SMALL_AT_ONCE = 16
SMALL = 1 << 20


def move_all(
    files: Sequence[SourceFile], target: Target, found: Reusable, may_go_on: Callable[[], None], meter: Meter
) -> tuple[ManifestFile, ...]:
    """Move files, or take over what need not move; returns their entries in the manifest.

    :param may_go_on: asked with each chunk; raises when another stager has taken over.
    :raises PipelineError: of the first file that failed; the others stop at their next chunk.
    """
    large = sorted((file for file in files if file.size > SMALL), key=lambda file: -file.size)
    small = [file for file in files if file.size <= SMALL]
    at_once, stop = min(LARGE_AT_ONCE, max(1, len(large))), threading.Event()

    def one(file: SourceFile) -> ManifestFile:
        def check() -> None:
            may_go_on()
            if stop.is_set():
                raise PipelineError(
                    "StagingStopped", f"{file.path}: another file failed", failure_class=FailureClass.TRANSIENT
                )

        def passed(size: int) -> None:
            # With each chunk: neither who was taken over nor who cannot succeed goes on for the rest of a large file.
            check()
            meter.count(file.path, size)

        check()
        file = file.looked()
        entry = reuse(file, target, found, check)
        if entry is not None:
            meter.take(file.path, file.size)
            return entry
        return move(file, target, passed, files_at_once=at_once)

    with ThreadPoolExecutor(at_once) as few, ThreadPoolExecutor(SMALL_AT_ONCE) as many:
        running = [few.submit(one, file) for file in large] + [many.submit(one, file) for file in small]
        try:
            wait(running, return_when=FIRST_EXCEPTION)
            _raise_worst(running)
            return tuple(future.result() for future in running)
        except BaseException:
            stop.set()
            few.shutdown(cancel_futures=True)
            many.shutdown(cancel_futures=True)
            raise


def _raise_worst(running: Sequence[Future[ManifestFile]]) -> None:
    """Raise what failed; of several what no retry mends."""
    failed = [error for future in running if future.done() and (error := future.exception()) is not None]
    if failed:
        raise min(failed, key=lambda error: getattr(error, "retryable", True))
