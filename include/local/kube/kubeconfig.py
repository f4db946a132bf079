"""Write the kubeconfig that any Kubernetes client needs to reach the local API server."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path


def write_kubeconfig(
    path: Path,
    server: str,
    token: str,
    *,
    authority: Path | None = None,
    namespace: str = "default",
    context: str = "hyperpod-local",
) -> Path:
    """Write a kubeconfig with one cluster, one user and one context; only its owner may read it.

    :param server: URL such as ``https://127.0.0.1:6443``.
    :param authority: certificate file of the server's authority; embedded.
    :param context: name of the context, the cluster and the user.
    """
    cluster = {"server": server}
    if authority is not None:
        cluster["certificate-authority-data"] = base64.b64encode(authority.read_bytes()).decode()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": context, "cluster": cluster}],
        "users": [{"name": context, "user": {"token": token}}],
        "contexts": [{"name": context, "context": {"cluster": context, "user": context, "namespace": namespace}}],
        "current-context": context,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as handle:
        json.dump(config, handle, indent=2)
    temporary.replace(path)
    return path
