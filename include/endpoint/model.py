"""What the endpoint steps hand on: references, checks, cold start, proof of absence."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Literal

from pydantic import Field

from include.catalog.specs import JsonObject, Spec
from include.errors import NEVER_RETRIED, FailureClass, PipelineError


class EndpointRef(Spec):
    """One endpoint that we created or adopted; enough to find it, and to delete it and nothing else.

    :param uid: UID of the custom resource; every delete carries it as a precondition.
    :param spec_digest: digest of the rendered custom resource, also an annotation on the object.
    :param base_url: set once the endpoint is ready: where requests go from the worker.
    """

    cluster: str
    namespace: str
    kind: str
    name: str
    uid: str
    owner: str
    spec_digest: str
    created_at: dt.datetime
    expires_at: dt.datetime
    hourly_price: Decimal = Decimal(0)
    adopted: bool = False
    sagemaker_endpoint: str | None = None
    base_url: str | None = None
    served_model_name: str | None = None


class ColdStart(Spec):
    """Seconds from creation to the first completion, split; the phases sum to ``total``.

    A phase that the cluster gives no event for is 0 and its time counts in the next one.
    """

    total: float
    schedule: float = 0.0
    image: float = 0.0
    weights: float = 0.0
    load: float = 0.0
    register_endpoint: float = 0.0
    first_completion: float = 0.0


class Check(Spec):
    """One check of preflight or validation.

    :param failure_class: of a failed check: whether it may pass when it is made again.
    """

    name: str
    verdict: Literal["pass", "fail", "skip"]
    expected: str = ""
    observed: str = ""
    fix: str = ""
    failure_class: FailureClass = FailureClass.CONFIGURATION


class ValidationReport(Spec):
    """All checks of a stage; ``ok`` is true when none failed."""

    checks: tuple[Check, ...] = ()
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """True when no check failed."""
        return all(check.verdict != "fail" for check in self.checks)

    def error(self, reason: str) -> PipelineError | None:
        """Return an error with every failed check, retried only when each of them may pass by itself."""
        failures = self.failures
        if not failures:
            return None
        lines = tuple(f"{c.name}: expected {c.expected}, observed {c.observed}. {c.fix}" for c in failures)
        lasting = [check for check in failures if check.failure_class in NEVER_RETRIED]
        first = (lasting or failures)[0]
        return PipelineError(
            reason,
            f"{len(failures)} of {len(self.checks)} checks failed: " + "; ".join(lines),
            fix=first.fix,
            failure_class=first.failure_class,
            evidence=lines,
        )

    @property
    def failures(self) -> tuple[Check, ...]:
        """The failed checks."""
        return tuple(check for check in self.checks if check.verdict == "fail")


class ObjectTrace(Spec):
    """One object of an endpoint and the proof that it is gone."""

    plane: Literal["kubernetes", "sagemaker", "aws"]
    kind: str
    name: str
    existed: bool
    absent: bool
    evidence: str = ""


class TeardownReport(Spec):
    """Everything that existed for an endpoint and whether it is provably gone."""

    endpoint: str
    absent: bool
    objects: tuple[ObjectTrace, ...] = ()
    kept: bool = False
    gpu_hours: float = 0.0
    cost_usd: Decimal = Decimal(0)
    seconds: float = 0.0
    detail: JsonObject = Field(default_factory=dict)
