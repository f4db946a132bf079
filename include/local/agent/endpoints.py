"""The Endpoints controller: a Service's ready pods, each with its own host port."""

from __future__ import annotations

from typing import Any

from include.local.agent.pods_of import is_ready
from include.local.controller.api import Api
from include.local.controller.informer import Informer
from include.local.controller.resources import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    Key,
    Object,
    is_deleting,
    key_of,
    matches_labels,
    owner_reference,
)
from include.local.node.ports import ANNOTATION

SERVICE_LABEL = "kubernetes.io/service-name"


class EndpointsController:
    """Reconciles Services; pods share one address here, so every pod is a subset (and a slice) of its own."""

    def __init__(self, api: Api, services: Informer, pods: Informer, endpoints: Informer, slices: Informer) -> None:
        self._api = api
        self._services = services
        self._pods = pods
        self._endpoints = endpoints
        self._slices = slices

    def services_of(self, pod: Object) -> list[Key]:
        """Return the Services that a pod is in by its labels, or was in until they changed."""
        meta = pod["metadata"]
        spaced = [item for item in self._services.all() if item["metadata"]["namespace"] == meta["namespace"]]
        return [
            key_of(service)
            for service in spaced
            if matches_labels(service["spec"].get("selector") or {}, pod) or self._targets(service, meta["name"])
        ]

    def _targets(self, service: Object, pod: str) -> bool:
        subsets = (self._endpoints.get(*key_of(service)) or {}).get("subsets") or ()
        return any(item["targetRef"]["name"] == pod for part in subsets for item in part["addresses"])

    async def reconcile(self, key: Key) -> float | None:
        """Write Endpoints and EndpointSlices of one Service."""
        service = self._services.get(*key)
        if service is None or is_deleting(service) or not service["spec"].get("selector"):
            return None
        mine = [
            pod
            for pod in self._pods.all()
            if pod["metadata"]["namespace"] == key[0] and matches_labels(service["spec"]["selector"], pod)
        ]
        pods = sorted((pod for pod in mine if is_ready(pod)), key=lambda pod: str(pod["metadata"]["name"]))
        await self._write_endpoints(service, [subset(service, pod) for pod in pods])
        await self._write_slices(service, {slice_name(service, pod): _slice(service, pod) for pod in pods})
        return None

    async def _write_endpoints(self, service: Object, subsets: list[Object]) -> None:
        key = key_of(service)
        existing = self._endpoints.get(*key)
        if existing is None:
            meta = {"name": key[1], "namespace": key[0], "ownerReferences": [owner_reference(service)]}
            await self._api.create(ENDPOINTS, {"metadata": meta, "subsets": subsets})
        elif (existing.get("subsets") or []) != subsets:
            await self._api.patch(ENDPOINTS, *key, {"subsets": subsets})

    async def _write_slices(self, service: Object, wanted: dict[str, Object]) -> None:
        namespace, name = key_of(service)
        found = {
            item["metadata"]["name"]: item
            for item in self._slices.all()
            if item["metadata"]["namespace"] == namespace
            and (item["metadata"].get("labels") or {}).get(SERVICE_LABEL) == name
        }
        for slice_key in found.keys() - wanted.keys():
            await self._api.delete(ENDPOINT_SLICES, namespace, slice_key)
        for slice_key in wanted.keys() - found.keys():
            await self._api.create(ENDPOINT_SLICES, wanted[slice_key])


def subset(service: Object, pod: Object) -> Object:
    """Return the Endpoints subset of one ready pod."""
    meta = pod["metadata"]
    target = {"kind": "Pod", "name": meta["name"], "namespace": meta["namespace"], "uid": meta["uid"]}
    address = {"ip": "127.0.0.1", "nodeName": pod["spec"].get("nodeName"), "targetRef": target}
    return {"addresses": [address], "ports": _ports(service, pod)}


def slice_name(service: Object, pod: Object) -> str:
    """Name of the slice of one pod: changes with the pod, so that a slice is never edited."""
    return f"{service['metadata']['name']}-{pod['metadata']['uid'][:8]}"


def _slice(service: Object, pod: Object) -> Object:
    ready = {"ready": True, "serving": True, "terminating": False}
    target = subset(service, pod)["addresses"][0]["targetRef"]
    return {
        "metadata": {
            "name": slice_name(service, pod),
            "namespace": service["metadata"]["namespace"],
            "labels": {SERVICE_LABEL: service["metadata"]["name"]},
            "ownerReferences": [owner_reference(service)],
        },
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["127.0.0.1"], "conditions": ready, "targetRef": target}],
        "ports": _ports(service, pod),
    }


def _ports(service: Object, pod: Object) -> list[Object]:
    annotations = pod["metadata"].get("annotations") or {}
    found = []
    for port in service["spec"].get("ports") or ():
        container = container_port(pod, port.get("targetPort", port["port"]))
        host = int(annotations.get(f"{ANNOTATION}{container}", container))
        found.append({"name": port.get("name", ""), "port": host, "protocol": "TCP"})
    return found


def container_port(pod: Object, wanted: Any) -> int:
    """Container port that a Service's targetPort means: a number, or a port's name."""
    for container in pod["spec"]["containers"]:
        for port in container.get("ports") or ():
            if wanted in (port.get("name"), port["containerPort"]):
                return int(port["containerPort"])
    return int(wanted) if str(wanted).isdigit() else 0
