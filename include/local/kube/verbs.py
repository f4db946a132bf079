"""The verbs over HTTP: one handler for collections, one for objects, one for their subresources."""

from __future__ import annotations

from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from include.local.kube import proxy, scale, watching
from include.local.kube.admission import FIELD_VALIDATIONS, Options
from include.local.kube.cluster import Cluster
from include.local.kube.deleting import answer as delete_answer
from include.local.kube.deleting import delete, options_of
from include.local.kube.errors import ApiError, bad_request, method_not_allowed, no_such_path
from include.local.kube.negotiation import answer, listing, one, read_body, read_object
from include.local.kube.patches import APPLY, Patcher
from include.local.kube.patches import parse as parse_patch
from include.local.kube.paths import Target, flag
from include.local.kube.reading import filter_of, list_page
from include.local.kube.resources import Resource
from include.local.kube.store import Record
from include.local.kube.writing import Writer

Object = dict[str, Any]


def options(request: web.Request, *, patching: bool = False) -> Options:
    """Read the options of a write.

    :raises ApiError: 400 for an unknown ``fieldValidation`` or ``dryRun``.
    """
    query = request.query
    validation = query.get("fieldValidation") or "Warn"
    if validation not in FIELD_VALIDATIONS:
        raise bad_request(f'fieldValidation: Unsupported value: "{validation}"')
    dry_run = query.get("dryRun", "")
    if dry_run not in ("", "All"):
        raise bad_request(f'dryRun: Unsupported value: "{dry_run}": supported values: "All"')
    manager = query.get("fieldManager", "")
    if not manager:
        if patching and request.content_type == APPLY:
            raise bad_request("fieldManager is required for apply patch")
        manager = request.headers.get("User-Agent", "unknown").partition("/")[0]
    force = flag(query, "force")
    return Options(
        dry_run=dry_run == "All",
        field_validation=validation,
        manager=manager,
        force=force,
        warnings=[],
    )


