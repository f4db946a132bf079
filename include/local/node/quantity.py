"""Resource arithmetic over Kubernetes quantities."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from include.local.controller.resources import Object

Amounts = dict[str, Decimal]


def amounts(quantities: Mapping[str, str] | None) -> Amounts:
    """Parse a resource list (``{"cpu": "500m", "memory": "1Gi"}``).

    :raises ValueError: for a text that is not a quantity.
    """
    from kubernetes.utils.quantity import parse_quantity

    return {name: parse_quantity(text) for name, text in (quantities or {}).items()}


def pod_requests(pod: Object) -> Amounts:
    """Return what a pod asks for: the sum of its containers, at least each init container, and one pod slot.

    A limit without a request counts as the request, as the API server defaults it.
    """
    total: Amounts = {}
    for container in pod["spec"]["containers"]:
        for name, value in container_requests(container).items():
            total[name] = total.get(name, Decimal(0)) + value
    for container in pod["spec"].get("initContainers") or []:
        for name, value in container_requests(container).items():
            total[name] = max(total.get(name, Decimal(0)), value)
    return total | {"pods": Decimal(1)}


def container_requests(container: Object) -> Amounts:
    """Return what one container asks for."""
    resources = container.get("resources") or {}
    return amounts(resources.get("limits")) | amounts(resources.get("requests"))
