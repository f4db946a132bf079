"""Kill Airflow's task workers; both the end-to-end tests and the fault matrix do."""

from __future__ import annotations

import time

import psutil

from include.local.demo import Stack

LOOK_EVERY_S = 0.02


def kill_workers(stack: Stack, patience_s: float = 3) -> list[int]:
    """SIGKILL every worker process that runs a task now; wait ``patience_s`` for one to begin.

    :return: the pids killed; empty when no worker had a task within the patience.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        killed = [child.pid for child in _busy_workers(stack) if _killed(child)]
        if killed:
            return killed
        time.sleep(LOOK_EVERY_S)
    return []


def _busy_workers(stack: Stack) -> list[psutil.Process]:
    try:
        children = psutil.Process(stack.airflow.processes["scheduler"].pid).children(recursive=True)
    except psutil.Error:
        return []
    return [child for child in children if _works(child)]


def _works(process: psutil.Process) -> bool:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return False
    return title.startswith("airflow worker") and "<idle>" not in title


def _killed(process: psutil.Process) -> bool:
    try:
        process.kill()
    except psutil.Error:
        return False
    return True
