"""The Kubernetes resources that the local controllers read and write, and their REST paths."""

from __future__ import annotations

from typing import Any

from include.endpoint.resources import (
    CLAIMS,
    CONFIG_MAPS,
    CSI_DRIVERS,
    DEPLOYMENTS,
    ENDPOINT_CONFIGS,
    ENDPOINT_SLICES,
    EVENTS,
    INGRESSES,
    JUMPSTART_MODELS,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    REGISTRATIONS,
    SCALED_OBJECTS,
    SECRETS,
    SERVICES,
    VOLUMES,
    WORKLOADS,
    Resource,
)

__all__ = [
    "CLAIMS",
    "CONFIG_MAPS",
    "CSI_DRIVERS",
    "DEPLOYMENTS",
    "ENDPOINTS",
    "ENDPOINT_CONFIGS",
    "ENDPOINT_SLICES",
    "EVENTS",
    "INFERENCE_GROUP",
    "INGRESSES",
    "JOBS",
    "JUMPSTART_MODELS",
    "LEASES",
    "NAMESPACES",
    "NODES",
    "PODS",
    "REGISTRATIONS",
    "SCALED_OBJECTS",
    "SECRETS",
    "SERVICES",
    "SERVICE_ACCOUNTS",
    "VOLUMES",
    "WORKLOADS",
    "Key",
    "Object",
    "Resource",
    "controller_of",
    "is_deleting",
    "key_of",
    "matches_labels",
    "owner_reference",
]

Object = dict[str, Any]
Key = tuple[str, str]
INFERENCE_GROUP = "inference.sagemaker.aws.amazon.com"

ENDPOINTS = Resource("", "v1", "endpoints", "Endpoints")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
JOBS = Resource("batch", "v1", "jobs", "Job")


def key_of(item: Object) -> Key:
    """``(namespace, name)`` of an object; the namespace is empty for a cluster-scoped one."""
    meta = item["metadata"]
    return meta.get("namespace", ""), meta["name"]


def is_deleting(item: Object) -> bool:
    """True when deletion was asked for and finalizers or a grace period keep the object."""
    return bool(item["metadata"].get("deletionTimestamp"))


def controller_of(item: Object) -> Object | None:
    """The owner reference with ``controller: true``, if any."""
    owners: list[Object] = item["metadata"].get("ownerReferences") or []
    return next((owner for owner in owners if owner.get("controller")), None)


def owner_reference(owner: Object) -> Object:
    """Controller reference to ``owner``; its deletion takes the holder of the reference with it."""
    return {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def matches_labels(selector: dict[str, str], item: Object) -> bool:
    """True when every label of a non-empty ``selector`` is on the object."""
    labels = item["metadata"].get("labels") or {}
    return bool(selector) and all(labels.get(name) == value for name, value in selector.items())
