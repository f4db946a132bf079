"""The local HyperPod as one thing: started in parallel, watched, started again when killed, ended for sure."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from include.errors import ConfigurationError, FailureClass, PipelineError
from include.local import s3
from include.local.environment import local_environment, process_environment
from include.local.faultcontrol import lift_faults
from include.local.kubeaccess import KubeAccess
from include.local.ports import choose, listening
from include.local.processes import Managed, alive, end_group, end_recorded, read_registry, spawn
from include.local.services import PORT_NAMES, SERVICES, Layout, is_ready
from include.local.state import (
    ServiceState,
    StackLock,
    StackState,
    read_state,
    remove_state,
    supervised,
    this_process,
    write_state,
)
from include.objects import PROJECT_ROOT

GROUP = "apis/inference.sagemaker.aws.amazon.com/v1"
POLL_SECONDS = 0.05
WATCH_SECONDS = 0.25
LONGEST_PAUSE = 10.0
FAULT_KEEPERS = ("kube", "aws")
SETTLED_SECONDS = 30.0

Say = Callable[[str], None]


@dataclass
class _Restarts:
    """How often a service has died lately, and when it may be started again."""

    count: int = 0
    started: float = 0.0
    not_before: float = 0.0


@dataclass
class LocalHyperPod:
    """S3, AWS APIs, Kubernetes API, node agent and operator, each in its own process group.

    :param state: folder for everything that they write; several may run at once with different folders.
    """

    state: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Managed] = field(default_factory=dict)
    _lock: StackLock | None = None
    _stop: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None
    _restarts: dict[str, _Restarts] = field(default_factory=dict)
    _ready: bool = False

    def __enter__(self) -> LocalHyperPod:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    @property
    def layout(self) -> Layout:
        """Paths and addresses."""
        return Layout(self.state, self.ports)

    def environment(self) -> dict[str, str]:
        """Return the variables for a process that talks to this stack."""
        return local_environment(self.state, self.ports)

    def up(self, say: Say = lambda _: None, timeout: float = 60) -> float:
        """Start everything and wait until it answers; return the seconds it took.

        :raises PipelineError: reason AlreadyRunning; reason ServiceFailed, naming the service that did not come
            up, with the end of its log. Nothing is left running then.
        """
        started = time.monotonic()
        self.state = self.state.resolve()
        lock = StackLock(self.state)
        if not lock.acquire():
            raise _already_running(self.state)
        self._lock = lock
        try:
            self._clean_stale(say)
            self._choose_ports()
            self._start_all(say, timeout)
        except BaseException:
            self.down()
            raise
        self._ready = True
        self._write()
        self._stop.clear()
        self._watcher = threading.Thread(target=self._watch, args=(say,), daemon=True)
        self._watcher.start()
        seconds = time.monotonic() - started
        say(f"local HyperPod up after {seconds:.1f} s: {', '.join(SERVICES)}")
        return seconds

    def down(self) -> list[str]:
        """End every service and pod process; return the names of what was running. Weights and results stay."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join(timeout=10)
            self._watcher = None
        ended = [name for name, process in self.processes.items() if process.poll() is None]
        with ThreadPoolExecutor(len(SERVICES)) as pool:
            list(pool.map(self._end, list(self.processes)))
        self.processes.clear()
        ended += self._end_recorded()
        remove_state(self.state)
        self._ready = False
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        return ended

    def restart(self, name: str, timeout: float = 60) -> None:
        """Kill one service hard; the watcher starts it again. Returns when it answers.

        :raises PipelineError: when it does not come back in time.
        """
        before = self.processes[name].pid
        end_group(self.processes[name], grace=0)
        deadline = time.monotonic() + timeout
        while self.processes[name].pid == before or not self._is_ready(name):
            if time.monotonic() > deadline:
                raise _failed(name, self.layout, timeout)
            time.sleep(POLL_SECONDS)

    def endpoints(self) -> list[str]:
        """Names of the endpoints that exist on the Kubernetes or the SageMaker plane."""
        kube = KubeAccess.read(self.layout.kubeconfig)
        found: list[str] = []
        for plural in ("inferenceendpointconfigs", "jumpstartmodels"):
            items = kube.call("GET", f"{GROUP}/{plural}")["items"]
            found += [f"{plural}/{item['metadata']['name']}" for item in items]
        pages = self._sagemaker().get_paginator("list_endpoints").paginate()
        listed = [item for answer in pages for item in answer["Endpoints"]]
        return found + [f"sagemaker endpoint/{item['EndpointName']}" for item in listed]

    def leftovers(self) -> list[str]:
        """What is still there after :meth:`down`: recorded processes and open ports."""
        entries = read_registry(self._registry).items()
        found = [f"process {name}" for name, one in entries if alive(int(one["pid"]), float(one["created"]))]
        return found + [f"port {port} ({name})" for name, port in self.ports.items() if listening(port)]

    def log(self, name: str) -> Path:
        """Log file of a service."""
        return self.layout.log(name)

    @property
    def _registry(self) -> Path:
        return self.state / "processes.json"

    def _clean_stale(self, say: Say) -> None:
        with contextlib.suppress(PipelineError):
            self.ports = dict(read_state(self.state).ports)
        for name in self._end_recorded():
            say(f"ended {name}, left over from a killed session")
        remove_state(self.state)

    def _choose_ports(self) -> None:
        remembered = self.state / "ports.json"
        before: dict[str, int] = read_registry(remembered)
        self.ports = choose(PORT_NAMES, before)
        partial = remembered.with_suffix(f".{os.getpid()}.partial")
        partial.write_text(json.dumps(self.ports, indent=1))
        partial.replace(remembered)
        # Its content belongs to the last run: nothing may take it for this one's.
        self.layout.kubeconfig.unlink(missing_ok=True)

    def _start_all(self, say: Say, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        begun = time.monotonic()
        ready: set[str] = set()
        while len(ready) < len(SERVICES):
            for name, service in SERVICES.items():
                if name not in self.processes and ready.issuperset(service.after):
                    self._start(name)
            for name in [name for name in self.processes if name not in ready]:
                if self._is_ready(name):
                    ready.add(name)
                    if name in FAULT_KEEPERS and lift_faults(self.layout, name):
                        say(f"{name}: lifted the scripted faults of the last session")
                    say(f"{name} ready after {time.monotonic() - begun:.1f} s")
                elif self.processes[name].poll() is not None or time.monotonic() > deadline:
                    raise _failed(name, self.layout, timeout)
            time.sleep(POLL_SECONDS)

    def _is_ready(self, name: str) -> bool:
        return is_ready(SERVICES[name], self.layout, self.processes[name].created)

    def _start(self, name: str) -> None:
        service = SERVICES[name]
        service.prepare(self.layout)
        env = process_environment(self.state, self.ports) | {
            "PYTHONPATH": str(PROJECT_ROOT),
            "PYTHONUNBUFFERED": "1",
        }
        command = service.command(self.layout)
        log = self.layout.log(name)
        self.processes[name] = spawn(name, command, env, log, self._registry, cwd=PROJECT_ROOT)
        self._write()

    def _write(self) -> None:
        services = {
            name: ServiceState(
                pid=process.pid,
                created=process.created,
                port=self.ports[SERVICES[name].ports[0]] if SERVICES[name].ports else None,
                url=self.layout.url(SERVICES[name].ports[0]) if SERVICES[name].ports else None,
                log=str(self.layout.log(name)),
            )
            for name, process in self.processes.items()
        }
        pid, created = this_process()
        content = StackState(
            supervisor=pid, supervisor_created=created, ready=self._ready, ports=self.ports, services=services
        )
        write_state(self.state, content)

    def _end(self, name: str) -> None:
        end_group(self.processes[name], grace=SERVICES[name].grace)

    def _end_recorded(self) -> list[str]:
        from include.local.node.process import kill_all

        # A killed session's S3 server does not heed SIGTERM for many seconds, and loses nothing by SIGKILL.
        ended = end_recorded(self._registry, grace=1.0)
        kill_all(self.state / "node")
        if self.ports:
            s3.remove_sockets(self.ports)
        return ended

    def _watch(self, say: Say) -> None:
        while not self._stop.wait(WATCH_SECONDS):
            for name, process in list(self.processes.items()):
                if process.poll() is not None and not self._stop.is_set():
                    self._revive(name, process, say)

    def _revive(self, name: str, process: Managed, say: Say) -> None:
        """Start a dead service again, later and later when it keeps dying."""
        now = time.monotonic()
        tries = self._restarts.setdefault(name, _Restarts())
        if now < tries.not_before:
            return
        tries.count = tries.count + 1 if now - tries.started < SETTLED_SECONDS else 1
        pause = 0.0 if tries.count < 3 else min(2.0 ** (tries.count - 3), LONGEST_PAUSE)
        tries.started, tries.not_before = now, now + pause
        say(f"{name} had died (exit {process.poll()}); started again")
        # What it started itself must not answer in place of its successor.
        end_group(process, grace=0)
        with contextlib.suppress(OSError):
            self._start(name)

    def _sagemaker(self) -> Any:
        import boto3

        return boto3.client(
            "sagemaker",
            endpoint_url=self.layout.url("aws"),
            aws_access_key_id=s3.ACCESS_KEY,
            aws_secret_access_key=s3.SECRET_KEY,
            region_name=s3.REGION,
        )


def end_stack(state: Path, timeout: float = 30) -> list[str]:
    """End whatever runs below ``state``, whoever started it; return the names of what was running.

    A living supervisor is asked to end its services; a dead or deaf one's services are ended by their records.
    """
    state = state.resolve()
    names: list[str] = []
    with contextlib.suppress(PipelineError):
        recorded = read_state(state)
        names = [name for name, one in recorded.services.items() if alive(one.pid, one.created)]
        if supervised(state) and alive(recorded.supervisor, recorded.supervisor_created):
            _end_supervisor(recorded, state, timeout)
    stack = LocalHyperPod(state)
    with contextlib.suppress(PipelineError):
        stack.ports = dict(read_state(state).ports)
    return list(dict.fromkeys(names + stack.down()))


def _end_supervisor(recorded: StackState, state: Path, timeout: float) -> None:
    for number, patience in ((signal.SIGTERM, timeout), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(recorded.supervisor, number)
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if not supervised(state):
                return
            time.sleep(POLL_SECONDS)


def _already_running(state: Path) -> PipelineError:
    return ConfigurationError(
        "AlreadyRunning",
        f"the local HyperPod below {state} is running already",
        fix="use it, or end it: python -m include.local down",
    )


def _failed(name: str, layout: Layout, timeout: float) -> PipelineError:
    log = layout.log(name)
    end = log.read_text(errors="replace").splitlines()[-25:] if log.exists() else []
    return PipelineError(
        "ServiceFailed",
        f"{name} did not come up within {timeout:.0f} s; its log: {log}",
        fix="read the end of its log",
        failure_class=FailureClass.INTERNAL,
        evidence=tuple(end),
    )
