"""Live configuration equals what was requested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from include.endpoint import names
from include.endpoint.model import Check
from include.endpoint.resources import DEPLOYMENTS, NODES
from include.endpoint.validation.subject import Subject, skip, verdict
from include.errors import PipelineError

CHANGED = "somebody changed it after it was created: tear it down and release again"


def same_object(subject: Subject) -> Iterator[Check]:
    """The custom resource is the one we made, and its spec is still the planned one."""
    live = subject.resource
    uid = (live.get("metadata") or {}).get("uid", "none")
    yield verdict("custom resource", uid == subject.ref.uid, subject.ref.uid, uid, "it was replaced: start a new run")
    planned = subject.plan.custom_resource
    wanted = planned["items"][0]["spec"] if planned["kind"] == "List" else planned["spec"]
    changed = sorted(differences(wanted, live.get("spec") or {}))
    yield verdict("live specification", not changed, "as planned", "; ".join(changed) or "as planned", CHANGED)
    if subject.staged is not None:
        noted = names.annotation(live, names.MANIFEST_DIGEST)
        expected = subject.staged.manifest_digest
        yield verdict("model revision", noted == expected, expected, noted or "none", CHANGED)


def differences(wanted: Any, live: Any, at: str = "spec") -> Iterator[str]:
    """Yield where ``live`` lacks or changes what was wanted; defaults that the server added are fine."""
    if isinstance(wanted, Mapping):
        if not isinstance(live, Mapping):
            yield f"{at}: expected {wanted!r}, is {live!r}"
            return
        for key, value in wanted.items():
            yield from differences(value, live.get(key), f"{at}.{key}")
    elif isinstance(wanted, list):
        if not isinstance(live, list) or len(live) != len(wanted):
            yield f"{at}: expected {wanted!r}, is {live!r}"
            return
        for index, value in enumerate(wanted):
            yield from differences(value, live[index], f"{at}[{index}]")
    elif wanted != live:
        yield f"{at}: expected {wanted!r}, is {live!r}"


def _main_container(subject: Subject) -> dict[str, Any]:
    pod = ((subject.workload.get("spec") or {}).get("template") or {}).get("spec") or {}
    containers: list[dict[str, Any]] = pod.get("containers") or []
    named = [item for item in containers if item.get("name") == subject.ref.name]
    return (named or containers or [{}])[0]


def live_deployment(subject: Subject) -> Iterator[Check]:
    """Replicas, image and arguments of the live Deployment are the requested ones."""
    if subject.deployment.disaggregation is not None:
        yield skip("live deployment", "prefill and decode Deployments are the operator's own")
        return
    workload, container = subject.workload, _main_container(subject)
    if not workload:
        yield verdict("live deployment", False, subject.ref.name, "no such Deployment", "read the operator's log")
        return
    replicas = int((workload.get("spec") or {}).get("replicas", 1))
    ready = int((workload.get("status") or {}).get("readyReplicas") or 0)
    wanted = subject.deployment.replicas
    yield verdict("replicas", replicas == wanted == ready, wanted, f"{replicas} wanted, {ready} ready", CHANGED)
    if subject.deployment.kind == "JumpStartModel":
        yield skip("image", "SageMaker JumpStart chooses it")
        return
    yield verdict(
        "image",
        container.get("image") == subject.deployment.image,
        subject.deployment.image,
        container.get("image"),
        CHANGED,
    )
    expected = list(subject.deployment.args)
    live = list(container.get("args") or [])
    yield verdict("arguments", live == expected, expected, live, CHANGED)
    yield from _image_digest(subject)


def _image_digest(subject: Subject) -> Iterator[Check]:
    name = "image digest"
    digests = {
        status.get("imageID", "").rpartition("@")[2]
        for pod in subject.pods
        for status in (pod.get("status") or {}).get("containerStatuses") or []
        if status.get("name") == subject.ref.name
    } - {""}
    pinned = str(subject.deployment.image).partition("@")[2]
    if pinned:
        yield verdict(name, digests == {pinned}, pinned, ", ".join(sorted(digests)) or "unknown", CHANGED)
    elif not digests:
        yield skip(name, "the nodes report none")
    else:
        one = len(digests) == 1
        yield verdict(name, one, "one for all replicas", ", ".join(sorted(digests)), "pin the image by digest")


def live_placement(subject: Subject) -> Iterator[Check]:
    """Pods run on the requested instance type."""
    name = "instance type"
    deployment = subject.deployment
    wanted = [item for item in (deployment.instance_type, *deployment.instance_types) if item]
    nodes = sorted({str((pod.get("spec") or {}).get("nodeName") or "") for pod in subject.pods} - {""})
    if not wanted or not nodes:
        yield skip(name, "the plan names none" if not wanted else "no pod has a node")
        return
    try:
        found = [subject.clients.api.get(NODES, node) or {} for node in nodes]
    except PipelineError as error:
        yield skip(name, error.message)
        return
    types = sorted({names.label(node, names.INSTANCE_LABEL) for node in found})
    fix = "the pods were put elsewhere: check node labels and affinity"
    yield verdict(name, set(types) <= set(wanted), " or ".join(wanted), ", ".join(types), fix)


def cache_and_routing(subject: Subject) -> Iterator[Check]:
    """The router and the KV cache that were asked for really run."""
    deployment, ref = subject.deployment, subject.ref
    if deployment.routing:
        router = names.router_name(ref.name, ref.namespace)
        try:
            found = subject.clients.api.get(DEPLOYMENTS, router, names.OPERATOR_NAMESPACE)
        except PipelineError as error:
            yield skip("routing", error.message)
        else:
            ready = int(((found or {}).get("status") or {}).get("readyReplicas") or 0)
            fix = "read the router's log; the operator makes it only when the endpoint is created"
            yield verdict("routing", ready > 0, f"{router} ready", f"{ready} ready", fix)
    if deployment.kv_cache is not None and (deployment.kv_cache.l1 or deployment.kv_cache.l2):
        yield _cache_active(subject)


def _cache_active(subject: Subject) -> Check:
    name = "KV cache"
    container = _main_container(subject)
    if not container:
        return skip(name, "no Deployment to look at")
    settings = [str(item.get("name", "")) for item in container.get("env") or []]
    arguments = " ".join(str(item) for item in [*(container.get("command") or []), *(container.get("args") or [])])
    signs = [item for item in settings if "LMCACHE" in item.upper()]
    signs += ["--kv-transfer-config"] if "kv-transfer-config" in arguments else []
    fix = "the operator did not add the cache to the container: check its version and the engine"
    return verdict(name, bool(signs), "LMCache settings in the container", ", ".join(signs) or "none", fix)
