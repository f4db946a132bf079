"""A small local cluster for tests: API server, AWS stand-in, node agent, operator, each a real process."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from include.local.faults import CONFIG_MAP, NAMESPACE, dump_rules, new_rule
from include.local.node.process import kill_all
from include.local.processes import Managed, end_group, spawn
from include.objects import PROJECT_ROOT

INFERENCE = "apis/inference.sagemaker.aws.amazon.com/v1"
Object = dict[str, Any]


def free_port() -> int:
    """Return a port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], Any], seconds: float = 30) -> Any:
    """Poll until ``check`` returns something true; a failure says what was waited for and the last answer."""
    deadline, found = time.monotonic() + seconds, None
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError(f"{what} did not happen in {seconds} s; last answer: {found!r}")


@dataclass
class Stack:
    """The processes, and short ways to their API."""

    state: Path
    kube_port: int = field(default_factory=free_port)
    aws_port: int = field(default_factory=free_port)
    processes: dict[str, Managed] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Variables for a process that talks to this stack."""
        aws = f"http://127.0.0.1:{self.aws_port}"
        return {
            "KUBECONFIG": str(self.state / "kubeconfig"),
            "AWS_ENDPOINT_URL": aws,
            "AWS_ENDPOINT_URL_S3": aws,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-west-2",
            "AWS_DEFAULT_REGION": "us-west-2",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def start(self, name: str) -> None:
        """Start one of kube, aws, node, operator."""
        folder = self.state / name
        folder.mkdir(parents=True, exist_ok=True)
        kubeconfig = str(self.state / "kubeconfig")
        arguments = {
            "kube": ["include.local.kube", "--port", str(self.kube_port), "--state", str(folder),
                     "--kubeconfig", kubeconfig],
            "aws": ["moto.server", "-H", "127.0.0.1", "-p", str(self.aws_port)],
            "node": ["include.local.agent", "--state", str(folder)],
            "operator": ["include.local.operator", "--state", str(folder)],
        }[name]  # fmt: skip
        env = {**os.environ, **self.environment, "PYTHONPATH": str(PROJECT_ROOT)}
        self.processes[name] = spawn(
            name, [sys.executable, "-m", *arguments], env, self.state / f"{name}.log", self.state / "processes.json",
            cwd=PROJECT_ROOT,
        )  # fmt: skip

    def up(self, *names: str) -> None:
        """Start services and wait until the API servers among them answer."""
        for name in names:
            self.start(name)
        for name, url in (("kube", self.url("readyz")), ("aws", f"http://127.0.0.1:{self.aws_port}/moto-api/")):
            if name in names:
                wait_for(f"{name} up", lambda url=url: _answers(url), 60)

    def down(self) -> None:
        """End everything, pods too."""
        for name in ("operator", "node", "kube", "aws"):
            if name in self.processes:
                end_group(self.processes.pop(name))
        kill_all(self.state / "node")

    def kill(self, name: str) -> None:
        """SIGKILL one service, and nothing that it started."""
        process = self.processes.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        assert process.handle is not None
        process.handle.wait()

    def url(self, path: str) -> str:
        """URL of a path of the API server."""
        return f"http://127.0.0.1:{self.kube_port}/{path}"

    def get(self, path: str) -> Object | None:
        """Return an object or list, ``None`` for 404."""
        answer = requests.get(self.url(path), timeout=10)
        return None if answer.status_code == 404 else dict(answer.json())

    def items(self, path: str) -> list[Object]:
        """Return a list's items."""
        return list((self.get(path) or {}).get("items") or [])

    def send(self, method: str, path: str, body: Any) -> Object:
        """Write; PATCH merges."""
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        answer = requests.request(
            method, self.url(path), data=json.dumps(body), headers={"Content-Type": kind}, timeout=10
        )
        assert answer.status_code < 300 or method == "DELETE", answer.text
        return dict(answer.json())

    def fault(self, match: str, kind: str, times: int | None = None, **params: str) -> str:
        """Add a fault rule; returns its key."""
        rule = new_rule(match, kind, params, times)
        path = f"api/v1/namespaces/{NAMESPACE}/configmaps"
        if self.get(f"{path}/{CONFIG_MAP}") is None:
            self.send("POST", path, {"metadata": {"name": CONFIG_MAP}, "data": dump_rules([rule])})
        else:
            self.send("PATCH", f"{path}/{CONFIG_MAP}", {"data": dump_rules([rule])})
        return rule.id

    def clear_fault(self, rule_id: str) -> None:
        """Remove a fault rule."""
        path = f"api/v1/namespaces/{NAMESPACE}/configmaps/{CONFIG_MAP}"
        self.send("PATCH", path, {"data": {rule_id: None}})

    def pods(self, app: str) -> list[Object]:
        """The pods of an endpoint or Job."""
        found = self.items("api/v1/namespaces/default/pods")
        keep = ("app", "job-name")
        return [p for p in found if app in [(p["metadata"].get("labels") or {}).get(name) for name in keep]]

    def reasons(self, name: str) -> set[str]:
        """Reasons of the events of objects whose name starts with ``name``."""
        events = self.items("api/v1/namespaces/default/events")
        return {event["reason"] for event in events if event["involvedObject"]["name"].startswith(name)}


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=2).ok
    except requests.RequestException:
        return False


def endpoint(name: str, *, image: str = "hyperpod.local/echo:1", sagemaker: bool = True, **spec: Any) -> Object:
    """An InferenceEndpointConfig that serves the tiny echo image from an S3 prefix."""
    body: Object = {
        "modelName": "echo",
        "instanceType": "ml.local.cpu",
        "invocationEndpoint": "v1/chat/completions",
        "modelSourceConfig": {
            "modelSourceType": "s3",
            "modelLocation": "models/echo/1/files",
            "s3Storage": {"bucketName": "weights", "region": "us-west-2"},
        },
        "worker": {
            "image": image,
            "modelInvocationPort": {"containerPort": 8080, "name": "http"},
            "modelVolumeMount": {"name": "model-weights", "mountPath": "/opt/ml/model"},
            "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}},
        },
    }
    if sagemaker:
        body["endpointName"] = name
    return {
        "apiVersion": "inference.sagemaker.aws.amazon.com/v1",
        "kind": "InferenceEndpointConfig",
        "metadata": {"name": name, "namespace": "default"},
        "spec": body | spec,
    }
