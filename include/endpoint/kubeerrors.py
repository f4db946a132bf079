"""What an API server's refusals mean, in words: reason, sentence, fix, and whether to try again."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from include.errors import FailureClass, PipelineError

FLAKES = frozenset({429, 500, 502, 503, 504})
RBAC_FILE = "deploy/kubernetes/rbac.yaml"


@dataclass(frozen=True)
class Refusal:
    """A failed call.

    :param status: HTTP status, 0 when no answer came.
    :param retry_call: the same call may succeed in a moment.
    """

    status: int
    retry_call: bool
    error: PipelineError


def translate(error: BaseException, doing: str) -> Refusal:
    """Put an exception of the Kubernetes client into words; never loses the server's own message."""
    status = int(getattr(error, "status", 0) or 0)
    message, causes, said = _said(error)
    if status == 0:
        return Refusal(
            0,
            isinstance(error, OSError) or type(error).__module__.startswith("urllib3"),
            PipelineError(
                "KubernetesUnreachable",
                f"{doing}: no answer from the Kubernetes API: {error}",
                fix="check the network path to the cluster's API and that the cluster exists",
                failure_class=FailureClass.TRANSIENT,
            ),
        )
    if "conversion-webhook" in message or "conversion webhook" in message:
        return Refusal(status, False, operator_down(doing, message))
    known = _KNOWN.get(status)
    if known is None:
        flake = status in FLAKES
        failure = FailureClass.TRANSIENT if flake else FailureClass.INTERNAL
        failed = PipelineError(
            "KubernetesError" if not flake else "KubernetesUnavailable",
            f"{doing}: the Kubernetes API answered {status}: {message}",
            fix="try again; if it stays, look at the API server's health",
            failure_class=failure,
        )
        return Refusal(status, flake, failed)
    reason, fix, failure_class = known
    if said == "AlreadyExists":
        reason = said
    failed = PipelineError(reason, f"{doing}: {message}", fix=fix, failure_class=failure_class, evidence=causes)
    return Refusal(status, status == 401, failed)


def operator_down(doing: str, message: str) -> PipelineError:
    """Return the error for a conversion webhook that nobody answers: the operator is down."""
    return PipelineError(
        "OperatorUnavailable",
        f"{doing}: the HyperPod inference operator does not answer: {message}",
        fix="check that the operator's Deployment in hyperpod-inference-system has ready replicas, and cert-manager",
        failure_class=FailureClass.TRANSIENT,
        evidence=(message,),
    )


_KNOWN = {
    400: (
        "RequestRefused",
        "correct the fields that the API names; they are not in the definition that the cluster serves",
        FailureClass.CONFIGURATION,
    ),
    401: (
        "Unauthorized",
        "renew the credentials of the cluster's connection",
        FailureClass.TRANSIENT,
    ),
    403: (
        "AccessDenied",
        f"bind this identity to the role in {RBAC_FILE}",
        FailureClass.CONFIGURATION,
    ),
    404: ("NotFound", "check the name and that the resource type is installed", FailureClass.CONFIGURATION),
    409: ("Conflict", "somebody else changed or owns this object; look at it", FailureClass.TRANSIENT),
    410: ("Expired", "list again", FailureClass.TRANSIENT),
    413: ("RequestTooLarge", "make the object smaller", FailureClass.CONFIGURATION),
    422: (
        "ObjectInvalid",
        "correct the fields that the API names",
        FailureClass.CONFIGURATION,
    ),
}


def _said(error: BaseException) -> tuple[str, tuple[str, ...], str]:
    body = getattr(error, "body", None)
    if isinstance(body, bytes):
        body = body.decode("utf-8", "replace")
    if not body:
        return str(getattr(error, "reason", None) or error), (), ""
    try:
        status: dict[str, Any] = json.loads(body)
    except (TypeError, ValueError):
        return str(body)[:500], (), ""
    if not isinstance(status, dict):
        return str(body)[:500], (), ""
    causes = (status.get("details") or {}).get("causes") or []
    lines = tuple(f"{cause.get('field', '')}: {cause.get('message', '')}" for cause in causes)
    return str(status.get("message") or body)[:2000], lines, str(status.get("reason") or "")
