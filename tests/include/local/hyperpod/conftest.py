"""One whole local HyperPod of its own, shared by the tests of its services."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from include.local import s3
from include.local.supervisor import LocalHyperPod

Client = Callable[..., Any]
SYSTEM, CLAIM, IMAGE = "fs-0123456789abcdef0", "fsx-models", "hyperpod.local/stager:1"


def until(what: str, check: Callable[[], Any], seconds: float = 60) -> Any:
    """Poll until ``check`` returns something true."""
    deadline = time.monotonic() + seconds
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


@pytest.fixture(scope="session")
def hyperpod(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHyperPod]:
    with LocalHyperPod(Path(tmp_path_factory.mktemp("hyperpod"))) as stack:
        yield stack
    assert stack.leftovers() == []


@pytest.fixture
def client(hyperpod: LocalHyperPod) -> Client:
    """Make boto3 clients of the gateway, without retries."""
    import boto3
    from botocore.config import Config

    def make(service: str, **options: Any) -> Any:
        url = hyperpod.layout.url("s3" if service == "s3" else "aws")
        settings = {
            "endpoint_url": url, "region_name": s3.REGION, "aws_access_key_id": s3.ACCESS_KEY,
            "aws_secret_access_key": s3.SECRET_KEY, "config": Config(retries={"max_attempts": 0}, read_timeout=20),
        }  # fmt: skip
        return boto3.client(service, **{**settings, **options})

    return make


@pytest.fixture
def fault(hyperpod: LocalHyperPod) -> Iterator[Callable[..., None]]:
    """Put faults of the AWS APIs in force for one test."""
    url = f"{hyperpod.layout.url('aws')}/_local/faults"

    def add(kind: str, **fields: Any) -> None:
        requests.post(url, json={"kind": kind, **fields}, timeout=10).raise_for_status()

    yield add
    requests.delete(url, timeout=10).raise_for_status()


@pytest.fixture
def kube(hyperpod: LocalHyperPod, monkeypatch: pytest.MonkeyPatch) -> Any:
    """An API client, the environment of the stack, and a claim of its file system."""
    from kubernetes import client, config
    from kubernetes.client.exceptions import ApiException

    for name, value in hyperpod.environment().items():
        monkeypatch.setenv(name, value)
    api = config.new_client_from_config(str(hyperpod.layout.kubeconfig))
    core = client.CoreV1Api(api)
    room = {"accessModes": ["ReadWriteMany"], "storageClassName": "", "volumeName": CLAIM}
    csi = {"driver": "fsx.csi.aws.com", "volumeHandle": SYSTEM}
    volume = {"capacity": {"storage": "1200Gi"}, "accessModes": ["ReadWriteMany"], "csi": csi}
    claim = room | {"resources": {"requests": {"storage": "1200Gi"}}}
    made = (
        (core.create_persistent_volume, {"metadata": {"name": CLAIM}, "spec": volume}),
        (
            lambda body: core.create_namespaced_persistent_volume_claim("default", body),
            {"metadata": {"name": CLAIM}, "spec": claim},
        ),
    )
    for create, body in made:
        try:
            create(body)
        except ApiException as error:
            if error.status != 409:
                raise
    return api


@pytest.fixture
def kube_fault(kube: Any) -> Iterator[Callable[..., None]]:
    """Put faults of the Kubernetes API in force for one test."""

    def ask(method: str, body: Any = None) -> None:
        kube.call_api(
            "/_local/faults", method, header_params={"Content-Type": "application/json"}, body=body,
            auth_settings=["BearerToken"], _preload_content=False,
        )  # fmt: skip

    yield lambda **rule: ask("POST", rule)
    ask("DELETE")
