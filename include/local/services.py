"""The services of the local HyperPod: how each is started, what it waits for, when it is ready."""

from __future__ import annotations

import contextlib
import datetime as dt
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from include.local import s3
from include.local.kubeaccess import KubeAccess

SYSTEM_NAMESPACE = "hyperpod-inference-system"
OPERATOR = "hyperpod-inference-controller-manager"
OPERATOR_PATH = f"apis/apps/v1/namespaces/{SYSTEM_NAMESPACE}/deployments/{OPERATOR}"


@dataclass(frozen=True)
class Layout:
    """Where a stack keeps things, and its ports by name."""

    state: Path
    ports: Mapping[str, int]

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of an administrator."""
        return self.state / "kubeconfig"

    def folder(self, name: str) -> Path:
        """Folder of one service, made when missing."""
        folder = self.state / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def log(self, name: str) -> Path:
        """Log file of one service."""
        return self.state / "logs" / f"{name}.log"

    def url(self, name: str) -> str:
        """Address of a service that speaks HTTP."""
        return f"http://127.0.0.1:{self.ports[name]}"


@dataclass(frozen=True)
class Service:
    """One service.

    :param ports: names of its ports; the first is the one for clients.
    :param after: services that must be ready before it is started.
    :param ready: gets the epoch second of the start: what an earlier process left does not count.
    :param prepare: runs before each start.
    :param grace: seconds between SIGTERM and SIGKILL when it is ended.
    """

    name: str
    ports: tuple[str, ...]
    after: tuple[str, ...]
    command: Callable[[Layout], list[str]]
    ready: Callable[[Layout, float], bool]
    prepare: Callable[[Layout], None] = lambda _: None
    grace: float = 3.0


def _python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


def _moto(layout: Layout) -> list[str]:
    return _python("moto.server", "-H", "127.0.0.1", "-p", str(layout.ports["moto"]))


def _aws(layout: Layout) -> list[str]:
    return _python(
        "include.local.aws", "--port", str(layout.ports["aws"]), "--moto", layout.url("moto"),
        "--state", str(layout.folder("aws")), "--kubeconfig", str(layout.kubeconfig),
        "--fsx", str(layout.folder("fsx")),
    )  # fmt: skip


def _kube(layout: Layout) -> list[str]:
    return _python(
        "include.local.kube", "--port", str(layout.ports["kube"]), "--state", str(layout.folder("kube")),
        "--kubeconfig", str(layout.kubeconfig),
    )  # fmt: skip


def _node(layout: Layout) -> list[str]:
    return _python("include.local.agent", "--state", str(layout.folder("node")))


def _operator(layout: Layout) -> list[str]:
    return _python("include.local.operator", "--state", str(layout.folder("operator")))


def _answers(url: str) -> bool:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(url, timeout=2) as answer:
        return int(answer.status) == 200


def _kube_ready(layout: Layout, _: float) -> bool:
    return bool(KubeAccess.read(layout.kubeconfig).call("GET", "readyz", timeout=2))


def _node_ready(layout: Layout, started: float) -> bool:
    nodes = KubeAccess.read(layout.kubeconfig).call("GET", "api/v1/nodes", timeout=2)["items"]
    conditions = [item for node in nodes for item in node.get("status", {}).get("conditions", ())]
    return any(
        item["type"] == "Ready" and item["status"] == "True" and _epoch(item["lastHeartbeatTime"]) >= int(started)
        for item in conditions
    )


def _epoch(stamp: str) -> float:
    return dt.datetime.fromisoformat(stamp.replace("Z", "+00:00")).timestamp()


def _operator_ready(layout: Layout, _: float) -> bool:
    found = KubeAccess.read(layout.kubeconfig).call("GET", OPERATOR_PATH, timeout=2)
    return bool(found.get("status", {}).get("availableReplicas"))


def _operator_is_down(layout: Layout) -> None:
    """Say in the API that the operator's pod is not there, as a cluster would, until the new one says more."""
    names = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas")
    with contextlib.suppress(OSError, ValueError):
        change = {"status": dict.fromkeys(names, 0)}
        KubeAccess.read(layout.kubeconfig).call("PATCH", f"{OPERATOR_PATH}/status", change, timeout=2)


SERVICES: dict[str, Service] = {
    service.name: service
    for service in (
        Service(
            "s3", s3.PORTS, (), lambda layout: s3.command(layout.folder("s3"), dict(layout.ports)),
            lambda layout, _: s3.ready(layout.ports["s3"]), grace=0.0,
        ),
        Service("moto", ("moto",), (), _moto, lambda layout, _: _answers(f"{layout.url('moto')}/moto-api/")),
        Service("kube", ("kube",), (), _kube, _kube_ready),
        Service("aws", ("aws",), (), _aws, lambda layout, _: _answers(f"{layout.url('aws')}/_local/health")),
        Service("node", (), ("kube",), _node, _node_ready),
        Service("operator", (), ("kube",), _operator, _operator_ready, _operator_is_down),
    )
}  # fmt: skip
PORT_NAMES = tuple(port for service in SERVICES.values() for port in service.ports)


def is_ready(service: Service, layout: Layout, started: float) -> bool:
    """True when the service, started at the epoch second ``started``, answers now."""
    try:
        return service.ready(layout, started)
    except (OSError, ValueError, KeyError, urllib.error.URLError):
        return False
