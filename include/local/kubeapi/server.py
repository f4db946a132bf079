"""The HTTP face: discovery, verbs, watch, logs and proxy."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
from aiohttp import web

from include.local.kubeapi import patch as patches
from include.local.kubeapi.kinds import Kind
from include.local.kubeapi.rbac import allowed
from include.local.kubeapi.schema import admit
from include.local.kubeapi.selectors import matches
from include.local.kubeapi.store import ApiFault, Change, Store

BOOKMARK_SECONDS = 15
HOP = {"connection", "transfer-encoding", "content-length", "host", "authorization", "keep-alive"}


@dataclass
class Server:
    """The API server.

    :param users: bearer token to (user name, groups).
    """

    store: Store
    users: dict[str, tuple[str, tuple[str, ...]]]
    http: aiohttp.ClientSession | None = None
    faults: list[dict[str, Any]] = field(default_factory=list)

    def application(self) -> web.Application:
        """Return the aiohttp application."""
        app = web.Application(middlewares=[self._guard], client_max_size=16 << 20)
        for path in ("/healthz", "/readyz", "/livez"):
            app.router.add_get(path, _ok)
        app.router.add_get("/version", _version)
        app.router.add_put("/_local/faults", self.set_faults)
        app.router.add_post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", self.review)
        app.router.add_get("/api", self.core_versions)
        app.router.add_get("/apis", self.groups)
        app.router.add_get("/api/v1", self.resources)
        app.router.add_get("/apis/{group}/{version}", self.resources)
        for base in ("/api/{version:v1}", "/apis/{group}/{version}"):
            for where in ("/namespaces/{namespace}", ""):  # the first match wins
                app.router.add_route("*", f"{base}{where}/{{plural}}", self.collection)
                app.router.add_route("*", f"{base}{where}/{{plural}}/{{name}}", self.item)
                app.router.add_route("*", f"{base}{where}/{{plural}}/{{name}}/{{sub}}", self.item)
                app.router.add_route("*", f"{base}{where}/{{plural}}/{{name}}/proxy/{{tail:.*}}", self.proxy)
        app.cleanup_ctx.append(self._client)
        return app

    async def _client(self, _: web.Application) -> AsyncIterator[None]:
        self.http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True, limit=0))
        yield
        await self.http.close()

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            if not request.path.startswith(("/healthz", "/readyz", "/livez", "/version")):
                request["user"] = self._authenticate(request)
                injected = await self._inject(request)
                if injected is not None:
                    return injected
            return await handler(request)
        except ApiFault as fault:
            return _status(fault)
        except json.JSONDecodeError as error:
            return _status(ApiFault(400, "BadRequest", f"the body is not JSON: {error}"))
        except web.HTTPException as error:
            return _status(ApiFault(error.status, error.reason or "Error", f"{request.method} {request.path}"))

    def _authenticate(self, request: web.Request) -> tuple[str, tuple[str, ...]]:
        token = request.headers.get("Authorization", "").removeprefix("Bearer ").strip()
        if not token:
            # kubectl sends no credentials over plain HTTP; who reaches loopback owns this machine.
            return "local-admin", ("system:masters", "system:authenticated")
        if token not in self.users:
            raise ApiFault(401, "Unauthorized", "Unauthorized")
        return self.users[token]

    async def _inject(self, request: web.Request) -> web.StreamResponse | None:
        for fault in self.faults:
            if fault.get("path", "") not in request.path or fault.get("method", request.method) != request.method:
                continue
            if fault["times"] <= 0 or request.path.startswith("/_local"):
                continue
            fault["times"] -= 1
            kind = fault["kind"]
            if kind == "reset" and request.transport is not None:
                request.transport.abort()
            if kind in ("reset", "timeout"):
                await asyncio.sleep(float(fault.get("seconds", 60)))
            code = int(fault.get("code", 500))
            headers = {"Retry-After": "1"} if code == 429 else {}
            return _status(ApiFault(code, "InjectedFault", f"injected {kind} {code}"), headers)
        return None

    async def set_faults(self, request: web.Request) -> web.Response:
        """Replace the injected wire faults: ``[{"kind": status|reset|timeout, "path", "method", "code", "times"}]``."""
        self.faults = list(await request.json())
        return web.json_response({"faults": len(self.faults)})

    async def core_versions(self, _: web.Request) -> web.Response:
        """``/api``."""
        return web.json_response({"kind": "APIVersions", "versions": ["v1"]})

    async def groups(self, _: web.Request) -> web.Response:
        """``/apis``."""
        names = sorted({(kind.group, kind.version) for kind in self.store.kinds.values() if kind.group})
        names.append(("authorization.k8s.io", "v1"))
        groups: dict[str, list[dict[str, str]]] = {}
        for group, version in names:
            groups.setdefault(group, []).append({"groupVersion": f"{group}/{version}", "version": version})
        listed = [{"name": name, "versions": found, "preferredVersion": found[0]} for name, found in groups.items()]
        return web.json_response({"kind": "APIGroupList", "apiVersion": "v1", "groups": listed})

    async def resources(self, request: web.Request) -> web.Response:
        """``/api/v1`` and ``/apis/<group>/<version>``."""
        group, version = request.match_info.get("group", ""), request.match_info.get("version", "v1")
        found = [k for k in self.store.kinds.values() if (k.group, k.version) == (group, version)]
        if not found and group != "authorization.k8s.io":
            raise ApiFault(404, "NotFound", "the server could not find the requested resource")
        verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
        listed: list[dict[str, Any]] = []
        for kind in found:
            entry = {"name": kind.plural, "singularName": kind.kind.lower(), "namespaced": kind.namespaced}
            listed.append({**entry, "kind": kind.kind, "verbs": verbs})
            if kind.status:
                sub = {**entry, "name": f"{kind.plural}/status", "kind": kind.kind}
                listed.append({**sub, "verbs": ["get", "patch", "update"]})
        name = f"{group}/{version}" if group else version
        return web.json_response(
            {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": name, "resources": listed}
        )

    async def review(self, request: web.Request) -> web.Response:
        """SelfSubjectAccessReview."""
        body = await request.json()
        asked = body["spec"].get("resourceAttributes") or {}
        resource = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        attributes = {
            "group": asked.get("group", ""), "resource": resource, "namespace": asked.get("namespace", ""),
            "name": asked.get("name", ""),
        }  # fmt: skip
        user, groups = request["user"]
        answer = allowed(self.store, user, groups, asked.get("verb", ""), attributes)
        body["status"] = {"allowed": answer}
        return web.json_response(body, status=201)

    async def collection(self, request: web.Request) -> web.StreamResponse:
        """List, watch, create, delete a collection."""
        kind, namespace = self._kind(request), request.match_info.get("namespace")
        watching = request.query.get("watch") in ("1", "true")
        verb = {"GET": "watch" if watching else "list", "POST": "create", "DELETE": "deletecollection"}.get(
            request.method
        )
        self._authorise(request, kind, verb or "?", "", "")
        if request.method == "GET":
            return await self._watch(request, kind, namespace) if watching else self._list(request, kind, namespace)
        if request.method == "POST":
            item = await request.json()
            self._check_identity(kind, item)
            warnings = admit(kind, item, request.query.get("fieldValidation", "Warn"))
            dry = request.query.get("dryRun") == "All"
            made = await self.store.create(kind, namespace or "", item, dry_run=dry)
            return web.json_response(made, status=201, headers=_warnings(warnings))
        if request.method == "DELETE":
            for item in self._selected(request, kind, namespace):
                meta = item["metadata"]
                await self.store.delete(kind, meta.get("namespace", ""), meta["name"], {})
            return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Success"})
        raise ApiFault(405, "MethodNotAllowed", request.method)

    async def item(self, request: web.Request) -> web.StreamResponse:
        """Get, replace, patch, delete one object or a subresource of it."""
        kind, namespace, name = self._kind(request), request.match_info.get("namespace", ""), request.match_info["name"]
        sub = request.match_info.get("sub", "")
        if kind.kind == "Namespace" and sub and sub not in ("status", "finalize"):
            raise ApiFault(404, "NotFound", request.path)
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}.get(request.method, "create")
        self._authorise(request, kind, verb, sub, name)
        if sub == "log":
            return await self._logs(request, namespace, name)
        if sub == "proxy":
            return await self.proxy(request)
        if sub not in ("", "status", "scale"):
            raise ApiFault(404, "NotFound", f"subresource {sub} is not served")
        if request.method == "GET":
            return web.json_response(_view(kind, self.store.get(kind, namespace, name), sub))
        if request.method == "DELETE":
            options = await request.json() if request.can_read_body else {}
            gone = await self.store.delete(kind, namespace, name, options)
            return web.json_response(gone if kind.echo_on_delete or kind.schema else _success(kind, gone))
        return await self._change(request, kind, namespace, name, sub)

    async def _change(self, request: web.Request, kind: Kind, namespace: str, name: str, sub: str) -> web.Response:
        content = request.content_type
        body = await request.json() if "yaml" not in content and "apply" not in content else await _yaml(request)
        if (
            request.method == "PATCH"
            and "apply" in content
            and (kind.resource, namespace, name) not in self.store.objects
        ):
            admit(kind, body, request.query.get("fieldValidation", "Warn"))
            return web.json_response(await self.store.create(kind, namespace, body), status=201)
        old = self.store.get(kind, namespace, name)
        if request.method == "PATCH":
            body = _patched(_view(kind, old, sub), body, content, custom=kind.schema is not None)
        if sub == "scale":
            body = patches.merge(old, {"spec": {"replicas": body["spec"]["replicas"]}})
        warnings = admit(kind, body, request.query.get("fieldValidation", "Warn"))
        dry = request.query.get("dryRun") == "All"
        target = "" if sub == "scale" else sub
        new = await self.store.replace(kind, namespace, name, body, subresource=target, dry_run=dry)
        return web.json_response(_view(kind, new, sub), headers=_warnings(warnings))

    def _list(self, request: web.Request, kind: Kind, namespace: str | None) -> web.Response:
        found = self._selected(request, kind, namespace)
        meta: dict[str, Any] = {"resourceVersion": str(self.store.version)}
        limit = int(request.query.get("limit") or 0)
        start = int(request.query.get("continue") or 0)
        if limit and start + limit < len(found):
            meta |= {"continue": str(start + limit), "remainingItemCount": len(found) - start - limit}
        items = found[start : start + limit] if limit else found
        listed = {"kind": f"{kind.kind}List", "apiVersion": kind.api_version, "metadata": meta, "items": items}
        return web.json_response(listed)

    def _selected(self, request: web.Request, kind: Kind, namespace: str | None) -> list[dict[str, Any]]:
        return [item for item in self.store.items(kind, namespace) if matches(item, request.query)]

    async def _watch(self, request: web.Request, kind: Kind, namespace: str | None) -> web.StreamResponse:
        asked = request.query.get("resourceVersion") or "0"
        initial = asked == "0" or request.query.get("sendInitialEvents") == "true"
        since = self.store.version if initial else int(asked)
        if not initial and since < self.store.oldest:
            raise ApiFault(410, "Expired", f"too old resource version: {since} ({self.store.oldest})")
        reply = web.StreamResponse(headers={"Content-Type": "application/json"})
        await reply.prepare(request)
        loop = asyncio.get_running_loop()
        ends = loop.time() + float(request.query.get("timeoutSeconds") or 1800)
        if initial:
            for item in self._selected(request, kind, namespace):
                await _send(reply, "ADDED", item)
        marks = request.query.get("allowWatchBookmarks") in ("1", "true")
        if marks and request.query.get("sendInitialEvents") == "true":
            await _bookmark(reply, kind, since, initial=True)
        while loop.time() < ends:
            if since < self.store.oldest:
                await _send(reply, "ERROR", _status_body(ApiFault(410, "Expired", "too old resource version")))
                break
            for change in [item for item in self.store.history if item.version > since]:
                since = change.version
                event = _event(change, kind, namespace, request.query)
                if event is not None:
                    await _send(reply, *event)
            try:
                async with self.store.changed:
                    if self.store.version <= since or not self._newer(since):
                        patience = min(BOOKMARK_SECONDS, max(0.01, ends - loop.time()))
                        await asyncio.wait_for(self.store.changed.wait(), patience)
            except TimeoutError:
                since = max(since, self.store.version)
                if marks:
                    await _bookmark(reply, kind, since)
        await reply.write_eof()
        return reply

    def _newer(self, since: int) -> bool:
        return bool(self.store.history) and self.store.history[-1].version > since

    def _kind(self, request: web.Request) -> Kind:
        info = request.match_info
        key = (info.get("group", ""), info.get("version", "v1"), info["plural"])
        if key not in self.store.kinds:
            raise ApiFault(404, "NotFound", "the server could not find the requested resource")
        return self.store.kinds[key]

    def _authorise(self, request: web.Request, kind: Kind, verb: str, sub: str, name: str) -> None:
        user, groups = request["user"]
        resource = f"{kind.plural}/{sub}" if sub else kind.plural
        namespace = request.match_info.get("namespace", "")
        attributes = {"group": kind.group, "resource": resource, "namespace": namespace, "name": name}
        if not allowed(self.store, user, groups, verb, attributes):
            where = f' in the namespace "{namespace}"' if namespace else " at the cluster scope"
            said = f'{kind.resource} "{name}" is forbidden: User "{user}" cannot {verb} resource "{resource}"'
            said += f' in API group "{kind.group}"{where}'
            raise ApiFault(403, "Forbidden", said, {"name": name, "group": kind.group, "kind": kind.plural})

    def _check_identity(self, kind: Kind, item: Any) -> None:
        if not isinstance(item, dict) or item.get("kind", kind.kind) != kind.kind:
            raise ApiFault(400, "BadRequest", f"expected kind {kind.kind}")
        if item.get("apiVersion", kind.api_version) != kind.api_version:
            raise ApiFault(400, "BadRequest", f"expected apiVersion {kind.api_version}")

    async def _logs(self, request: web.Request, namespace: str, name: str) -> web.StreamResponse:
        pod = self.store.get(self.store.kinds[("", "v1", "pods")], namespace, name)
        node = self.store.get(self.store.kinds[("", "v1", "nodes")], "", pod["spec"].get("nodeName", ""))
        status = node["status"]
        host = next(a["address"] for a in status["addresses"] if a["type"] == "InternalIP")
        port = status["daemonEndpoints"]["kubeletEndpoint"]["Port"]
        container = request.query.get("container") or pod["spec"]["containers"][0]["name"]
        url = f"http://{host}:{port}/containerLogs/{namespace}/{name}/{container}"
        return await self._relay(request, url, dict(request.query))

    async def proxy(self, request: web.Request) -> web.StreamResponse:
        """Forward to a pod or a service, unbuffered."""
        kind, namespace = self._kind(request), request.match_info.get("namespace", "")
        self._authorise(
            request, kind, {"GET": "get"}.get(request.method, "create"), "proxy", request.match_info["name"]
        )
        name, _, port = request.match_info["name"].partition(":")
        address = (
            self._pod_address(namespace, name, port) if kind.kind == "Pod" else self._service(namespace, name, port)
        )
        url = f"http://{address}/{request.match_info.get('tail', '')}"
        return await self._relay(request, url, dict(request.query))

    def _pod_address(self, namespace: str, name: str, port: str) -> str:
        pod = self.store.get(self.store.kinds[("", "v1", "pods")], namespace, name)
        ports = [str(p["containerPort"]) for c in pod["spec"]["containers"] for p in c.get("ports") or ()]
        port = port or (ports[0] if ports else "80")
        mapped = (pod["metadata"].get("annotations") or {}).get(f"hyperpod-local/port.{port}", port)
        return f"{pod['status'].get('podIP', '127.0.0.1')}:{mapped}"

    def _service(self, namespace: str, name: str, port: str) -> str:
        found = self.store.get(self.store.kinds[("", "v1", "endpoints")], namespace, name)
        for subset in found.get("subsets") or ():
            if subset.get("addresses"):
                ports = subset["ports"]
                chosen = next((p for p in ports if port in (p.get("name"), str(p["port"]))), ports[0])
                return f"{subset['addresses'][0]['ip']}:{chosen['port']}"
        raise ApiFault(503, "ServiceUnavailable", f'no endpoints available for service "{name}"')

    async def _relay(self, request: web.Request, url: str, query: dict[str, str]) -> web.StreamResponse:
        assert self.http is not None  # noqa: S101 (set before the first request)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in HOP}
        timeout = aiohttp.ClientTimeout(total=None, connect=5)
        try:
            async with self.http.request(
                request.method, url, params=query, data=await request.read(), headers=headers, timeout=timeout
            ) as answer:
                kept = {k: v for k, v in answer.headers.items() if k.lower() not in HOP}
                reply = web.StreamResponse(status=answer.status, headers=kept)
                await reply.prepare(request)
                async for chunk in answer.content.iter_any():
                    await reply.write(chunk)
                await reply.write_eof()
                return reply
        except aiohttp.ClientError as error:
            raise ApiFault(503, "ServiceUnavailable", f"error trying to reach {url}: {error}") from error


async def _ok(_: web.Request) -> web.Response:
    return web.Response(text="ok")


async def _version(_: web.Request) -> web.Response:
    return web.json_response({"major": "1", "minor": "36", "gitVersion": "v1.36.0-local", "platform": "local"})


async def _yaml(request: web.Request) -> Any:
    import yaml

    return yaml.safe_load(await request.text())


def _patched(old: dict[str, Any], body: Any, content: str, *, custom: bool) -> Any:
    if "json-patch" in content:
        return patches.json_patch(old, body)
    if "strategic" in content and not custom:
        return patches.strategic(old, body)
    if "strategic" in content:
        raise ApiFault(415, "UnsupportedMediaType", "strategic merge patch is not supported for custom resources")
    if "apply" in content:
        return patches.strategic(old, body) if not custom else patches.merge(old, body)
    if "merge-patch" in content:
        return patches.merge(old, body)
    raise ApiFault(415, "UnsupportedMediaType", f"{content} is not supported")


def _view(kind: Kind, item: dict[str, Any], sub: str) -> dict[str, Any]:
    if sub != "scale":
        return copy.deepcopy(item)
    meta = {key: item["metadata"].get(key) for key in ("name", "namespace", "uid", "resourceVersion")}
    replicas = item.get("spec", {}).get("replicas", 1)
    status = {"replicas": item.get("status", {}).get("replicas", 0)}
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": meta,
        "spec": {"replicas": replicas},
        "status": status,
    }


def _event(change: Change, kind: Kind, namespace: str | None, query: Any) -> tuple[str, dict[str, Any]] | None:
    if change.resource != kind.resource:
        return None
    if namespace is not None and change.object["metadata"].get("namespace", "") != namespace:
        return None
    after = change.type != "DELETED" and matches(change.object, query)
    before = change.before is not None and matches(change.before, query)
    if after:
        return ("MODIFIED" if before else "ADDED"), change.object
    return ("DELETED", change.object) if before else None


async def _send(reply: web.StreamResponse, kind: str, item: dict[str, Any]) -> None:
    await reply.write(json.dumps({"type": kind, "object": item}).encode() + b"\n")


async def _bookmark(reply: web.StreamResponse, kind: Kind, version: int, *, initial: bool = False) -> None:
    meta: dict[str, Any] = {"resourceVersion": str(version)}
    if initial:
        meta["annotations"] = {"k8s.io/initial-events-end": "true"}
    await _send(reply, "BOOKMARK", {"kind": kind.kind, "apiVersion": kind.api_version, "metadata": meta})


def _status_body(fault: ApiFault) -> dict[str, Any]:
    body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": fault.message}
    return {**body, "reason": fault.reason, "details": fault.details or {}, "code": fault.code}


def _status(fault: ApiFault, headers: dict[str, str] | None = None) -> web.Response:
    return web.json_response(_status_body(fault), status=fault.code, headers=headers or {})


def _success(kind: Kind, gone: dict[str, Any]) -> dict[str, Any]:
    meta = gone["metadata"]
    details = {"name": meta["name"], "group": kind.group, "kind": kind.plural, "uid": meta["uid"]}
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def _warnings(warnings: list[str]) -> dict[str, str]:
    return {"Warning": ", ".join(f'299 - "{text}"' for text in warnings)} if warnings else {}
