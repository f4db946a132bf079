"""A real API server and AWS stand-in over HTTP; tests play the operator's part themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from kubernetes import client, config

from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.resources import Resource
from include.objects import Objects
from tests.include.local.stack import Stack

EXTERNAL = "HYPERPOD_TEST_KUBECONFIG"


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """API server and AWS stand-in, without a node agent or an operator."""
    made = Stack(Path(tmp_path_factory.mktemp("servers")))
    try:
        made.up("kube", "aws")
        yield made
    finally:
        made.down()


@pytest.fixture
def clients(servers: Stack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    """Clients through an ordinary kubeconfig: the local one, or the one that the environment names."""
    for name, value in servers.environment.items():
        monkeypatch.setenv(name, value)
    kubeconfig = os.environ.get(EXTERNAL) or servers.environment["KUBECONFIG"]
    configuration = client.Configuration()
    config.load_kube_config(kubeconfig, client_configuration=configuration)
    session = boto3.Session(aws_access_key_id="test", aws_secret_access_key="test", region_name="us-west-2")
    yield Clients(kube=client.ApiClient(configuration), session=session, region="us-west-2")
    requests.delete(servers.url("_local/faults"), timeout=5)


@pytest.fixture
def intents(tmp_path: Path) -> IntentLog:
    return IntentLog(Objects.open(str(tmp_path / "results")))


@pytest.fixture
def fault(servers: Stack) -> Any:
    """Plant a fault on the wire of the API server."""
    if os.environ.get(EXTERNAL):
        pytest.skip(f"faults are planted in the local API server; {EXTERNAL} names another")

    def plant(**rule: Any) -> None:
        answer = requests.post(servers.url("_local/faults"), json=rule, timeout=5)
        assert answer.ok, answer.text

    return plant


def set_status(
    clients: Clients, resource: Resource, name: str, status: dict[str, Any], namespace: str = "default"
) -> None:
    """Write a status as a controller does."""
    path = resource.path(namespace, name, "status")
    clients.api._json("PATCH", path, body={"status": status}, content_type="application/merge-patch+json")
