"""Names, labels and annotations of an endpoint and of what the operator derives from it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

GROUP = "inference.sagemaker.aws.amazon.com"
VERSION = "v1"
API_VERSION = f"{GROUP}/{VERSION}"
OPERATOR_NAMESPACE = "hyperpod-inference-system"
# The Helm chart and the EKS add-on name the controller differently.
OPERATOR_DEPLOYMENTS = (
    "hyperpod-inference-controller-manager",
    "hyperpod-inference-operator-controller-manager",
)

MANAGED_BY = "app.kubernetes.io/managed-by"
MANAGER = "hyperpod-inference-pipelines"
PREFIX = "hyperpod-pipelines"
OWNER = f"{PREFIX}/owner"
DAG_ID = f"{PREFIX}/dag-id"
RUN_ID = f"{PREFIX}/run-id"
CELL = f"{PREFIX}/cell"
SPEC_DIGEST = f"{PREFIX}/spec-digest"
PLAN_DIGEST = f"{PREFIX}/plan-digest"
MANIFEST_DIGEST = f"{PREFIX}/manifest-digest"
EXPIRES_AT = f"{PREFIX}/expires-at"
HOURLY_USD = f"{PREFIX}/hourly-usd"
RESULTS_URI = f"{PREFIX}/results-uri"
PROTECTED = f"{PREFIX}/protected"
HOLD_UNTIL = f"{PREFIX}/hold-until"
KEPT = f"{PREFIX}/kept"

INSTANCE_LABEL = "node.kubernetes.io/instance-type"
QUEUE_NAME = "kueue.x-k8s.io/queue-name"
PRIORITY_CLASS = "kueue.x-k8s.io/priority-class"
DPD_ROLE = f"{GROUP}/dpd-role"  # prefill or decode, on the pods of a disaggregated endpoint
OPERATOR_TAG = ("CreatedBy", "HyperPodInference")

MAX_LABEL = 63


def service_name(name: str) -> str:
    """Service in front of the model's pods; its port 443 speaks plain HTTP."""
    return f"{name}-routing-service"


def router_name(name: str, namespace: str) -> str:
    """Deployment of the intelligent router, in the operator's namespace."""
    return f"{name}-{namespace}-router"


def router_service_name(name: str, namespace: str) -> str:
    """Service of the intelligent router, in the operator's namespace."""
    return f"{name}-{namespace}-routing-service"


def ingress_names(name: str, namespace: str) -> tuple[tuple[str, str], ...]:
    """``(namespace, name)`` of the Ingress without and with intelligent routing."""
    return ((namespace, f"alb-{name}"), (OPERATOR_NAMESPACE, f"alb-{name}-{namespace}"))


def scaled_object_name(name: str) -> str:
    """KEDA's object for the model's pods."""
    return f"{name}-scaled-object"


def workload_names(name: str) -> tuple[str, ...]:
    """Deployments that can belong to an endpoint: the plain one, and the disaggregated pair."""
    return (name, f"prefill-{name}", f"decode-{name}")


def metadata_of(item: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object's metadata, empty when it has none."""
    return item.get("metadata") or {}


def label(item: Mapping[str, Any], key: str) -> str:
    """Return a label, or an empty string."""
    return str((metadata_of(item).get("labels") or {}).get(key, ""))


def annotation(item: Mapping[str, Any], key: str) -> str:
    """Return an annotation, or an empty string."""
    return str((metadata_of(item).get("annotations") or {}).get(key, ""))


def hourly_price(item: Mapping[str, Any]) -> Decimal:
    """Return what an endpoint costs (USD an hour) as noted on it, 0 when nothing legible is."""
    try:
        return Decimal(annotation(item, HOURLY_USD) or "0")
    except InvalidOperation:
        return Decimal(0)


def is_ours(item: Mapping[str, Any]) -> bool:
    """True for an object that this project created."""
    return label(item, MANAGED_BY) == MANAGER and bool(label(item, OWNER))


def is_protected(item: Mapping[str, Any]) -> bool:
    """True for an object that nobody may delete, marked by label or annotation."""
    return "true" in (label(item, PROTECTED).lower(), annotation(item, PROTECTED).lower())


def parse_time(text: str | None) -> dt.datetime | None:
    """Return an RFC 3339 time as aware UTC, ``None`` for an empty or unreadable one."""
    if not text:
        return None
    try:
        parsed = dt.datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        return None
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=dt.UTC)


def format_time(moment: dt.datetime) -> str:
    """Return RFC 3339 UTC with whole seconds."""
    return moment.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
