"""A local copy of one collection, kept current by list and watch."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from include.local.controller.api import Api, ApiError
from include.local.controller.resources import Key, Object, Resource, key_of

logger = logging.getLogger(__name__)
Listener = Callable[[Object], None]
ABSENT_RESOURCE_SECONDS = 5.0


class Informer:
    """Holds the objects of one resource and tells listeners about each change.

    Listeners get the object as it is now, or its last known state once it is gone; they must ask the store
    what is true (level-triggered), never count calls.
    """

    def __init__(self, api: Api, resource: Resource, namespace: str = "") -> None:
        self.resource = resource
        self.store: dict[Key, Object] = {}
        self.synced = asyncio.Event()
        self._api = api
        self._namespace = namespace
        self._listeners: list[Listener] = []

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` for every object that appears, changes or goes."""
        self._listeners.append(listener)

    def get(self, namespace: str, name: str) -> Object | None:
        """The object as last seen."""
        return self.store.get((namespace, name))

    def all(self) -> list[Object]:
        """Every object as last seen."""
        return list(self.store.values())

    async def run(self) -> None:
        """List, watch, and start over whenever the watch ends; never returns."""
        delay = 0.1
        while True:
            try:
                version = await self._relist()
                delay = 0.1
                await self._follow(version)
            except ApiError as error:
                if error.status == 404:
                    await self._relist_empty()
                    delay = ABSENT_RESOURCE_SECONDS
                elif error.status not in (0, 410):
                    logger.warning("watching %s: %s", self.resource.plural, error)
                await asyncio.sleep(delay)
                delay = min(delay * 2, 2.0)

    async def _relist_empty(self) -> None:
        self._replace({})
        self.synced.set()

    async def _relist(self) -> str:
        answer = await self._api.list(self.resource, self._namespace)
        kind = {"apiVersion": self.resource.api_version, "kind": self.resource.kind}
        self._replace({key_of(item): kind | item for item in answer.get("items") or []})
        self.synced.set()
        return str(answer["metadata"]["resourceVersion"])

    def _replace(self, found: dict[Key, Object]) -> None:
        before, self.store = self.store, found
        for key, item in before.items():
            if key not in found:
                self._tell(item)
        for key, item in found.items():
            old = before.get(key)
            if old is None or _version(old) != _version(item):
                self._tell(item)

    async def _follow(self, version: str) -> None:
        while True:
            async for event in self._api.watch(self.resource, self._namespace, version):
                item = event["object"]
                version = _version(item)
                if event["type"] == "BOOKMARK":
                    continue
                if event["type"] == "DELETED":
                    self.store.pop(key_of(item), None)
                else:
                    self.store[key_of(item)] = item
                self._tell(item)

    def _tell(self, item: Object) -> None:
        for listener in self._listeners:
            listener(item)


def _version(item: Object) -> str:
    return str(item["metadata"]["resourceVersion"])
