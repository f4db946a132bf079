"""Rules for ``metadata``: names, labels, what a client may not change."""

from __future__ import annotations

import re
from typing import Any

from include.local.kube.errors import bad_request
from include.local.kube.resources import Resource, builtin_notation
from include.local.kube.schema.causes import Cause, invalid, required
from include.local.kube.schema.prune import drop_nulls, prune
from include.local.kube.schema.validate import validate

Object = dict[str, Any]

_SUBDOMAIN = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", re.ASCII)
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_SERVICE = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?", re.ASCII)
_KEY_NAME = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?", re.ASCII)
_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?", re.ASCII)
_ANNOTATIONS_LIMIT = 256 * 1024
SERVER_OWNED = ("uid", "creationTimestamp", "generation", "resourceVersion", "selfLink", "deletionTimestamp",
                "deletionGracePeriodSeconds")  # fmt: skip

_SUBDOMAIN_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    r"'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_RULE = (
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and "
    "end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
)


def clean(metadata: Any) -> tuple[Object, list[str]]:
    """Return metadata without unknown fields and nulls, and the paths removed.

    :raises ApiError: 400 when it is not an object or a field has another type.
    """
    if metadata is None:
        metadata = {}
    schema = builtin_notation().expand("ObjectMeta")
    drop_nulls(metadata, schema)
    if isinstance(metadata, dict):
        managed = metadata.pop("managedFields", None)
        unknown = prune(metadata, schema, "metadata", root=False)
        problems = validate(metadata, schema, "metadata")
        if managed is not None:
            metadata["managedFields"] = managed
    else:
        problems = validate(metadata, schema, "metadata")
        unknown = []
    if problems:
        raise bad_request(f"metadata cannot be decoded: {problems[0].text()}")
    return metadata, unknown


def check(resource: Resource, metadata: Object) -> list[Cause]:
    """Return every rule that the metadata breaks."""
    causes = _check_name(resource, metadata.get("name", ""))
    for key, value in metadata.get("labels", {}).items():
        causes += _check_key("metadata.labels", key)
        if not _VALUE.fullmatch(value) or len(value) > 63:
            why = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.'"
            causes.append(invalid("metadata.labels", value, f"{why}, at most 63 characters"))
    annotations = metadata.get("annotations", {})
    for key in annotations:
        causes += _check_key("metadata.annotations", key.lower())
    size = sum(len(key) + len(value.encode()) for key, value in annotations.items())
    if size > _ANNOTATIONS_LIMIT:
        why = f"Too long: may not be more than {_ANNOTATIONS_LIMIT} bytes"
        causes.append(Cause("metadata.annotations", "FieldValueTooLong", why))
    for name in metadata.get("finalizers", ()):
        if not name:
            causes.append(invalid("metadata.finalizers", name, "name part must be non-empty"))
    return causes


def _check_name(resource: Resource, name: str) -> list[Cause]:
    if not name:
        return [required("metadata.name", "name or generateName is required")]
    if resource.group == "rbac.authorization.k8s.io":
        bad = name in (".", "..") or "/" in name or "%" in name
        return [invalid("metadata.name", name, "may not contain '/' or '%'")] if bad else []
    if resource.kind in ("Service", "Namespace"):
        pattern, rule, limit = (_SERVICE if resource.kind == "Service" else _LABEL), _LABEL_RULE, 63
    else:
        pattern, rule, limit = _SUBDOMAIN, _SUBDOMAIN_RULE, 253
    if pattern.fullmatch(name) and len(name) <= limit:
        return []
    why = rule if not pattern.fullmatch(name) else f"must be no more than {limit} characters"
    return [invalid("metadata.name", name, why)]


def _check_key(field: str, key: str) -> list[Cause]:
    prefix, slash, name = key.rpartition("/")
    good_prefix = not slash or (_SUBDOMAIN.fullmatch(prefix) and len(prefix) <= 253)
    if good_prefix and _KEY_NAME.fullmatch(name) and len(name) <= 63:
        return []
    why = "name part must consist of alphanumeric characters, '-', '_' or '.', with an alphanumeric at both ends"
    return [invalid(field, key, why)]


def carry_over(old: Object, new: Object) -> list[Cause]:
    """Copy what only the server may set from the old metadata; return attempts to change identity."""
    causes = []
    for field in ("name", "namespace", "uid"):
        if new.get(field, old.get(field)) != old.get(field):
            causes.append(invalid(f"metadata.{field}", new[field], "field is immutable"))
    for field in SERVER_OWNED:
        new.pop(field, None)
        if field in old:
            new[field] = old[field]
    if old.get("deletionTimestamp"):
        added = sorted(set(new.get("finalizers", ())) - set(old.get("finalizers", ())))
        if added:
            why = f"no new finalizers can be added if the object is being deleted, found new finalizers {added}"
            causes.append(Cause("metadata.finalizers", "FieldValueForbidden", f"Forbidden: {why}"))
    return causes
