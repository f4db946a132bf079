"""``python -m include.local.kubeapi``: run the API server and write a kubeconfig for it."""

from __future__ import annotations

import argparse
import asyncio
import secrets
from pathlib import Path
from typing import Any

import yaml
from aiohttp import web

from include.endpoint.crds import PLURALS, shipped
from include.local.kubeapi.server import Server
from include.local.kubeapi.store import Store

NAMESPACES = ("default", "kube-system", "hyperpod-inference-system")


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(prog="python -m include.local.kubeapi")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--kubeconfig", type=Path, required=True)
    given = parser.parse_args()
    given.state.mkdir(parents=True, exist_ok=True)
    token = _token(given.state / "token")
    write_kubeconfig(given.kubeconfig, f"http://{given.host}:{given.port}", token)
    asyncio.run(_serve(given, token))


async def _serve(given: Any, token: str) -> None:
    store = Store(given.state / "objects.db")
    await _first_objects(store)
    server = Server(store, {token: ("local-admin", ("system:masters", "system:authenticated"))})
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.5)
    await runner.setup()
    await web.TCPSite(runner, given.host, given.port).start()
    await asyncio.Event().wait()


async def _first_objects(store: Store) -> None:
    namespaces = store.kinds[("", "v1", "namespaces")]
    definitions = store.kinds[("apiextensions.k8s.io", "v1", "customresourcedefinitions")]
    for name in NAMESPACES:
        if (namespaces.resource, "", name) not in store.objects:
            await store.create(namespaces, "", {"metadata": {"name": name}})
    for kind in PLURALS:
        definition = dict(shipped(kind))
        name = definition["metadata"]["name"]
        if (definitions.resource, "", name) in store.objects:
            continue
        made = await store.create(definitions, "", {**definition, "metadata": {"name": name}})
        established = {"type": "Established", "status": "True", "reason": "InitialNamesAccepted", "message": ""}
        status = {"conditions": [established], "storedVersions": ["v1"]}
        await store.replace(definitions, "", name, {**made, "status": status}, subresource="status")


def write_kubeconfig(path: Path, server: str, token: str) -> None:
    """Write a kubeconfig with one context, readable by its owner only."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "hyperpod-local",
        "clusters": [{"name": "hyperpod-local", "cluster": {"server": server}}],
        "users": [{"name": "local-admin", "user": {"token": token}}],
        "contexts": [
            {
                "name": "hyperpod-local",
                "context": {"cluster": "hyperpod-local", "user": "local-admin", "namespace": "default"},
            }
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(config))


def _token(path: Path) -> str:
    if not path.exists():
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(24))
    return path.read_text()


if __name__ == "__main__":
    main()
