"""Custom resource definitions: reading them into resources, and those that come with the server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from include.local.kube.resources import Resource
from include.local.kube.schema.causes import Cause, invalid, required
from include.local.kube.schema.notation import Notation

_FOLDER = Path(__file__).parent / "crds"
_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
Object = dict[str, Any]


def resources_of(definition: Object) -> list[Resource]:
    """Return one resource for each served version of a CustomResourceDefinition."""
    spec = definition["spec"]
    names = spec["names"]
    return [
        Resource(
            group=spec["group"],
            version=version["name"],
            kind=names["kind"],
            plural=names["plural"],
            singular=names.get("singular") or names["kind"].lower(),
            namespaced=spec["scope"] == "Namespaced",
            short_names=tuple(names.get("shortNames", ())),
            categories=tuple(names.get("categories", ())),
            schema=version.get("schema", {}).get("openAPIV3Schema", {}),
            status="status" in version.get("subresources", {}),
            scale=version.get("subresources", {}).get("scale"),
            generation=True,
            custom=True,
            columns=tuple(version.get("additionalPrinterColumns", ())),
            fields=frozenset(item["jsonPath"].lstrip(".") for item in version.get("selectableFields", ())),
            list_name=names.get("listKind", ""),
        )
        for version in spec["versions"]
        if version.get("served", True)
    ]


def established(definition: Object, now: str) -> Object:
    """Return the status of an accepted definition."""
    spec = definition["spec"]
    names = spec["names"]
    accepted = {
        **names,
        "listKind": names.get("listKind") or f"{names['kind']}List",
        "singular": names.get("singular") or names["kind"].lower(),
    }
    conditions = [
        {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now}
        for kind, reason, message in (
            ("NamesAccepted", "NoConflicts", "no conflicts found"),
            ("Established", "InitialNamesAccepted", "the initial names have been accepted"),
        )
    ]
    stored = [version["name"] for version in spec["versions"] if version.get("storage")]
    return {"acceptedNames": accepted, "conditions": conditions, "storedVersions": stored}


def check(definition: Object) -> list[Cause]:
    """Return what is wrong with a definition (names, versions, storage), all at once."""
    spec = definition.get("spec")
    if not isinstance(spec, dict):
        return [required("spec")]
    causes = [required(f"spec.{field}") for field in ("group", "names", "scope", "versions") if not spec.get(field)]
    names = spec.get("names")
    if not isinstance(names, dict):
        return causes or [required("spec.names")]
    causes += [required(f"spec.names.{field}") for field in ("plural", "kind") if not names.get(field)]
    if causes:
        return causes
    expected = f"{names['plural']}.{spec['group']}"
    if definition["metadata"]["name"] != expected:
        why = 'must be spec.names.plural+"."+spec.group'
        causes.append(invalid("metadata.name", definition["metadata"]["name"], why))
    if spec["scope"] not in ("Namespaced", "Cluster"):
        causes.append(invalid("spec.scope", spec["scope"], "must be Namespaced or Cluster"))
    return causes + _check_versions(spec["versions"])


def _check_versions(versions: Any) -> list[Cause]:
    if not isinstance(versions, list) or not all(isinstance(item, dict) for item in versions):
        return [invalid("spec.versions", versions, "must be a list of versions")]
    causes = [
        required(f"spec.versions[{index}].schema.openAPIV3Schema", "schemas are required")
        for index, version in enumerate(versions)
        if not version.get("schema", {}).get("openAPIV3Schema")
    ]
    if sum(bool(version.get("storage")) for version in versions) != 1:
        causes.append(invalid("spec.versions", len(versions), "must have exactly one version marked as storage"))
    return causes


def bundled() -> list[Object]:
    """Return the definitions that every server starts with."""
    shared = _load(_FOLDER / "_shared.yaml")
    notation = Notation(shared["types"])
    definitions = [
        _definition(_load(path), notation) for path in sorted(_FOLDER.glob("*.yaml")) if not path.name.startswith("_")
    ]
    return definitions + [_definition(entry, notation) for entry in _load(_FOLDER / "_platform.yaml")]


def _load(path: Path) -> Any:
    return yaml.load(path.read_bytes(), Loader=_Loader)  # noqa: S506


def _definition(compact: Object, notation: Notation) -> Object:
    names = compact["names"]
    schema = notation.expand(compact["schema"])
    root = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    schema["properties"] = root | schema["properties"]
    version = {
        "name": compact["version"],
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": compact.get("subresources", {}),
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{names['plural']}.{compact['group']}"},
        "spec": {
            "group": compact["group"],
            "names": names,
            "scope": compact["scope"],
            "conversion": {"strategy": "None"},
            "versions": [version],
        },
    }
