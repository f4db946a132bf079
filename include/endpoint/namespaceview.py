"""A live copy of one namespace, kept by one watch per resource and shared by every endpoint that waits in it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

from include.endpoint import names
from include.endpoint.asyncconnection import AsyncConnection, GoneError, RefusedError
from include.endpoint.kubeerrors import RBAC_FILE
from include.endpoint.model import EndpointRef
from include.endpoint.resources import (
    DEPLOYMENTS,
    ENDPOINT_CONFIGS,
    ENDPOINT_KINDS,
    EVENTS,
    JUMPSTART_MODELS,
    PODS,
    REGISTRATIONS,
    Resource,
)
from include.endpoint.snapshot import Snapshot
from include.errors import ConfigurationError, PipelineError

if TYPE_CHECKING:
    from include.endpoint.clients import Clients

log = logging.getLogger(__name__)

WATCHED = (ENDPOINT_CONFIGS, JUMPSTART_MODELS, DEPLOYMENTS, PODS, EVENTS, REGISTRATIONS)
ABSENT_RETRY_S = 60.0
MOST_BACKOFF_S = 5.0
Key = tuple[asyncio.AbstractEventLoop, str, str]


class NamespaceView:
    """The objects of one namespace as last seen, and who waits for which endpoint.

    A lost connection is taken up again where it stopped; a version that has become too old is listed afresh. What
    changed in between is noticed either way.
    """

    def __init__(self, clients: Clients, namespace: str) -> None:
        self.namespace = namespace
        self.users = 0
        self.relists = 0
        self._connection = AsyncConnection(clients)
        self._objects: dict[Resource, dict[str, dict[str, Any]]] = {resource: {} for resource in WATCHED}
        self._by_endpoint: dict[Resource, dict[str, set[str]]] = {PODS: defaultdict(set), EVENTS: defaultdict(set)}
        self._waiting: dict[str, set[asyncio.Event]] = defaultdict(set)
        self._synced = {resource: asyncio.Event() for resource in WATCHED}
        self._failures: dict[Resource, PipelineError] = {}
        self._tasks = [asyncio.create_task(self._follow(resource)) for resource in WATCHED]

    def renew(self, clients: Clients) -> None:
        """Use newer credentials from now on."""
        self._connection.source = clients.kube.configuration

    async def close(self) -> None:
        """End the watches."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    async def synced(self, timeout_s: float) -> None:
        """Wait until every resource was listed once.

        :raises PipelineError: when the API refuses one, or does not answer in time.
        """
        waits = [asyncio.create_task(event.wait()) for event in self._synced.values()]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*waits)
        except TimeoutError:
            self.raise_failure()
            missing = [resource.plural for resource, event in self._synced.items() if not event.is_set()]
            raise PipelineError(
                "KubernetesUnreachable",
                f"the Kubernetes API has not listed {', '.join(missing)} within {timeout_s:.0f} s",
                fix="check the network path to the cluster's API",
            ) from None
        finally:
            for wait in waits:
                wait.cancel()
        self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what the API refused for good, if anything."""
        for failure in self._failures.values():
            raise failure

    @contextlib.contextmanager
    def subscribed(self, endpoint: str) -> Any:
        """Yield an event that is set whenever an object of the endpoint changes."""
        event = asyncio.Event()
        self._waiting[endpoint].add(event)
        try:
            yield event
        finally:
            self._waiting[endpoint].discard(event)
            if not self._waiting[endpoint]:
                del self._waiting[endpoint]

    def snapshot(self, ref: EndpointRef) -> Snapshot:
        """Return the endpoint's objects as last seen."""
        kind = ENDPOINT_KINDS[ref.kind]
        found = (self._objects[DEPLOYMENTS].get(name) for name in names.workload_names(ref.name))
        return Snapshot(
            resource=self._objects[kind].get(ref.name),
            deployments=tuple(item for item in found if item is not None),
            pods=tuple(self._of(PODS, ref.name)),
            events=tuple(self._of(EVENTS, ref.name)),
            registration=self._objects[REGISTRATIONS].get(ref.sagemaker_endpoint or ref.name),
        )

    def _of(self, resource: Resource, endpoint: str) -> Iterable[dict[str, Any]]:
        objects = self._objects[resource]
        return [objects[name] for name in self._by_endpoint[resource].get(endpoint, ()) if name in objects]

    async def _follow(self, resource: Resource) -> None:
        failures = 0
        version = ""
        while True:
            try:
                if not version:
                    version = await self._relist(resource)
                failures = 0
                version = await self._stream(resource, version)
            except asyncio.CancelledError:
                raise
            except GoneError:
                version = ""
            except RefusedError as error:
                version = ""
                failures += 1
                await self._refused(resource, error, failures)
            except Exception as error:  # noqa: BLE001 (whatever the network does, the watch goes on)
                failures += 1
                log.debug("watch of %s in %s: %r", resource.plural, self.namespace, error)
                await asyncio.sleep(_backoff(failures))

    async def _refused(self, resource: Resource, error: RefusedError, failures: int) -> None:
        if error.status == 404:
            # Not installed: nothing of it can exist.
            self._synced[resource].set()
            await asyncio.sleep(ABSENT_RETRY_S)
            return
        if error.status == 403:
            self._failures[resource] = ConfigurationError(
                "AccessDenied",
                f"watching {resource.plural} in {self.namespace}: {error.message}",
                fix=f"bind this identity to the role in {RBAC_FILE}",
            )
            self._synced[resource].set()
            self._notify_all()
        await asyncio.sleep(_backoff(failures))

    async def _relist(self, resource: Resource) -> str:
        items, version = await self._connection.collection(resource, self.namespace)
        self.relists += 1
        fresh = {str(item["metadata"]["name"]): item for item in items}
        old = self._objects[resource]
        for name in old.keys() - fresh.keys():
            self._remove(resource, old[name])
        for item in items:
            self._put(resource, item)
        self._failures.pop(resource, None)
        self._synced[resource].set()
        return version

    async def _stream(self, resource: Resource, version: str) -> str:
        async for kind, item in self._connection.watch(resource, self.namespace, version):
            version = str(item["metadata"].get("resourceVersion") or version)
            if kind == "BOOKMARK":
                continue
            if kind == "DELETED":
                self._remove(resource, item)
            else:
                self._put(resource, item)
        return version

    def _put(self, resource: Resource, item: dict[str, Any]) -> None:
        name = str(item["metadata"]["name"])
        self._objects[resource][name] = item
        endpoints = _endpoints(resource, item)
        if resource in self._by_endpoint:
            for endpoint in endpoints:
                self._by_endpoint[resource][endpoint].add(name)
        self._notify(endpoints)

    def _remove(self, resource: Resource, item: dict[str, Any]) -> None:
        name = str(item["metadata"]["name"])
        self._objects[resource].pop(name, None)
        endpoints = _endpoints(resource, item)
        for endpoint in endpoints if resource in self._by_endpoint else ():
            held = self._by_endpoint[resource].get(endpoint)
            if held is not None:
                held.discard(name)
                if not held:
                    del self._by_endpoint[resource][endpoint]
        self._notify(endpoints)

    def _notify(self, endpoints: Iterable[str]) -> None:
        for endpoint in endpoints:
            for event in self._waiting.get(endpoint, ()):
                event.set()

    def _notify_all(self) -> None:
        self._notify(list(self._waiting))


