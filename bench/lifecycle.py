"""Waiting for endpoints: how late the waiter is told, and what waiting costs, for one endpoint and for 200.

Real pods on a local HyperPod of its own; the operator's word is read by a second watch in this process, so that the
figure is the time between two processes being told the same thing. The failure catalogue is provoked beside it: time
to the verdict with patience cut short (see ``bench/catalogue.py``).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil

from bench import catalogue, common
from bench.endpoints import Workbench, workbench
from bench.waiters import MARK
from include.catalog.plan import ReleasePlan
from include.endpoint import names
from include.endpoint.model import EndpointRef
from include.endpoint.teardown import teardown
from include.objects import PROJECT_ROOT

SIZES = (1, 200)
REPEATS = {1: 5}
STEADY_S = 20.0
LIMIT_S = 900.0
TEARDOWNS_AT_ONCE = 16
WORTH_SAYING_S = 5.0
Pair = tuple[ReleasePlan, EndpointRef]


class OperatorsWord:
    """Notes when the operator says that an endpoint is complete, and when its last object is gone (epoch seconds)."""

    def __init__(self, bench: Workbench) -> None:
        from kubernetes import client

        self.complete: dict[str, float] = {}
        self.gone: dict[str, float] = {}
        configs = client.CustomObjectsApi(bench.clients.kube).list_namespaced_custom_object
        where = (names.GROUP, names.VERSION, "default", "inferenceendpointconfigs")
        core, apps = client.CoreV1Api(bench.clients.kube), client.AppsV1Api(bench.clients.kube)
        for follow in (
            lambda: self._follow(configs, *where),
            lambda: self._follow(core.list_namespaced_pod, "default"),
            lambda: self._follow(apps.list_namespaced_deployment, "default"),
        ):
            threading.Thread(target=follow, daemon=True).start()

    def _follow(self, listing: Callable[..., Any], *where: str) -> None:
        from kubernetes import watch
        from urllib3.exceptions import HTTPError

        try:
            for event in watch.Watch().stream(listing, *where):
                self._note(event["type"], event["raw_object"])
        except HTTPError:
            return  # the cluster has been stopped

    def _note(self, kind: str, item: dict[str, Any]) -> None:
        meta = item["metadata"]
        name = (meta.get("labels") or {}).get("app") or meta["name"]
        if kind == "DELETED":
            self.gone[name] = time.time()
        elif (item.get("status") or {}).get("state") == "DeploymentComplete":
            self.complete.setdefault(name, time.time())


class Waiters:
    """The process that waits, and what it has said.

    :param wait: ``ready`` or ``gone``.
    """

    def __init__(self, pairs: list[Pair], wait: str) -> None:
        self.heard: dict[str, tuple[str, float]] = {}
        self._log: list[str] = []
        self._process = subprocess.Popen(
            [sys.executable, "-u", "-m", "bench.waiters", wait], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, cwd=PROJECT_ROOT, text=True,
        )  # fmt: skip
        lines = [json.dumps({"plan": plan.to_xcom(), "ref": ref.model_dump(mode="json")}) for plan, ref in pairs]
        assert self._process.stdin is not None
        self._process.stdin.write("\n".join(lines))
        self._process.stdin.close()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(MARK):
                told = json.loads(line.removeprefix(MARK))
                self.heard[told["name"]] = (told["status"], told["at"])
            else:
                self._log.append(line)

    def watches(self, pairs: list[Pair]) -> bool:
        """True when every wait has told the first line of its story."""
        log = "".join(self._log)
        return all(ref.name in log for _, ref in pairs)

    def cost(self, seconds: float) -> tuple[float, float]:
        """Return CPU (share of a core) and resident memory (MiB) over some seconds of waiting."""
        process = psutil.Process(self._process.pid)
        before = process.cpu_times()
        time.sleep(seconds)
        after = process.cpu_times()
        return (after.user + after.system - before.user - before.system) / seconds, process.memory_info().rss / 2**20

    def end(self) -> None:
        """Stop it, if it has not stopped itself."""
        self._process.terminate()
        self._process.wait(10)


def main(arguments: list[str]) -> int:
    """Measure, write ``var/bench/lifecycle.json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.lifecycle", description=__doc__)
    parser.add_argument("--sizes", type=lambda text: tuple(int(n) for n in text.split(",")), default=SIZES)
    given = parser.parse_args(arguments)
    rows: list[common.Row] = []
    with tempfile.TemporaryDirectory(prefix="bench-lifecycle-") as place:
        with workbench(Path(place) / "catalogue") as bench:
            rows += provoked(asyncio.run(catalogue.provoke(bench)))
            rows += deletions(catalogue.provoke_deletions(bench))
        for size in given.sizes:
            with workbench(Path(place) / str(size)) as bench:
                rows += waiting(bench, size)
    common.write("lifecycle", rows, {})
    return 0