class Verbs:
    """Handlers that need the cluster, and a client for what is passed on."""

    def __init__(self, cluster: Cluster, session: aiohttp.ClientSession) -> None:
        self._cluster = cluster
        self._session = session

    async def handle(self, request: web.Request, target: Target) -> web.StreamResponse:
        """Carry out an authorized resource request."""
        resource = self._cluster.registry.find(target.group, target.version, target.plural)
        if resource.kind == "Namespace":
            target = Target(target.group, target.version, target.plural, "", target.name, target.subresource)
        if target.namespace and not resource.namespaced:
            raise no_such_path()
        if target.subresource:
            return await self._subresource(request, resource, target)
        if not target.name:
            return await self._collection(request, resource, target)
        return await self._object(request, resource, target)

    async def _collection(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        if request.method == "GET":
            if flag(request.query, "watch"):
                return await self._watch(request, resource, target)
            wanted = filter_of(resource, target.namespace, "", request.query)
            return listing(request, resource, list_page(self._cluster, resource, wanted, request.query))
        if request.method == "POST":
            if resource.namespaced and not target.namespace:
                raise method_not_allowed()
            chosen = options(request)
            body = await read_object(request)
            writer = Writer(self._cluster, chosen.manager, chosen)
            record = writer.create(resource, target.namespace, body)
            return answer(record.object, 201, chosen.warnings)
        if request.method == "DELETE":
            return await self._delete_collection(request, resource, target)
        raise method_not_allowed()

    async def _delete_collection(self, request: web.Request, resource: Resource, target: Target) -> web.Response:
        chosen = options_of(await read_object(request), dict(request.query))
        wanted = filter_of(resource, target.namespace, "", request.query)
        page = list_page(self._cluster, resource, wanted, {})
        records = [delete(self._cluster, resource, record, chosen)[1] for record in page.records]
        version = self._cluster.store.revision
        head = {"kind": resource.list_kind, "apiVersion": resource.api_version}
        items = [record.object for record in records]
        return answer(head | {"metadata": {"resourceVersion": str(version)}, "items": items})

    async def _object(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        if request.method == "GET" and flag(request.query, "watch"):
            return await self._watch(request, resource, target)
        if request.method in ("GET", "HEAD"):
            return one(request, resource, self._current(resource, target))
        if request.method == "PUT":
            return await self._put(request, resource, target, "")
        if request.method == "PATCH":
            return await self._patch(request, resource, target, "")
        if request.method == "DELETE":
            chosen = options_of(await read_object(request), dict(request.query))
            gone, record = delete(self._cluster, resource, self._current(resource, target), chosen)
            return answer(delete_answer(resource, gone, record))
        raise method_not_allowed()

    def _current(self, resource: Resource, target: Target) -> Record:
        return Writer(self._cluster, "").current(resource, target.namespace, target.name)

    async def _put(self, request: web.Request, resource: Resource, target: Target, subresource: str) -> web.Response:
        chosen = options(request)
        body = await read_object(request)
        writer = Writer(self._cluster, chosen.manager, chosen)
        record = writer.update(resource, target.namespace, target.name, body, subresource=subresource)
        return answer(record.object, 200, chosen.warnings)

    async def _patch(self, request: web.Request, resource: Resource, target: Target, subresource: str) -> web.Response:
        chosen = options(request, patching=True)
        body = parse_patch(request.content_type, await read_body(request))
        key = (target.namespace, target.name)
        patcher = Patcher(self._cluster, chosen)
        created, record = patcher.patch(resource, key, request.content_type, body, subresource)
        return answer(record.object, 201 if created else 200, chosen.warnings)

    async def _watch(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        wanted = filter_of(resource, target.namespace, target.name, request.query)
        watch = watching.Watch(self._cluster, resource, wanted, request.query)
        request["watch"] = watch
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        try:
            await response.prepare(request)
            async for text in watch.lines():
                await response.write(text)
            await response.write_eof()
        except (ConnectionError, aiohttp.ClientError):
            pass  # the client has gone: nobody is left to tell
        finally:
            watch.close()
        return response

    async def _subresource(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        name = target.subresource
        if name == "proxy" and resource.key in ("/pods", "/services"):
            return await self._proxy(request, resource, target)
        if name == "log" and resource.key == "/pods" and request.method == "GET":
            url = proxy.log_url(self._cluster, self._current(resource, target).object, request.query)
            return await proxy.forward(request, self._session, url)
        if name in ("binding", "eviction") and resource.key == "/pods" and request.method == "POST":
            return await self._pod_action(request, resource, target)
        if name == "scale":
            return await self._scale(request, resource, target)
        if name != "status" or not resource.status:
            raise no_such_path()
        if request.method == "GET":
            return one(request, resource, self._current(resource, target))
        if request.method == "PUT":
            return await self._put(request, resource, target, name)
        if request.method == "PATCH":
            return await self._patch(request, resource, target, name)
        raise method_not_allowed()

    async def _scale(self, request: web.Request, resource: Resource, target: Target) -> web.Response:
        record = self._current(resource, target)
        current = scale.read(resource, record.object)
        if request.method == "GET":
            return answer(current)
        chosen = options(request, patching=request.method == "PATCH")
        if request.method == "PUT":
            wanted = await read_object(request)
        elif request.method == "PATCH":
            wanted = _patched_scale(current, request.content_type, await read_body(request))
        else:
            raise method_not_allowed()
        item = scale.write(resource, record.object, wanted)
        writer = Writer(self._cluster, chosen.manager, chosen)
        return answer(scale.read(resource, writer.replace(resource, record, item).object))

    async def _pod_action(self, request: web.Request, resource: Resource, target: Target) -> web.Response:
        body = await read_object(request) or {}
        record = self._current(resource, target)
        if target.subresource == "eviction":
            delete(self._cluster, resource, record, options_of(body.get("deleteOptions"), {}))
        else:
            node = (body.get("target") or {}).get("name")
            if not node or record.object["spec"].get("nodeName"):
                message = f"pod {target.name} is already assigned to a node, or the binding names none"
                raise ApiError(409, "Conflict", message)
            spec = {**record.object["spec"], "nodeName": node}
            item = {**record.object, "metadata": dict(record.object["metadata"]), "spec": spec}
            Writer(self._cluster, "scheduler").replace(resource, record, item)
        return answer({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}, 201)

    async def _proxy(self, request: web.Request, resource: Resource, target: Target) -> web.StreamResponse:
        scheme, name, port = proxy.split_name(target.name)
        found = self._current(resource, Target("", "v1", target.plural, target.namespace, name)).object
        if resource.key == "/pods":
            base = proxy.pod_base(found, port)
        else:
            base = proxy.service_base(self._cluster, found, port)
        url = URL(f"{scheme}://{base}{target.rest or '/'}", encoded=True)
        if request.query_string:
            url = URL(f"{url}?{request.rel_url.raw_query_string}", encoded=True)
        return await proxy.forward(request, self._session, url)


def _patched_scale(current: Object, content_type: str, body: bytes) -> Any:
    from include.local.kube.patching import json_patch, merge_patch

    patch = parse_patch(content_type, body)
    return json_patch(current, patch) if isinstance(patch, list) else merge_patch(current, patch)
