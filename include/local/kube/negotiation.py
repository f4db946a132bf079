"""Bodies in and out: what a client sends and what form of answer it asked for."""

from __future__ import annotations

import json
from typing import Any

import yaml
from aiohttp import web

from include.local.kube import tables
from include.local.kube.errors import ApiError, bad_request, unsupported_media_type
from include.local.kube.reading import Page
from include.local.kube.resources import Resource
from include.local.kube.store import Record, encode

Object = dict[str, Any]
JSON, YAML = "application/json", "application/yaml"
BODY_LIMIT = 3 * 1024 * 1024


async def read_body(request: web.Request) -> bytes:
    """Return the body.

    :raises ApiError: 413 above the limit of 3 MiB.
    """
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            message = f"Request entity too large: limit is {BODY_LIMIT}"
            raise ApiError(413, "RequestEntityTooLarge", message)
    return bytes(body)


async def read_object(request: web.Request) -> Any:
    """Return the decoded body, ``None`` when it is empty.

    :raises ApiError: 415 for anything but JSON and YAML (protobuf, for instance), 400 when it does not parse.
    """
    body = await read_body(request)
    if not body.strip():
        return None
    sent = request.headers.get("Content-Type", JSON).partition(";")[0].strip().lower()
    if sent not in (JSON, YAML, "application/merge-patch+json"):
        raise unsupported_media_type((JSON, YAML))
    try:
        return yaml.safe_load(body) if sent == YAML else json.loads(body)
    except (ValueError, yaml.YAMLError, RecursionError) as error:
        raise bad_request(f"couldn't decode the body of the request: {error}") from None


def check_accept(request: web.Request) -> None:
    """Refuse a client that accepts neither JSON nor anything.

    :raises ApiError: 406.
    """
    accept = request.headers.get("Accept", "*/*")
    if not any(word in accept for word in ("json", "*/*", "application/*", "yaml")):
        message = "only the following media types are accepted: application/json"
        raise ApiError(406, "NotAcceptable", message)


def answer(item: Object, status: int = 200, warnings: list[str] | None = None) -> web.Response:
    """Return a JSON answer with ``Warning`` headers."""
    response = web.Response(body=encode(item), status=status, content_type=JSON)
    for text in warnings or ():
        escaped = text.replace("\\", "\\\\").replace('"', '\\"')
        response.headers.add("Warning", f'299 - "{escaped}"')
    return response


def failure(error: ApiError) -> web.Response:
    """Return the answer of a refusal."""
    response = answer(error.status(), error.code)
    response.headers.update(error.headers)
    return response


def wants_table(request: web.Request) -> bool:
    """Return whether the client prefers a Table."""
    return tables.MEDIA_TYPE in request.headers.get("Accept", "").partition(",")[0]


def one(request: web.Request, resource: Resource, record: Record) -> web.Response:
    """Return one object, as a table when asked for."""
    if wants_table(request):
        item = record.object
        include = request.query.get("includeObject", "Metadata")
        meta = {"resourceVersion": item["metadata"]["resourceVersion"]}
        return answer(tables.table(resource, [item], meta, include=include))
    return web.Response(body=record.data, content_type=JSON)


def listing(request: web.Request, resource: Resource, page: Page) -> web.Response:
    """Return a list, as a table when asked for."""
    meta: Object = {"resourceVersion": str(page.version)}
    if page.proceed:
        meta |= {"continue": page.proceed, "remainingItemCount": page.remaining}
    if wants_table(request):
        items = [record.object for record in page.records]
        include = request.query.get("includeObject", "Metadata")
        return answer(tables.table(resource, items, meta, include=include))
    head = {"kind": resource.list_kind, "apiVersion": resource.api_version, "metadata": meta}
    body = encode(head)[:-1] + b',"items":[' + b",".join(record.data for record in page.records) + b"]}"
    return web.Response(body=body, content_type=JSON)
