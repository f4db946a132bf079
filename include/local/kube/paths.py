"""What a request is about, read from its method, path and query."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote

from include.local.kube.rbac import Attributes

_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}


def flag(query: Mapping[str, str], name: str) -> bool:
    """Return a boolean option, in any of the spellings that Go (and so a real API server) accepts."""
    return query.get(name, "") in _TRUE


@dataclass(frozen=True)
class Target:
    """A resource request.

    :param subresource: ``status``, ``scale``, ``log``, ``proxy``...
    :param rest: what follows a ``proxy`` subresource, with its leading slash; still percent-encoded.
    """

    group: str
    version: str
    plural: str
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""

    def attributes(self, method: str, *, watch: bool) -> Attributes:
        """Return the request in the terms of authorization."""
        verb = _VERBS.get(method, method.lower())
        if not self.name and verb == "get":
            verb = "watch" if watch else "list"
        elif not self.name and verb == "delete":
            verb = "deletecollection"
        elif watch and verb == "get" and not self.subresource:
            verb = "watch"
        return Attributes(verb, self.group, self.plural, self.subresource, self.namespace, self.name)


def parse(raw_path: str) -> Target | None:
    """Return what a resource path names, ``None`` for any other path."""
    parts = raw_path.strip("/").split("/")
    if parts[0] == "api" and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[0] == "apis" and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return None
    namespace = ""
    if rest[0] == "namespaces" and len(rest) >= 3 and rest[2] not in ("status", "finalize"):
        namespace, rest = unquote(rest[1]), rest[2:]
    elif rest[0] == "namespaces" and len(rest) >= 2:
        namespace = unquote(rest[1])
    name = unquote(rest[1]) if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    tail = raw_path.split("/proxy", 1)[1] if subresource == "proxy" else "/".join(rest[3:])
    return Target(group, version, rest[0], namespace, name, subresource, tail)
