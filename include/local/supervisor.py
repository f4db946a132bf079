"""The local HyperPod's services: started in parallel, watched, started again when killed, ended for sure."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from include.local import s3
from include.local.environment import local_environment
from include.local.processes import Managed, end_group, end_recorded, read_registry, spawn
from include.objects import PROJECT_ROOT

FIRST = ("s3", "aws", "kube")
SECOND = ("node", "operator")
PORT_NAMES = (
    "s3", "s3-grpc", "master", "master-grpc", "volume", "volume-grpc", "filer", "filer-grpc", "aws", "kube",
)  # fmt: skip
GROUP = "apis/inference.sagemaker.aws.amazon.com/v1"

Say = Callable[[str], None]


@dataclass
class LocalHyperPod:
    """S3, AWS APIs, Kubernetes API, node agent and operator, each in its own process group.

    :param state: folder for everything that they write; several may run at once with different folders.
    """

    state: Path
    ports: dict[str, int] = field(default_factory=dict)
    processes: dict[str, Managed] = field(default_factory=dict)
    _stop: threading.Event = field(default_factory=threading.Event)
    _watcher: threading.Thread | None = None

    def __enter__(self) -> LocalHyperPod:
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.down()

    def environment(self) -> dict[str, str]:
        """Return the variables for a process that talks to this stack."""
        return local_environment(self.state, self.ports)

    def up(self, say: Say = lambda _: None, timeout: float = 60) -> float:
        """Start everything and wait until it answers; return the seconds it took.

        :raises TimeoutError: naming the service that did not come up, with the end of its log.
        """
        started = time.monotonic()
        for name in end_recorded(self._registry):
            say(f"ended {name}, left over from a killed session")
        self.state.mkdir(parents=True, exist_ok=True)
        self.ports = self._choose_ports()
        (self.state / "ports.json").write_text(json.dumps(self.ports))
        for name in FIRST:
            self._start(name)
        for name in FIRST:
            self._wait(name, timeout)
        for name in SECOND:
            self._start(name)
        for name in SECOND:
            self._wait(name, timeout)
        self._stop.clear()
        self._watcher = threading.Thread(target=self._watch, args=(say,), daemon=True)
        self._watcher.start()
        seconds = time.monotonic() - started
        say(f"local HyperPod up after {seconds:.1f} s: {', '.join(FIRST + SECOND)}")
        return seconds

    def down(self) -> list[str]:
        """End every service and pod process; return the names of what was running."""
        self._stop.set()
        if self._watcher is not None:
            self._watcher.join(timeout=5)
        ended = list(self.processes)
        for name in reversed(FIRST + SECOND):
            if name in self.processes:
                end_group(self.processes.pop(name))
        ended += end_recorded(self._registry)
        self._end_pods()
        return ended

    def restart(self, name: str) -> None:
        """Kill one service hard and start it again."""
        end_group(self.processes[name], grace=0)
        self._start(name)
        self._wait(name, 60)

    def endpoints(self) -> list[str]:
        """Names of the endpoints that exist on the Kubernetes or the SageMaker plane."""
        found: list[str] = []
        for plural in ("inferenceendpointconfigs", "jumpstartmodels"):
            found += [
                f"{plural}/{item['metadata']['name']}" for item in self._kube(f"{GROUP}/{plural}")["items"]
            ]
        listed = self._sagemaker().list_endpoints()["Endpoints"]
        return found + [f"sagemaker endpoint/{item['EndpointName']}" for item in listed]

    def leftovers(self) -> list[str]:
        """What is still there after :meth:`down`: recorded processes and open ports."""
        found = [f"process {name}" for name in read_registry(self._registry)]
        for name, port in self.ports.items():
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    found.append(f"port {port} ({name})")
        return found

    def log(self, name: str) -> Path:
        """Log file of a service."""
        return self.state / "logs" / f"{name}.log"

    @property
    def _registry(self) -> Path:
        return self.state / "processes.json"

    def _start(self, name: str) -> None:
        env = {**os.environ, **self.environment(), "PYTHONPATH": str(PROJECT_ROOT), "PYTHONUNBUFFERED": "1"}
        self.processes[name] = spawn(
            name, self._command(name), env, self.log(name), self._registry, cwd=PROJECT_ROOT
        )

    def _command(self, name: str) -> list[str]:
        state = self.state / name
        state.mkdir(parents=True, exist_ok=True)
        port = str(self.ports.get(name, 0))
        python = [sys.executable, "-m"]
        if name == "s3":
            return s3.command(state, self.ports)
        if name == "aws":
            return [*python, "moto.server", "-H", "127.0.0.1", "-p", port]
        if name == "kube":
            kubeconfig = str(self.state / "kubeconfig")
            return [
                *python,
                "include.local.kubeapi",
                "--port",
                port,
                "--state",
                str(state),
                "--kubeconfig",
                kubeconfig,
            ]
        module = {"node": "include.local.agent", "operator": "include.local.operator"}[name]
        return [*python, module, "--state", str(state)]

    def _wait(self, name: str, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._ready(name):
                return
            if self.processes[name].poll() is not None:
                break
            time.sleep(0.05)
        log = self.log(name).read_text(errors="replace")[-1500:]
        raise TimeoutError(f"{name} did not come up in {timeout:.0f} s; end of {self.log(name)}:\n{log}")

    def _ready(self, name: str) -> bool:
        try:
            if name == "s3":
                return s3.ready(self.ports["s3"])
            if name == "aws":
                return requests.get(f"http://127.0.0.1:{self.ports['aws']}/moto-api/", timeout=2).ok
            if name == "kube":
                return requests.get(f"http://127.0.0.1:{self.ports['kube']}/readyz", timeout=2).ok
            return self._controller_ready(name)
        except (requests.RequestException, OSError, ValueError, KeyError):
            return False

    def _controller_ready(self, name: str) -> bool:
        if name == "node":
            nodes = self._kube("api/v1/nodes")["items"]
            conditions = [item for node in nodes for item in node.get("status", {}).get("conditions", ())]
            return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)
        path = "apis/apps/v1/namespaces/hyperpod-inference-system/deployments/hyperpod-inference-controller-manager"
        return bool(self._kube(path).get("status", {}).get("availableReplicas"))

    def _kube(self, path: str) -> Any:
        import yaml

        config = yaml.safe_load((self.state / "kubeconfig").read_text())
        token = config["users"][0]["user"]["token"]
        server = f"http://127.0.0.1:{self.ports['kube']}"
        answer = requests.get(f"{server}/{path}", headers={"Authorization": f"Bearer {token}"}, timeout=5)
        answer.raise_for_status()
        return answer.json()

    def _sagemaker(self) -> Any:
        import boto3

        return boto3.client(
            "sagemaker",
            endpoint_url=f"http://127.0.0.1:{self.ports['aws']}",
            aws_access_key_id=s3.ACCESS_KEY,
            aws_secret_access_key=s3.SECRET_KEY,
            region_name=s3.REGION,
        )

    def _watch(self, say: Say) -> None:
        while not self._stop.wait(0.5):
            for name, process in list(self.processes.items()):
                if process.poll() is not None and not self._stop.is_set():
                    say(f"{name} had died (exit {process.poll()}); started again")
                    with contextlib.suppress(OSError):
                        self._start(name)

    def _end_pods(self) -> None:
        from include.local.node.process import kill_all

        kill_all(self.state / "node")

    def _choose_ports(self) -> dict[str, int]:
        probes = [socket.socket() for _ in PORT_NAMES]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        ports = {name: int(probe.getsockname()[1]) for name, probe in zip(PORT_NAMES, probes, strict=True)}
        for probe in probes:
            probe.close()
        return ports
