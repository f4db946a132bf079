"""From a client's body to an object that may be stored: decode, prune, default, validate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from include.local.kube import kinds, metadata
from include.local.kube.definitions import check as check_definition
from include.local.kube.errors import ApiError, bad_request, invalid_object
from include.local.kube.resources import Resource
from include.local.kube.schema.causes import Cause
from include.local.kube.schema.prune import drop_nulls, fill_defaults, prune
from include.local.kube.schema.validate import validate

Object = dict[str, Any]
_REQUIRED = "FieldValueRequired"
FIELD_VALIDATIONS = ("Strict", "Warn", "Ignore")


@dataclass(frozen=True)
class Options:
    """The query options of a write.

    :param field_validation: what happens with unknown fields: Strict, Warn or Ignore.
    :param warnings: collects what the answer's ``Warning`` headers say.
    """

    dry_run: bool = False
    field_validation: str = "Warn"
    manager: str = "unknown"
    force: bool = False
    warnings: list[str] | None = None


def decode(resource: Resource, item: Any, namespace: str, options: Options) -> Object:
    """Check the shape of a body and remove what the schema does not know, in place.

    :raises ApiError: 400 for another kind or namespace, a wrong type of a built-in field, and unknown fields
        under Strict.
    """
    if not isinstance(item, dict):
        raise bad_request("the body of the request must be a JSON object")
    _check_identity(resource, item)
    item["metadata"], unknown = metadata.clean(item.get("metadata"))
    _check_namespace(resource, item["metadata"], namespace)
    drop_nulls(item, resource.schema)
    if not resource.custom:
        _check_types(resource, item)
    unknown += prune(item, resource.schema)
    _report_unknown(resource, unknown, options)
    return item


def _check_identity(resource: Resource, item: Object) -> None:
    for field, expected in (("apiVersion", resource.api_version), ("kind", resource.kind)):
        actual = item.get(field)
        if actual in (None, ""):
            if resource.custom:
                where = "Object 'Kind' is missing" if field == "kind" else "Object 'apiVersion' is missing"
                raise bad_request(f"error decoding the body: {where}")
            item[field] = expected
        elif actual != expected:
            raise bad_request(
                f"{item.get('kind')} in version {item.get('apiVersion')!r} cannot be handled as a "
                f"{resource.kind}: the {field} of the data ({actual}) does not match the expected {field} ({expected})"
            )


def _check_namespace(resource: Resource, meta: Object, namespace: str) -> None:
    if not resource.namespaced:
        meta.pop("namespace", None)
    elif meta.setdefault("namespace", namespace) != namespace:
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _check_types(resource: Resource, item: Object) -> None:
    """A typed server cannot even decode a wrong type; other violations come later."""
    for cause in validate(item, resource.schema):
        if cause.reason == "FieldValueTypeInvalid":
            raise bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
                f"json: cannot unmarshal {cause.field}: {cause.message}"
            )


def _report_unknown(resource: Resource, unknown: list[str], options: Options) -> None:
    texts = [f'unknown field "{path}"' for path in sorted(unknown)]
    if not texts or options.field_validation == "Ignore":
        return
    if options.field_validation == "Strict":
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"strict decoding error: {', '.join(texts)}"
        )
    if options.warnings is not None:
        options.warnings.extend(texts)


def complete(resource: Resource, item: Object) -> None:
    """Fill in defaults, in place."""
    fill_defaults(item, resource.schema)
    if not _problems(resource, item):
        kinds.fill(resource, item)


def _problems(resource: Resource, item: Object) -> list[Cause]:
    ignored = ("apiVersion", "kind", "metadata")
    body = {key: value for key, value in item.items() if key not in ignored or not resource.custom}
    schema = dict(resource.schema)
    schema["required"] = [name for name in schema.get("required", ()) if name not in ignored]
    causes = validate(body, schema)
    if resource.custom:
        return causes
    # A typed server fills absent status fields with zero values instead of asking for them.
    return [cause for cause in causes if not (cause.field.startswith("status.") and cause.reason == _REQUIRED)]


def check(resource: Resource, item: Object, extra: list[Cause] | None = None) -> None:
    """Refuse an object that breaks any rule.

    :raises ApiError: 422 with all causes.
    """
    causes = metadata.check(resource, item["metadata"]) + (extra or []) + _problems(resource, item)
    if not causes:
        causes = kinds.check(resource, item)
    if resource.kind == "CustomResourceDefinition" and not causes:
        causes = check_definition(item)
    if causes:
        raise invalid(resource, item["metadata"].get("name", ""), causes)


def invalid(resource: Resource, name: str, causes: list[Cause]) -> ApiError:
    """Return the 422 answer for a list of causes."""
    return invalid_object(resource.kind, resource.group, name, causes)