def _endpoints(resource: Resource, item: dict[str, Any]) -> list[str]:
    """Names of the endpoints that an object can belong to."""
    if resource is PODS:
        return [_endpoint_of(names.label(item, "app"))]
    if resource is EVENTS:
        about = str((item.get("involvedObject") or item.get("regarding") or {}).get("name") or "")
        parts = _endpoint_of(about.removeprefix("alb-")).split("-")
        # Pods and ReplicaSets are named <endpoint>-<hash>[-<hash>].
        return ["-".join(parts[: len(parts) - cut]) for cut in range(min(3, len(parts)))]
    return [_endpoint_of(str(item["metadata"]["name"]))]


def _endpoint_of(workload: str) -> str:
    return workload.removeprefix("prefill-").removeprefix("decode-")


def _backoff(failures: int) -> float:
    return min(0.2 * 2.0 ** min(failures, 6), MOST_BACKOFF_S) * random.uniform(0.5, 1.0)


_views: dict[Key, NamespaceView] = {}


@contextlib.asynccontextmanager
async def shared_view(clients: Clients, namespace: str) -> AsyncIterator[NamespaceView]:
    """Yield the view of a namespace that all waiters of this event loop share; the last one closes it."""
    key = (asyncio.get_running_loop(), str(clients.kube.configuration.host), namespace)
    view = _views.get(key)
    if view is None:
        view = _views[key] = NamespaceView(clients, namespace)
    else:
        view.renew(clients)
    view.users += 1
    try:
        yield view
    finally:
        view.users -= 1
        if view.users == 0:
            del _views[key]
            await view.close()
