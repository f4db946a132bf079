"""A real API server process for the tests, and short ways to talk to it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests
import yaml

from include.objects import PROJECT_ROOT

INFERENCE = "/apis/inference.sagemaker.aws.amazon.com/v1/namespaces/default"
CONFIGS = f"{INFERENCE}/inferenceendpointconfigs"
CORE = "/api/v1/namespaces/default"
MERGE = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
APPLY = "application/apply-patch+yaml"
Object = dict[str, Any]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


def wait_for(what: str, check: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = check()
        if found:
            return found
        time.sleep(0.02)
    raise AssertionError(f"{what} did not happen in {seconds} s")


class Api:
    """One server over one state folder; may be killed and started again."""

    def __init__(self, state: Path, *, tls: bool = True, arguments: tuple[str, ...] = ()) -> None:
        self.state, self.port, self.tls = state, free_port(), tls
        self.arguments = arguments
        self.process: subprocess.Popen[bytes] | None = None
        self.session = requests.Session()

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://127.0.0.1:{self.port}"

    def start(self) -> Api:
        command = [sys.executable, "-m", "include.local.kube", "--port", str(self.port), "--state", str(self.state)]
        command += ["--tls"] if self.tls else []
        environment = {**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}
        self.log = self.state.parent / f"{self.state.name}.log"
        with self.log.open("ab") as output:
            self.process = subprocess.Popen([*command, *self.arguments], env=environment, stdout=output, stderr=output)
        wait_for("the server", self._answers)
        self.token = self.kubeconfig()["users"][0]["user"]["token"]
        return self

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return self._bare("/readyz").ok
        except (requests.RequestException, OSError):
            return False

    def _bare(self, path: str) -> requests.Response:
        verify = str(self.state / "ca.crt") if self.tls else True
        return requests.get(self.url + path, timeout=5, verify=verify)

    def kubeconfig(self) -> Object:
        return dict(yaml.safe_load((self.state / "kubeconfig").read_text()))

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(timeout=20)

    def send(
        self, method: str, path: str, body: Any = None, *, kind: str = "application/json", token: str = "",
        headers: dict[str, str] | None = None, **query: Any,
    ) -> requests.Response:  # fmt: skip
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        sent = {"Authorization": f"Bearer {token or self.token}", "Content-Type": kind, **(headers or {})}
        return self.session.request(
            method, self.url + path, data=data, headers=sent, params=query, timeout=30, allow_redirects=False,
            verify=str(self.state / "ca.crt") if self.tls else True,
        )  # fmt: skip

    def ok(self, method: str, path: str, body: Any = None, **more: Any) -> Object:
        answer = self.send(method, path, body, **more)
        assert answer.status_code < 300, answer.text
        return dict(answer.json())

    def get(self, path: str, **query: Any) -> Object:
        return self.ok("GET", path, **query)

    def exists(self, path: str) -> bool:
        return self.send("GET", path).status_code == 200

    def gone(self, path: str) -> None:
        wait_for(f"{path} gone", lambda: not self.exists(path))

    def user(self, name: str, *groups: str) -> str:
        return str(self.ok("POST", "/_local/users", {"name": name, "groups": list(groups)})["token"])

    def faults(self, *rules: Object) -> None:
        self.ok("PUT", "/_local/faults", list(rules))

    def watch(self, path: str, **query: Any) -> Watch:
        return Watch(self, path, query)


class Watch:
    """A watch read by a thread, so that tests can wait for what arrives."""

    def __init__(self, api: Api, path: str, query: Object) -> None:
        self.events: list[Object] = []
        self.ended = threading.Event()
        self.response = requests.get(
            api.url + path, params={"watch": "true", "timeoutSeconds": 60, **query}, stream=True, timeout=90,
            headers={"Authorization": f"Bearer {api.token}"}, verify=str(api.state / "ca.crt") if api.tls else True,
        )  # fmt: skip
        self.status = self.response.status_code
        self.thread = threading.Thread(target=self._read, daemon=True)
        self.thread.start()

    def _read(self) -> None:
        try:
            for line in self.response.iter_lines(chunk_size=1):
                if line:
                    self.events.append(json.loads(line))
        except (requests.RequestException, OSError, ValueError, AttributeError):
            pass
        finally:
            self.ended.set()

    def seen(self) -> list[tuple[str, str]]:
        return [(event["type"], event["object"]["metadata"].get("name", "")) for event in self.events]

    def wait(self, *expected: tuple[str, str]) -> list[Object]:
        wait_for(f"{expected}", lambda: len(self.seen()) >= len(expected) or self.ended.is_set())
        assert self.seen()[: len(expected)] == list(expected)
        return self.events


def endpoint(name: str, **spec: Any) -> Object:
    """A valid InferenceEndpointConfig."""
    return {
        "apiVersion": "inference.sagemaker.aws.amazon.com/v1",
        "kind": "InferenceEndpointConfig",
        "metadata": {"name": name},
        "spec": {
            "modelName": "demo",
            "instanceType": "ml.g6e.2xlarge",
            "modelSourceConfig": {
                "modelSourceType": "s3",
                "modelLocation": "models/demo",
                "s3Storage": {"bucketName": "bucket", "region": "us-west-2"},
            },
            "worker": {
                "image": "example/server:1",
                "modelInvocationPort": {"containerPort": 8000},
                "modelVolumeMount": {"name": "weights"},
                "resources": {"limits": {"nvidia.com/gpu": 1}},
            },
            **spec,
        },
    }


def config_map(name: str, **meta: Any) -> Object:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **meta}, "data": {"a": "1"}}


def deployment(name: str, replicas: int = 1) -> Object:
    labels = {"app": name}
    container = {"name": "main", "image": "example/server:1", "ports": [{"containerPort": 8000}]}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template},
    }


def pod(name: str, **spec: Any) -> Object:
    containers = [{"name": "main", "image": "example/server:1", "ports": [{"containerPort": 8000, "name": "http"}]}]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"containers": containers, **spec},
    }
