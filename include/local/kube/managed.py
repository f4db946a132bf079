"""``metadata.managedFields``: who wrote which field.

A field is a path of steps ``f:<name>``, ``k:<json keys>`` (entry of a keyed list) or ``v:<json>`` (entry of a
set); a list without keys is one field.
"""

from __future__ import annotations

import json
from typing import Any

from include.local.kube.resources import builtin_notation
from include.local.kube.schema.notation import Schema

Path = tuple[str, ...]
Leaves = dict[Path, Any]
Object = dict[str, Any]

_IGNORED_METADATA = frozenset(
    {"name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp", "managedFields",
     "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generateName"}
)  # fmt: skip


def leaves(item: Object, schema: Schema) -> Leaves:
    """Return every field of an object with its value."""
    found: Leaves = {}
    properties = schema.get("properties", {})
    for key, value in item.items():
        if key in ("apiVersion", "kind"):
            continue
        if key == "metadata":
            value = {name: part for name, part in value.items() if name not in _IGNORED_METADATA}
            if value:
                _collect(value, metadata_schema(), ("f:metadata",), found)
        else:
            _collect(value, properties.get(key, {}), (f"f:{key}",), found)
    return found


def metadata_schema() -> Schema:
    """Return the schema of ``metadata``."""
    return builtin_notation().expand("ObjectMeta")


def _collect(value: Any, schema: Schema, path: Path, found: Leaves) -> None:
    kind = schema.get("x-kubernetes-list-type")
    if isinstance(value, dict) and value and schema.get("x-kubernetes-map-type") != "atomic":
        for key, item in value.items():
            _collect(item, child_schema(schema, key), (*path, f"f:{key}"), found)
    elif isinstance(value, list) and value and kind == "map":
        for item in value:
            step = key_step(item, schema)
            found[(*path, step, ".")] = None
            _collect(item, schema.get("items", {}), (*path, step), found)
    elif isinstance(value, list) and value and kind == "set":
        for item in value:
            found[(*path, "v:" + _text(item))] = item
    else:
        found[path] = value


def child_schema(schema: Schema, key: str) -> Schema:
    """Return the schema of a property, empty when there is none."""
    child = schema.get("properties", {}).get(key)
    if key == "metadata" and child in (None, {"type": "object"}):
        return metadata_schema()
    if child is None:
        additional = schema.get("additionalProperties")
        child = additional if isinstance(additional, dict) else {}
    return child  # type: ignore[no-any-return]


def key_step(item: Any, schema: Schema) -> str:
    """Return the step that names an entry of a keyed list."""
    keys = schema["x-kubernetes-list-map-keys"]
    defaults = schema.get("items", {}).get("properties", {})
    named = {key: item.get(key, defaults.get(key, {}).get("default")) for key in sorted(keys)}
    return "k:" + _text({key: value for key, value in named.items() if value is not None})


def _text(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def to_fields(paths: set[Path]) -> Object:
    """Return paths in the nested ``fieldsV1`` form."""
    root: Object = {}
    for path in sorted(paths):
        node = root
        for step in path:
            node = node.setdefault(step, {})
    return root


def from_fields(fields: Object) -> set[Path]:
    """Return the paths of a nested ``fieldsV1`` object."""
    found: set[Path] = set()

    def walk(node: Object, path: Path) -> None:
        for step, child in node.items():
            if child:
                walk(child, (*path, step))
            else:
                found.add((*path, step))

    walk(fields, ())
    return found


def readable(path: Path) -> str:
    """Return a path as people write it: ``.spec.containers[name="a"].image``."""
    text = ""
    for step in path:
        if step.startswith("f:"):
            text += f".{step[2:]}"
        elif step.startswith("k:"):
            text += "[" + ",".join(f"{key}={_text(part)}" for key, part in json.loads(step[2:]).items()) + "]"
        elif step.startswith("v:"):
            text += f"[={step[2:]}]"
    return text


class Managers:
    """The entries of ``managedFields``, with sets of paths instead of nested objects."""

    def __init__(self, entries: list[Object] | None) -> None:
        self._entries: dict[tuple[str, str, str], tuple[set[Path], Object]] = {}
        for entry in entries or ():
            key = (entry.get("manager", ""), entry.get("operation", "Update"), entry.get("subresource", ""))
            self._entries[key] = (from_fields(entry.get("fieldsV1", {})), entry)

    def owned(self, manager: str, operation: str, subresource: str = "") -> set[Path]:
        """Return the fields of one entry."""
        entry = self._entries.get((manager, operation, subresource))
        return set(entry[0]) if entry else set()

    def others(self, manager: str, operation: str) -> list[tuple[str, str, set[Path], str]]:
        """Return (manager, operation, fields, apiVersion) of all other entries."""
        return [
            (key[0], key[1], fields, entry.get("apiVersion", ""))
            for key, (fields, entry) in self._entries.items()
            if key[:2] != (manager, operation)
        ]

    def release(self, paths: set[Path], *, keep: tuple[str, str] | None = None) -> None:
        """Take fields from every entry except ``keep``."""
        for key, (fields, entry) in list(self._entries.items()):
            if keep and key[:2] == keep:
                continue
            left = fields - paths
            if left != fields:
                self._replace(key, left, entry, None)

    def assign(
        self, manager: str, operation: str, subresource: str, paths: set[Path], api_version: str, now: str
    ) -> None:
        """Set the fields of one entry; an entry without fields disappears."""
        key = (manager, operation, subresource)
        old = self._entries.get(key)
        if old and old[0] == paths:
            return
        entry = {"manager": manager, "operation": operation, "apiVersion": api_version}
        if subresource:
            entry["subresource"] = subresource
        self._replace(key, paths, entry, now)

    def _replace(self, key: tuple[str, str, str], paths: set[Path], entry: Object, now: str | None) -> None:
        if not paths:
            self._entries.pop(key, None)
            return
        fresh = {**entry, "fieldsType": "FieldsV1", "fieldsV1": to_fields(paths)}
        if now:
            fresh["time"] = now
        self._entries[key] = (paths, fresh)

    def entries(self) -> list[Object]:
        """Return the list for ``metadata.managedFields``."""
        return [entry for _, entry in self._entries.values()]
