"""Provenance holds what serves, as the cluster shows it: image, nodes, driver, operator, engine."""

from __future__ import annotations

import http.server
import json
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from include.endpoint import names
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.resources import DEPLOYMENTS, ENDPOINT_SLICES, NODES, PODS
from include.endpoint.serving import driver_version, observe_serving
from tests.include.endpoint.conftest import set_status
from tests.include.endpoint.test_watch import made

DIGEST = f"sha256:{'a' * 64}"


class _Version(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = json.dumps({"version": "0.11.0"}).encode()
        self.send_response(200 if self.path == "/version" else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def engine() -> Iterator[int]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Version)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@pytest.fixture
def node(clients: Clients) -> Iterator[str]:
    name = f"node-{uuid.uuid4().hex[:8]}"
    labels = {"nvidia.com/cuda.driver-version.full": "570.86.15", names.INSTANCE_LABEL: "ml.g5.8xlarge"}
    clients.api.create(NODES, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}, "")
    yield name
    made_node = clients.api.get(NODES, name)
    assert made_node is not None
    clients.api.delete(NODES, name, uid=made_node["metadata"]["uid"])


def _operator(clients: Clients, image: str) -> None:
    name = names.OPERATOR_DEPLOYMENTS[0]
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": {"containers": [{"name": "manager", "image": image}]}}
    spec = {"replicas": 1, "selector": {"matchLabels": labels}, "template": template}
    body = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}
    if clients.api.get(DEPLOYMENTS, name, names.OPERATOR_NAMESPACE) is None:
        clients.api.create(DEPLOYMENTS, body, names.OPERATOR_NAMESPACE)


def test_what_serves_is_read_from_the_cluster(clients: Clients, intents: IntentLog, node: str, engine: int) -> None:
    ref, planned = made(clients, intents, resources={"limits": {"nvidia.com/gpu": "1"}})
    planned = planned.model_copy(update={"cluster": planned.cluster.model_copy(update={"invocation": "endpoints"})})
    pod = f"{ref.name}-0"
    spec = {"nodeName": node, "containers": [{"name": ref.name, "image": "repo/vllm:1"}]}
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod, "labels": {"app": ref.name}}, "spec": spec}
    clients.api.create(PODS, body, "default")
    status = {"name": ref.name, "ready": True, "restartCount": 0, "image": "repo/vllm:1",
              "imageID": f"repo/vllm@{DIGEST}"}  # fmt: skip
    other = {"name": "sidecar", "ready": True, "restartCount": 0, "image": "s:1", "imageID": f"s@sha256:{'b' * 64}"}
    set_status(clients, PODS, pod, {"phase": "Running", "containerStatuses": [status, other]})
    service = names.service_name(ref.name)
    slice_ = {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": {"ready": True}}],
        "ports": [{"port": engine, "protocol": "TCP"}],
    }  # fmt: skip
    clients.api.create(ENDPOINT_SLICES, slice_, "default")
    _operator(clients, "registry/team/hyperpod-inference-operator:v3.2")

    found = observe_serving(ref, planned, clients)
    assert (found.image_digest, found.node_names, found.accelerators) == (DIGEST, (node,), 1)
    assert (found.driver_version, found.instance_type) == ("570.86.15", "ml.g5.8xlarge")
    assert found.operator_version == "v3.2"
    assert found.engine_version == "0.11.0"


def test_what_the_cluster_does_not_tell_stays_empty(clients: Clients, intents: IntentLog) -> None:
    ref, planned = made(clients, intents)
    found = observe_serving(ref, planned, clients)
    assert (found.image_digest, found.driver_version, found.node_names, found.engine_version) == ("", "", (), "")


@pytest.mark.parametrize(
    ("labels", "version"),
    [
        ({"nvidia.com/cuda.driver-version.full": "570.86.15", "nvidia.com/cuda.driver.major": "1"}, "570.86.15"),
        ({f"nvidia.com/cuda.driver.{part}": n for part, n in (("major", "535"), ("minor", "161"), ("rev", "08"))},
         "535.161.08"),
        ({}, ""),
    ],
)  # fmt: skip
def test_both_forms_of_the_driver_labels_are_read(labels: dict[str, str], version: str) -> None:
    assert driver_version({"metadata": {"name": "n", "labels": labels}}) == version
