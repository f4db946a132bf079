"""Pieces of the custom resources' status. Pure."""

from __future__ import annotations

from typing import Any

from include.local.controller.clock import stamp
from include.local.controller.resources import Object

COUNTS = ("replicas", "readyReplicas", "availableReplicas", "updatedReplicas", "unavailableReplicas")
TIMES = ("lastUpdated", "lastTransitionTime")


def with_condition(status: Object, kind: str, value: str, reason: str, message: str, generation: int) -> list[Object]:
    """Return the conditions with one set; its time moves only when its value changes."""
    kept = [c for c in status.get("conditions") or [] if c["type"] != kind]
    old = next((c for c in status.get("conditions") or [] if c["type"] == kind), None)
    since = old["lastTransitionTime"] if old and old["status"] == value else stamp()
    made = {
        "type": kind, "status": value, "reason": reason, "message": message, "lastTransitionTime": since,
        "observedGeneration": generation,
    }  # fmt: skip
    return [*kept, made]


def deployment_status(item: Object, deployments: list[Object], state: str, reason: str, message: str) -> Object:
    """Return ``deploymentStatus``, ``replicas`` and ``selector`` from the live Deployments."""
    total: dict[str, Any] = {
        name: sum(int((d.get("status") or {}).get(name) or 0) for d in deployments) for name in COUNTS
    }
    name = item["metadata"]["name"]
    return {
        "deploymentStatus": {
            "name": name,
            "deploymentObjectOverallState": state,
            "reason": reason,
            "message": message,
            "lastUpdated": stamp(),
            "status": total,
        },
        "replicas": total["replicas"],
        "selector": f"app={name}",
    }


def is_rolled_out(deployment: Object) -> bool:
    """True when a Deployment shows the wanted replicas of its current spec, all ready."""
    status, wanted = deployment.get("status") or {}, int(deployment["spec"].get("replicas", 1))
    if int(status.get("observedGeneration") or 0) < int(deployment["metadata"]["generation"]):
        return False
    return all(int(status.get(name) or 0) == wanted for name in ("replicas", "updatedReplicas", "readyReplicas"))


def metrics_status(spec: Object) -> Object:
    """Return ``metricsStatus``."""
    metrics = spec.get("metrics") or {}
    enabled = bool(metrics.get("enabled", True))
    found: Object = {
        "enabled": enabled,
        "state": "Enabled" if enabled else "Disabled",
        "metricsScrapeIntervalSeconds": int(metrics.get("metricsScrapeIntervalSeconds", 15)),
    }
    if metrics.get("modelMetrics"):
        given = metrics["modelMetrics"]
        found["modelMetrics"] = {"path": given.get("path", "/metrics"), "port": int(given.get("port", 8080))}
    return found


def same(current: Any, wanted: Any) -> bool:
    """True when ``current`` has everything of ``wanted``; times of change do not count."""
    if isinstance(wanted, dict):
        return isinstance(current, dict) and all(
            same(current.get(name), value) for name, value in wanted.items() if name not in TIMES
        )
    if isinstance(wanted, list):
        return isinstance(current, list) and len(current) == len(wanted) and all(map(same, current, wanted))
    return bool(current == wanted)
