"""Which resources are served: the built-in ones, and those that definitions add at run time."""

from __future__ import annotations

from typing import Any

from include.local.kube.definitions import resources_of
from include.local.kube.errors import no_such_path
from include.local.kube.resources import Resource, builtin_resources

CRD_KEY = "apiextensions.k8s.io/customresourcedefinitions"


class Registry:
    """Lookup of resources by path and by kind."""

    def __init__(self) -> None:
        self._builtin = builtin_resources()
        self._custom: dict[str, list[Resource]] = {}
        self._index()

    def _index(self) -> None:
        everything = self._builtin + [item for group in self._custom.values() for item in group]
        self._by_path = {(item.group, item.version, item.plural): item for item in everything}
        self._by_kind = {(item.api_version, item.kind): item for item in everything}
        self._by_key = {item.key: item for item in reversed(everything)}

    def define(self, definition: dict[str, Any]) -> None:
        """Serve (or change) what a CustomResourceDefinition describes."""
        self._custom[definition["metadata"]["name"]] = resources_of(definition)
        self._index()

    def undefine(self, name: str) -> None:
        """Stop serving a definition's resources."""
        self._custom.pop(name, None)
        self._index()

    def all(self) -> list[Resource]:
        """Return everything served, built-in kinds first."""
        return list(self._by_path.values())

    def find(self, group: str, version: str, plural: str) -> Resource:
        """Return the resource at a path.

        :raises ApiError: 404 when nothing is served there.
        """
        try:
            return self._by_path[group, version, plural]
        except KeyError:
            raise no_such_path() from None

    def by_key(self, key: str) -> Resource | None:
        """Return the resource stored under ``<group>/<plural>``."""
        return self._by_key.get(key)

    def by_kind(self, api_version: str, kind: str) -> Resource | None:
        """Return the resource of a kind."""
        return self._by_kind.get((api_version, kind))
