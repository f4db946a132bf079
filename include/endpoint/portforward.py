"""A local port in front of a pod, through the API server: for laptops that cannot reach the cluster's network."""

from __future__ import annotations

import contextlib
import logging
import selectors
import socket
import threading
from typing import Any

from include.endpoint.clients import Clients
from include.endpoint.model import EndpointRef
from include.endpoint.resources import PODS
from include.errors import FailureClass, PipelineError

CHUNK = 65536
log = logging.getLogger(__name__)


def forward(ref: EndpointRef, clients: Clients, port: int) -> int:
    """Listen on a free port of 127.0.0.1 and forward each connection to a ready pod of the endpoint.

    :return: the local port; it lives as long as this process.
    :raises PipelineError: when no pod is ready.
    """
    pod = ready_pod(ref, clients)
    listener = socket.create_server(("127.0.0.1", 0))
    threading.Thread(
        target=_serve, args=(listener, clients, ref.namespace, pod, port), name=f"forward-{pod}", daemon=True
    ).start()
    return int(listener.getsockname()[1])


def ready_pod(ref: EndpointRef, clients: Clients) -> str:
    """Return the name of a ready pod of the endpoint."""
    for pod in clients.api.list(PODS, ref.namespace, labels=f"app={ref.name}"):
        held = (pod.get("status") or {}).get("conditions") or []
        if any(item["type"] == "Ready" and item["status"] == "True" for item in held):
            return str(pod["metadata"]["name"])
    raise PipelineError(
        "NotReachable",
        f"no pod of {ref.name} is ready",
        fix="wait until it is",
        failure_class=FailureClass.TRANSIENT,
    )


def _serve(listener: socket.socket, clients: Clients, namespace: str, pod: str, port: int) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_forward_one, args=(connection, clients, namespace, pod, port), daemon=True).start()


def _forward_one(connection: socket.socket, clients: Clients, namespace: str, pod: str, port: int) -> None:
    with connection:
        try:
            upstream = _open(clients, namespace, pod, port)
            with contextlib.closing(upstream):
                _pump(connection, upstream)
        except Exception as error:  # noqa: BLE001 (the client's websocket helper raises anything)
            log.warning("port-forward to %s/%s:%d: %s", namespace, pod, port, error)


def _open(clients: Clients, namespace: str, pod: str, port: int) -> Any:
    from kubernetes.client import ApiClient, CoreV1Api
    from kubernetes.stream import portforward

    # The stream helper replaces the client's request method: give it one of its own.
    api = CoreV1Api(ApiClient(clients.kube.configuration))
    return portforward(api.connect_get_namespaced_pod_portforward, pod, namespace, ports=str(port)).socket(port)


def _pump(left: Any, right: Any) -> None:
    with selectors.DefaultSelector() as selector:
        selector.register(left, selectors.EVENT_READ, right)
        selector.register(right, selectors.EVENT_READ, left)
        while True:
            for key, _ in selector.select():
                source: Any = key.fileobj
                data = source.recv(CHUNK)
                if not data:
                    return
                key.data.sendall(data)
