"""A container's environment and command line, as the kubelet builds them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from include.local.controller.resources import Object
from include.objects import PROJECT_ROOT

REFERENCE = re.compile(r"\$(\$|\([A-Za-z_][A-Za-z0-9_.-]*\))")
NODE_VARIABLES = ("PATH", "LANG", "LC_ALL", "TZ", "TMPDIR", "KUBECONFIG", "HF_ENDPOINT", "VIRTUAL_ENV")
Lookup = Callable[[str, str], Object | None]


class ConfigError(Exception):
    """The environment refers to something that does not exist (CreateContainerConfigError)."""


def expand(text: str, variables: Mapping[str, str]) -> str:
    """Replace ``$(NAME)`` by its value; ``$$`` is a dollar sign, an unknown name stays as it is."""

    def one(match: re.Match[str]) -> str:
        if match[1] == "$":
            return "$"
        return variables.get(match[1][1:-1], match[0])

    return REFERENCE.sub(one, text)


def node_environment() -> dict[str, str]:
    """What every container gets from its node: search path, AWS access (the pod's role), and the cluster."""
    found = {name: os.environ[name] for name in NODE_VARIABLES if name in os.environ}
    found |= {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return found | {"PYTHONPATH": str(PROJECT_ROOT), "PYTHONUNBUFFERED": "1"}


def container_environment(
    pod: Object, container: Object, node: Mapping[str, str], secret: Lookup, config_map: Lookup
) -> dict[str, str]:
    """Return the variables of ``env`` and ``envFrom``.

    :param node: facts for ``fieldRef``: ``status.podIP``, ``status.hostIP``.
    :param secret: returns a Secret by namespace and name; ``config_map`` likewise.
    :raises ConfigError: for a reference to an absent object or key that is not optional.
    """
    values: dict[str, str] = {}
    namespace = pod["metadata"].get("namespace", "default")
    for source in container.get("envFrom") or []:
        values |= _all_of(source, namespace, secret, config_map)
    for entry in container.get("env") or []:
        if entry.get("valueFrom"):
            found = _value_from(entry["valueFrom"], pod, container, node, secret, config_map)
            if found is not None:
                values[entry["name"]] = found
        else:
            values[entry["name"]] = expand(entry.get("value") or "", values)
    return values


def _all_of(source: Object, namespace: str, secret: Lookup, config_map: Lookup) -> dict[str, str]:
    prefix = source.get("prefix") or ""
    for kind, lookup, read in (
        ("secretRef", secret, secret_data),
        ("configMapRef", config_map, config_map_data),
    ):
        reference = source.get(kind)
        if not reference:
            continue
        found = lookup(namespace, reference["name"])
        if found is None and not reference.get("optional"):
            raise ConfigError(f'{kind[:-3].lower()} "{reference["name"]}" not found')
        return {prefix + key: value for key, value in read(found).items()} if found else {}
    return {}


def _value_from(
    source: Object,
    pod: Object,
    container: Object,
    node: Mapping[str, str],
    secret: Lookup,
    config_map: Lookup,
) -> str | None:
    namespace = pod["metadata"].get("namespace", "default")
    if source.get("secretKeyRef"):
        return _key(source["secretKeyRef"], "secret", secret, secret_data, namespace)
    if source.get("configMapKeyRef"):
        return _key(source["configMapKeyRef"], "configmap", config_map, config_map_data, namespace)
    if source.get("fieldRef"):
        return field_value(pod, source["fieldRef"]["fieldPath"], node)
    if source.get("resourceFieldRef"):
        return _resource_value(container, source["resourceFieldRef"]["resource"])
    raise ConfigError(f"unsupported valueFrom {sorted(source)}")


def _key(
    reference: Object, kind: str, lookup: Lookup, read: Callable[[Object], dict[str, str]], namespace: str
) -> str | None:
    found = lookup(namespace, reference["name"])
    if found is None:
        if reference.get("optional"):
            return None
        raise ConfigError(f'{kind} "{reference["name"]}" not found')
    data = read(found)
    if reference["key"] not in data:
        if reference.get("optional"):
            return None
        raise ConfigError(f"couldn't find key {reference['key']} in {kind} {namespace}/{reference['name']}")
    return data[reference["key"]]


def secret_data(secret: Object) -> dict[str, str]:
    """Decoded values of a Secret."""
    import base64

    encoded = {name: base64.b64decode(text).decode() for name, text in (secret.get("data") or {}).items()}
    return encoded | (secret.get("stringData") or {})


def config_map_data(config_map: Object) -> dict[str, str]:
    """Values of a ConfigMap."""
    return dict(config_map.get("data") or {})


def field_value(pod: Object, path: str, node: Mapping[str, str]) -> str:
    """Return a downward API field: ``metadata.name``, ``metadata.labels['x']``, ``spec.nodeName``, …

    :raises ConfigError: for a field that the downward API does not have.
    """
    if path in node:
        return node[path]
    subscript = re.fullmatch(r"metadata\.(labels|annotations)\['(.+)'\]", path)
    if subscript:
        return str((pod["metadata"].get(subscript[1]) or {}).get(subscript[2], ""))
    if path in ("metadata.name", "metadata.namespace", "metadata.uid"):
        return str(pod["metadata"].get(path.removeprefix("metadata."), ""))
    if path in ("spec.nodeName", "spec.serviceAccountName"):
        return str(pod["spec"].get(path.removeprefix("spec."), ""))
    raise ConfigError(f"unsupported fieldPath {path}")


def _resource_value(container: Object, resource: str) -> str:
    group, _, name = resource.partition(".")
    resources: dict[str, Any] = container.get("resources") or {}
    return str((resources.get(group) or {}).get(name, "0"))


def command_line(
    container: Object, entrypoint: tuple[str, ...], variables: Mapping[str, str], mounts: Mapping[str, Path]
) -> list[str]:
    """Return argv: ``command`` replaces the image's entry point, ``args`` follow; mount paths become folders.

    A process of the host has no mount namespace, so an argument that is a path below a mount (also as
    ``--option=/path``) is rewritten to the folder that holds the volume.
    """
    command = [expand(part, variables) for part in container.get("command") or []]
    args = [expand(part, variables) for part in container.get("args") or []]
    argv = [*(command or entrypoint), *args]
    if argv[0] in ("python", "python3"):
        argv[0] = sys.executable
    return [argv[0], *(host_path(part, mounts) for part in argv[1:])]


def host_path(text: str, mounts: Mapping[str, Path]) -> str:
    """Rewrite a path below a mount to the host's folder; anything else stays."""
    option, equals, value = text.partition("=") if text.startswith("-") else ("", "", text)
    for mount in sorted(mounts, key=len, reverse=True):
        if value == mount or value.startswith(mount.rstrip("/") + "/"):
            return f"{option}{equals}{mounts[mount]}{value[len(mount.rstrip('/')) :]}"
    return text
