"""How many pods of a plan fit onto a node, by what is requested there already."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from include.catalog.plan import ReleasePlan

ENDED = ("Succeeded", "Failed")


@dataclass(frozen=True)
class Demand:
    """What one pod asks for, and how many pods there are.

    :param amounts: resource → plain number (cores, bytes, devices).
    """

    pods: int
    amounts: Mapping[str, Decimal] = field(default_factory=dict)

    def __str__(self) -> str:
        return ", ".join(f"{name} {_short(name, value)}" for name, value in self.amounts.items()) or "one pod"


@dataclass(frozen=True)
class NodeRoom:
    """What is free on a node."""

    name: str
    free: Mapping[str, Decimal]
    slots: int

    def fits(self, demand: Demand) -> int:
        """Return how many pods of the demand fit here."""
        counts = [self.slots]
        for resource, amount in demand.amounts.items():
            if amount > 0:
                counts.append(int(self.free.get(resource, Decimal(0)) // amount))
        return max(min(counts), 0)

    def __str__(self) -> str:
        known = ("nvidia.com/gpu", "cpu", "memory")
        parts = [f"{name} {_short(name, self.free[name])}" for name in known if name in self.free]
        return f"{self.name} ({', '.join([*parts, f'{self.slots} pod slots'])})"


def demand_of(plan: ReleasePlan) -> Demand:
    """Return what the plan's pods ask for."""
    deployment = plan.model.deployment
    pools = deployment.disaggregation
    if pools:
        return Demand(pools.prefill.replicas + pools.decode.replicas, _amounts(pools.prefill.resources))
    return Demand(max(deployment.replicas, 1), _amounts(deployment.resources))


def _amounts(resources: Mapping[Any, Mapping[str, str]]) -> dict[str, Decimal]:
    from kubernetes.utils.quantity import parse_quantity

    asked = {**resources.get("limits", {}), **resources.get("requests", {})}
    return {name: parse_quantity(value) for name, value in asked.items()}


def node_room(node: Mapping[str, Any], pods: Iterable[Mapping[str, Any]]) -> NodeRoom:
    """Return what is left of a node's allocatable resources after its pods' requests."""
    from kubernetes.utils.quantity import parse_quantity

    name = str(node["metadata"]["name"])
    allocatable = (node.get("status") or {}).get("allocatable") or {}
    free = {resource: parse_quantity(str(amount)) for resource, amount in allocatable.items()}
    here = [
        pod
        for pod in pods
        if (pod.get("spec") or {}).get("nodeName") == name and (pod.get("status") or {}).get("phase") not in ENDED
    ]
    for pod in here:
        for container in pod["spec"].get("containers") or []:
            asked = container.get("resources") or {}
            for resource, amount in {**(asked.get("limits") or {}), **(asked.get("requests") or {})}.items():
                if resource in free:
                    free[resource] -= parse_quantity(str(amount))
    slots = int(free.pop("pods", Decimal(110))) - len(here)
    return NodeRoom(name, free, slots)


def _short(resource: str, amount: Decimal) -> str:
    return f"{amount / 2**30:.1f}Gi" if resource == "memory" else f"{amount.normalize():f}"
