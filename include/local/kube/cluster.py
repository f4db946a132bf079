"""The parts that every operation needs, and the bookkeeping that keeps them consistent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from include.local.kube import definitions
from include.local.kube.clock import timestamp
from include.local.kube.journal import Journal
from include.local.kube.registry import CRD_KEY, Registry
from include.local.kube.store import HISTORY, Event, Store

Object = dict[str, Any]
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease", "hyperpod-inference-system")


class Cluster:
    """One API server's state: stored objects and served resources.

    :param folder: where the state is kept.
    :param history: events kept per resource.
    """

    def __init__(self, folder: Path, history: int = HISTORY) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.journal = Journal(folder / "cluster.sqlite")
        self.store = Store(self.journal, history)
        self.registry = Registry()
        for record in self.store.records(CRD_KEY):
            self.registry.define(record.object)
        self.store.listen(self._track_definitions)

    def close(self) -> None:
        """Close the state file."""
        self.journal.close()

    def _track_definitions(self, event: Event) -> None:
        if event.resource != CRD_KEY:
            return
        if event.type == "DELETED":
            self.registry.undefine(event.record.object["metadata"]["name"])
        else:
            self.registry.define(event.record.object)

    def populate(self) -> None:
        """Create what every cluster has and what is not there yet; refresh the bundled definitions."""
        from include.local.kube.writing import Writer

        writer = Writer(self, "hyperpod-local")
        for name in NAMESPACES:
            if self.store.get("/namespaces", "", name) is None:
                resource = self.registry.find("", "v1", "namespaces")
                writer.create(resource, "", {"metadata": {"name": name}})
        for item in definitions.bundled():
            self._install(writer, item)
        self._install_admin(writer)

    def _install(self, writer: Any, definition: Object) -> None:
        resource = self.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
        current = self.store.get(CRD_KEY, "", definition["metadata"]["name"])
        if current is None:
            writer.create(resource, "", definition)
        elif current.object["spec"] != definition["spec"] and not current.object["metadata"].get("deletionTimestamp"):
            changed = {**definition, "metadata": dict(current.object["metadata"])}
            writer.update(resource, "", definition["metadata"]["name"], changed)

    def _install_admin(self, writer: Any) -> None:
        group = "rbac.authorization.k8s.io"
        everything = [
            {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
            {"nonResourceURLs": ["*"], "verbs": ["*"]},
        ]
        if self.store.get(f"{group}/clusterroles", "", "cluster-admin") is None:
            role = {"metadata": {"name": "cluster-admin"}, "rules": everything}
            writer.create(self.registry.find(group, "v1", "clusterroles"), "", role)
        if self.store.get(f"{group}/clusterrolebindings", "", "cluster-admin") is None:
            binding = {
                "metadata": {"name": "cluster-admin"},
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "cluster-admin"},
                "subjects": [{"apiGroup": group, "kind": "Group", "name": "system:masters"}],
            }
            writer.create(self.registry.find(group, "v1", "clusterrolebindings"), "", binding)


def now() -> str:
    """Return the time as stored in objects."""
    return timestamp()
