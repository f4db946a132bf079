"""JSON merge patch (RFC 7386), JSON patch (RFC 6902) and strategic merge patch."""

from __future__ import annotations

import copy
from typing import Any

from include.local.kube.errors import ApiError, bad_request
from include.local.kube.managed import child_schema
from include.local.kube.schema.notation import Schema


def merge_patch(target: Any, patch: Any) -> Any:
    """Return ``target`` changed by an RFC 7386 patch; neither argument is modified."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def json_patch(target: Any, operations: Any) -> Any:
    """Return ``target`` changed by RFC 6902 operations; neither argument is modified.

    :raises ApiError: 400 for a malformed operation, 422 for one that cannot be carried out.
    """
    if not isinstance(operations, list) or not all(isinstance(item, dict) for item in operations):
        raise bad_request("a JSON patch is an array of operations")
    document = copy.deepcopy(target)
    for operation in operations:
        document = _operate(document, operation)
    return document


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    name, path = operation.get("op"), operation.get("path")
    if name not in ("add", "remove", "replace", "move", "copy", "test") or not isinstance(path, str):
        raise bad_request(f"unknown JSON patch operation: {operation}")
    if name in ("add", "replace", "test") and "value" not in operation:
        raise bad_request(f"JSON patch operation {name} at {path} has no value")
    tokens = _tokens(path)
    if name == "test":
        if not _equal(_get(document, tokens), operation["value"]):
            raise _impossible(f"testing value {path} failed")
        return document
    if name == "remove":
        return _remove(document, tokens)
    if name == "replace":
        _get(document, tokens)
        return _add(_remove(document, tokens) if tokens else document, tokens, operation["value"])
    if name == "add":
        return _add(document, tokens, operation["value"])
    source = _tokens(operation.get("from") or "")
    value = copy.deepcopy(_get(document, source))
    if name == "move":
        if tokens[: len(source)] == source and tokens != source:
            raise _impossible("cannot move a value into itself")
        document = _remove(document, source)
    return _add(document, tokens, value)


def _equal(left: Any, right: Any) -> bool:
    """JSON equality: unlike Python's, ``1`` is not ``true``."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(_equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(_equal, left, right))
    return bool(left == right)


def _tokens(path: str) -> list[str]:
    if not path:
        return []
    if not path.startswith("/"):
        raise bad_request(f"JSON pointer {path!r} does not start with /")
    return [token.replace("~1", "/").replace("~0", "~") for token in path[1:].split("/")]


def _impossible(why: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _index(token: str, limit: int) -> int:
    if not (token.isdigit() and token.isascii()) or (len(token) > 1 and token[0] == "0"):
        raise _impossible(f"{token!r} is not an array index")
    if int(token) > limit:
        raise _impossible(f"array index {token} is out of range")
    return int(token)


def _get(document: Any, tokens: list[str]) -> Any:
    for token in tokens:
        if isinstance(document, list):
            document = document[_index(token, len(document) - 1)]
        elif isinstance(document, dict) and token in document:
            document = document[token]
        else:
            raise _impossible(f"there is no value at {'/'.join(tokens)}")
    return document


def _add(document: Any, tokens: list[str], value: Any) -> Any:
    value = copy.deepcopy(value)
    if not tokens:
        return value
    parent = _get(document, tokens[:-1])
    if isinstance(parent, list):
        at = len(parent) if tokens[-1] == "-" else _index(tokens[-1], len(parent))
        parent.insert(at, value)
    elif isinstance(parent, dict):
        parent[tokens[-1]] = value
    else:
        raise _impossible(f"the parent of {'/'.join(tokens)} is not a container")
    return document


def _remove(document: Any, tokens: list[str]) -> Any:
    if not tokens:
        return None
    _get(document, tokens)
    parent = _get(document, tokens[:-1])
    del parent[int(tokens[-1]) if isinstance(parent, list) else tokens[-1]]
    return document


def strategic_patch(target: Any, patch: Any, schema: Schema) -> Any:
    """Return ``target`` changed by a strategic merge patch; list-map keys come from the schema."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    directive = patch.get("$patch")
    if directive == "replace":
        return {key: copy.deepcopy(value) for key, value in patch.items() if key != "$patch"}
    if directive == "delete":
        return {}
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if key.startswith("$"):
            _directive(result, key, value)
        elif value is None:
            result.pop(key, None)
        else:
            result[key] = _strategic_child(result.get(key), value, child_schema(schema, key))
    return result


def _directive(result: dict[str, Any], key: str, value: Any) -> None:
    if key == "$retainKeys":
        for name in list(result):
            if name not in value:
                del result[name]
    elif key.startswith("$deleteFromPrimitiveList/"):
        name = key.partition("/")[2]
        result[name] = [item for item in result.get(name, []) if item not in value]


def _strategic_child(current: Any, value: Any, schema: Schema) -> Any:
    if isinstance(value, list):
        kind = schema.get("x-kubernetes-list-type")
        if kind == "map":
            return _merge_by_key(current or [], value, schema)
        if kind == "set":
            old = list(current or [])
            return old + [item for item in value if item not in old]
        return copy.deepcopy(value)
    return strategic_patch(current, value, schema)


def _merge_by_key(current: list[Any], patch: list[Any], schema: Schema) -> list[Any]:
    """Merge by the first key, which is the one that strategic merge uses."""
    key = schema["x-kubernetes-list-map-keys"][0]
    items = schema.get("items", {})
    if any(isinstance(entry, dict) and set(entry) == {"$patch"} for entry in patch):
        return [copy.deepcopy(entry) for entry in patch if not (isinstance(entry, dict) and "$patch" in entry)]
    merged = list(current)
    for entry in patch:
        if not isinstance(entry, dict) or key not in entry:
            raise bad_request(f"map: {entry} does not contain declared merge key: {key}")
        found = next((at for at, item in enumerate(merged) if item.get(key) == entry[key]), None)
        if entry.get("$patch") == "delete":
            merged = [item for item in merged if item.get(key) != entry[key]]
        elif found is None:
            merged.append(strategic_patch({}, entry, items))
        else:
            merged[found] = strategic_patch(merged[found], entry, items)
    return merged