def provoked(found: list[catalogue.Provoked]) -> list[common.Row]:
    """Print the catalogue's table; return its rows."""
    rows = []
    for one in found:
        case = one.case
        known = "" if one.verdict.row == case.row else f"  EXPECTED {case.row}"
        said = one.verdict
        print(
            f"  {case.fault:<24} {said.row:<20} {one.seconds:5.1f} s  {said.reason}: {said.message}{known}", flush=True
        )
        rows.append(common.row(f"fault-{case.fault}-{case.row}", "ours", "verdict_seconds", one.seconds, "s", 1))
    return rows


def deletions(found: list[catalogue.Deletion]) -> list[common.Row]:
    """Print what a deletion under a fault says; return its rows."""
    for one in found:
        after = "gone afterwards" if one.absent_after else "STILL THERE"
        print(
            f"  {one.fault:<24} {'delete':<20} {one.seconds:5.1f} s  {one.said or 'coped with'} ({after})", flush=True
        )
    return [common.row(f"fault-{one.fault}-delete", "ours", "verdict_seconds", one.seconds, "s", 1) for one in found]


def waiting(bench: Workbench, size: int) -> list[common.Row]:
    """Measure readiness and deletion of ``size`` endpoints at once."""
    word = OperatorsWord(bench)
    comes, goes = Measured("ready"), Measured("gone")
    for _ in range(REPEATS.get(size, 1)):
        hold = bench.faults.add_cluster("not-ready", "*", {}, None)
        pairs = _make(bench, size)
        print(f"  {size} endpoint(s) made", flush=True)
        _until("all pods run", lambda pairs=pairs: _running(bench) >= len(pairs))
        comes.measure(pairs, lambda rule=hold: bench.faults.clear(rule.id), word.complete)
        goes.measure(pairs, lambda pairs=pairs: _delete(bench, pairs), word.gone)
        with ThreadPoolExecutor(TEARDOWNS_AT_ONCE) as pool:
            list(pool.map(lambda pair: teardown(pair[1], bench.clients, bench.intents, plan=pair[0]), pairs))
    return [*comes.rows(size), *goes.rows(size)]


class Measured:
    """One kind of wait: how late each waiter was told, and what the waiting cost before anything happened."""

    def __init__(self, wait: str) -> None:
        self.wait = wait
        self.lags: list[float] = []
        self.cpu: list[float] = []
        self.memory: list[float] = []

    def measure(self, pairs: list[Pair], act: Callable[[], None], truth: dict[str, float]) -> None:
        """Wait for all of the pairs in one process; then make it happen.

        :param truth: when it happened to whom (epoch seconds), filled by another process's watch.
        """
        waiters = Waiters(pairs, self.wait)
        _until("all watch", lambda: waiters.watches(pairs))
        cpu, memory = waiters.cost(STEADY_S)
        act()
        _until(f"all told {self.wait}", lambda: len(waiters.heard) == len(pairs))
        waiters.end()
        failed = [name for name, (status, _) in waiters.heard.items() if status != self.wait]
        if failed:
            raise RuntimeError(f"{len(failed)} of {len(pairs)} endpoints were not {self.wait}: {failed[:3]}")
        _until("the other watch", lambda: all(name in truth for name in waiters.heard))
        self.lags += [at - truth[name] for name, (_, at) in waiters.heard.items()]
        self.cpu.append(cpu)
        self.memory.append(memory)

    def rows(self, size: int) -> list[common.Row]:
        """Return the figures."""
        case, count = f"waiting-{size}", len(self.cpu)
        lags = (("median", statistics.median(self.lags)), ("p99", _p99(self.lags)))
        return [
            *(
                common.row(case, "ours", f"{self.wait}_{label}_seconds", lag, "s", len(self.lags))
                for label, lag in lags
            ),
            common.row(case, "ours", f"{self.wait}_cpu_share", statistics.median(self.cpu), "cores", count),
            common.row(case, "ours", f"{self.wait}_peak_rss_mib", max(self.memory), "MiB", count),
        ]


def _delete(bench: Workbench, pairs: list[Pair]) -> None:
    from include.endpoint.resources import ENDPOINT_KINDS

    for _, ref in pairs:
        bench.clients.api.delete(ENDPOINT_KINDS[ref.kind], ref.name, ref.namespace, uid=ref.uid)


def _make(bench: Workbench, size: int) -> list[Pair]:
    plans = [bench.plan(f"w{number}", args=("--choices", "1")) for number in range(size)]
    return [(plan, bench.create(plan)) for plan in plans]


def _running(bench: Workbench) -> int:
    from include.endpoint.resources import PODS

    pods = bench.clients.api.list(PODS, "default")
    return sum((pod.get("status") or {}).get("phase") == "Running" for pod in pods)


def _until(what: str, true: Callable[[], bool]) -> None:
    began = time.monotonic()
    while not true():
        if time.monotonic() > began + LIMIT_S:
            raise TimeoutError(f"{what}: not after {LIMIT_S:.0f} s")
        time.sleep(0.2)
    if time.monotonic() - began > WORTH_SAYING_S:
        print(f"  {what} after {time.monotonic() - began:.0f} s", flush=True)


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else values[0]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
