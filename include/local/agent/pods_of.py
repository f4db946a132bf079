"""Pods from templates, and which pods belong to whom."""

from __future__ import annotations

from include.local.controller.api import Api
from include.local.controller.informer import Informer
from include.local.controller.resources import PODS, Key, Object, Resource, controller_of, key_of, owner_reference


def owned(pods: Informer, owner: Object) -> list[Object]:
    """Return the pods that ``owner`` controls, oldest first."""
    uid = owner["metadata"]["uid"]
    found = [pod for pod in pods.all() if (controller_of(pod) or {}).get("uid") == uid]
    return sorted(found, key=lambda pod: (pod["metadata"]["creationTimestamp"], pod["metadata"]["name"]))


def from_template(owner: Object, template: Object, labels: dict[str, str]) -> Object:
    """Return a pod of a template, with a generated name."""
    meta = template.get("metadata") or {}
    return {
        "metadata": {
            "generateName": f"{owner['metadata']['name']}-",
            "namespace": owner["metadata"]["namespace"],
            "labels": {**(meta.get("labels") or {}), **labels},
            "annotations": dict(meta.get("annotations") or {}),
            "ownerReferences": [owner_reference(owner)],
        },
        "spec": dict(template["spec"]),
    }


def phase_of(pod: Object) -> str:
    """The pod's phase; Pending when nobody has reported one."""
    return str((pod.get("status") or {}).get("phase") or "Pending")


def is_ready(pod: Object) -> bool:
    """True when the pod takes traffic."""
    if pod["metadata"].get("deletionTimestamp"):
        return False
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


async def collect_strays(api: Api, pods: Informer, resource: Resource, key: Key) -> None:
    """Delete the pods of an owner that is gone: made while its deletion was on the way."""
    for pod in pods.all():
        owner = controller_of(pod) or {}
        if owner.get("kind") != resource.kind or (pod["metadata"]["namespace"], owner["name"]) != key:
            continue
        live = await api.get(resource, *key)
        if live is None or live["metadata"]["uid"] != owner["uid"]:
            await api.delete(PODS, *key_of(pod), uid=pod["metadata"]["uid"])
