"""Instance types, replicas and accelerators."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

INSTANCE_TYPE = re.compile(r"^ml\.[a-z0-9-]+\.[a-z0-9-]+$")
OLD_DRIVER_FAMILIES = ("ml.g5.", "ml.g4dn.")


def one_way_to_place(context: RenderContext) -> Iterator[Problem]:
    """``instanceType``, ``instanceTypes`` and ``nodeAffinity`` exclude each other."""
    deployment = context.model.deployment
    written = [name for name in ("instance_type", "instance_types", "node_affinity") if getattr(deployment, name)]
    if not written:
        yield problem("deployment.instance_type", "absent", "set one of instance_type, instance_types, node_affinity")
    if len(written) > 1:
        for name in written:
            yield problem(f"deployment.{name}", getattr(deployment, name), f"keep only one of {', '.join(written)}")


def instance_type_names(context: RenderContext) -> Iterator[Problem]:
    """Every instance type is written as SageMaker writes it, and once."""
    deployment = context.model.deployment
    types = [("deployment.instance_type", deployment.instance_type)] if deployment.instance_type else []
    types += [(f"deployment.instance_types[{i}]", name) for i, name in enumerate(deployment.instance_types)]
    seen: set[str] = set()
    for field, name in types:
        if not name or not INSTANCE_TYPE.match(name):
            yield problem(field, name, "must look like ml.<family>.<size>, for example ml.g6e.2xlarge")
        elif name in seen:
            yield problem(field, name, "written twice; the order is the preference, keep the first")
        seen.add(str(name))


def replicas(context: RenderContext) -> Iterator[Problem]:
    """A measured endpoint has at least one replica; the schema has no minimum."""
    deployment = context.model.deployment
    if deployment.replicas == 0 and (context.benchmarking or deployment.autoscaling is None):
        yield problem("deployment.replicas", 0, "must be at least 1; scaling to zero is autoscaling's")
    if context.benchmarking:
        return
    scaling = deployment.autoscaling
    if scaling and scaling.max_replica_count is not None and deployment.replicas > scaling.max_replica_count:
        fix = f"must not exceed autoscaling.max_replica_count = {scaling.max_replica_count}"
        yield problem("deployment.replicas", deployment.replicas, fix)


def extended_resources(context: RenderContext) -> Iterator[Problem]:
    """Kubernetes: requests of an extended resource equal its limits, in whole numbers."""
    deployment = context.model.deployment
    containers: dict[str, Mapping[Any, Mapping[str, str]]] = {"deployment.resources": deployment.resources}
    if deployment.disaggregation:
        containers["deployment.disaggregation.prefill.resources"] = deployment.disaggregation.prefill.resources
        containers["deployment.disaggregation.decode.resources"] = deployment.disaggregation.decode.resources
    for field, amounts in containers.items():
        yield from _amounts(field, amounts)
        yield from _ordinary(field, amounts)


def _ordinary(field: str, amounts: Mapping[Any, Mapping[str, str]]) -> Iterator[Problem]:
    """Kubernetes: no amount is negative, and no request exceeds its limit."""
    limits = amounts.get("limits", {})
    for sort, items in amounts.items():
        for name, text in items.items():
            amount = _number(text)
            if amount is not None and amount < 0:
                yield problem(f"{field}.{sort}.{name}", text, "must not be negative")
    for name, text in amounts.get("requests", {}).items():
        amount, limit = _number(text), _number(limits.get(name, ""))
        if "/" not in name and amount is not None and limit is not None and amount > limit:
            yield problem(f"{field}.requests.{name}", text, f"must not exceed the limit, {limits[name]}")


def _number(text: str) -> Decimal | None:
    """A quantity as a number; ``None`` when the definition's own pattern refuses it."""
    from kubernetes.utils.quantity import parse_quantity

    try:
        found: Decimal = parse_quantity(text)
    except ValueError:
        return None
    return found


def _amounts(field: str, amounts: Mapping[Any, Mapping[str, str]]) -> Iterator[Problem]:
    requests, limits = amounts.get("requests", {}), amounts.get("limits", {})
    extended = sorted(name for name in {*requests, *limits} if "/" in name)
    for name in extended:
        limit, request = limits.get(name), requests.get(name, limits.get(name))
        if limit is None:
            yield problem(f"{field}.limits.{name}", "absent", f"set it to the request, {request}")
        elif limit != request:
            yield problem(f"{field}.requests.{name}", request, f"must equal the limit, {limit}")
        elif not limit.isdigit():
            yield problem(f"{field}.limits.{name}", limit, "must be a whole number")
    partitions = [name for name in extended if name.startswith("nvidia.com/mig-")]
    if partitions and "nvidia.com/gpu" in extended:
        yield problem(
            f"{field}.limits.nvidia.com/gpu",
            limits.get("nvidia.com/gpu"),
            f"a container takes whole GPUs or MIG partitions ({partitions[0]}), not both",
        )


def driver_fits_image(context: RenderContext) -> Iterator[Problem]:
    """CUDA 12.9 images need a newer driver than A10G and T4 nodes carry."""
    deployment = context.model.deployment
    types = [deployment.instance_type or "", *deployment.instance_types]
    old = [name for name in types if name.startswith(OLD_DRIVER_FAMILIES)]
    if old and deployment.image and "cu129" in deployment.image:
        yield problem(
            "deployment.image", deployment.image, f"the driver on {old[0]} is too old for CUDA 12.9: use cu128 or cu124"
        )


RULES = (one_way_to_place, instance_type_names, replicas, extended_resources, driver_fits_image)
