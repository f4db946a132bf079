"""Scripted faults of the AWS APIs: what goes wrong, for which calls, how often; kept across restarts."""

from __future__ import annotations

import uuid
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from pydantic import Field

from include.catalog.specs import Spec
from include.local.aws.errors import AwsError
from include.local.aws.store import Store


class ApiFaultKind(StrEnum):
    """What can be provoked."""

    THROTTLE = "throttle"  # 400 ThrottlingException (Throttling in query APIs)
    INTERNAL_ERROR = "internal-error"  # 500 InternalFailure
    UNAVAILABLE = "unavailable"  # 503 ServiceUnavailable
    ACCESS_DENIED = "access-denied"  # 403 AccessDeniedException
    EXPIRED_TOKEN = "expired-token"  # 403 ExpiredTokenException  # noqa: S105
    BAD_CREDENTIALS = "bad-credentials"  # 403 UnrecognizedClientException
    TIMEOUT = "timeout"  # no answer for ``seconds``, then the connection is cut
    SLOW = "slow"  # the answer comes after ``seconds``
    RESET = "reset"  # the connection is cut before anything happens
    LOST_ANSWER = "lost-answer"  # it happens, and the connection is cut before the answer
    ENDPOINT_FAILED = "endpoint-failed"  # CreateEndpoint: the endpoint becomes Failed with [reason]
    ENDPOINT_STUCK = "endpoint-stuck"  # CreateEndpoint: the endpoint stays Creating
    TASK_FAILED = "task-failed"  # CreateDataRepositoryTask: FAILED with [message]
    TASK_PARTIAL = "task-partial"  # the task leaves [files=1] files out and says so in FailedCount
    MISCONFIGURED = "misconfigured"  # CreateDataRepositoryAssociation: [lifecycle=MISCONFIGURED] with [message]


REFUSALS = {
    ApiFaultKind.THROTTLE: ("ThrottlingException", "Rate exceeded", 400),
    ApiFaultKind.INTERNAL_ERROR: ("InternalFailure", "The request processing has failed.", 500),
    ApiFaultKind.UNAVAILABLE: ("ServiceUnavailable", "The service is temporarily unavailable.", 503),
    ApiFaultKind.ACCESS_DENIED: ("AccessDeniedException", "User is not authorized to perform this action.", 403),
    ApiFaultKind.EXPIRED_TOKEN: ("ExpiredTokenException", "The security token included in the request is expired", 403),
    ApiFaultKind.BAD_CREDENTIALS: (
        "UnrecognizedClientException", "The security token included in the request is invalid.", 403,
    ),
}  # fmt: skip
EFFECTS = frozenset(list(ApiFaultKind)[list(ApiFaultKind).index(ApiFaultKind.ENDPOINT_FAILED) :])


class ApiFault(Spec):
    """One rule.

    :param service: glob on the client's name (``sagemaker``, ``fsx``, ``sagemaker-runtime`` …).
    :param operation: glob on the API name.
    :param times: number of calls that it hits; ``None``: all.
    :param skip: number of matching calls that pass first.
    :param seconds: of ``timeout`` and ``slow``.
    """

    id: str = Field(default_factory=lambda: uuid.uuid4().hex[:8])
    service: str = "*"
    operation: str = "*"
    kind: ApiFaultKind
    times: int | None = Field(None, ge=1)
    skip: int = Field(0, ge=0)
    seconds: float = Field(30, ge=0)
    params: dict[str, str] = Field(default_factory=dict)

    def refusal(self) -> AwsError | None:
        """The error that this rule answers with; ``None`` when it acts otherwise."""
        return AwsError(*REFUSALS[self.kind]) if self.kind in REFUSALS else None


class FaultRules:
    """The rules in force."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def all(self) -> list[dict[str, Any]]:
        """Every rule, with the number of calls that it still hits."""
        return list(self._rules.values())

    def add(self, rule: ApiFault) -> None:
        """Put a rule in force."""
        with self._store.saving():
            self._rules[rule.id] = rule.model_dump(mode="json")

    def replace(self, rules: list[ApiFault]) -> None:
        """Put exactly these rules in force."""
        with self._store.saving():
            self._rules.clear()
            self._rules.update({rule.id: rule.model_dump(mode="json") for rule in rules})

    def take(self, service: str, operation: str) -> ApiFault | None:
        """Return the rule that hits a call before it is handled, counting the hit."""
        return self._take(service, operation, lambda kind: kind not in EFFECTS)

    def effect(self, service: str, operation: str, *kinds: ApiFaultKind) -> ApiFault | None:
        """Return the rule of one of ``kinds`` that hits what a call brings about, counting the hit."""
        return self._take(service, operation, lambda kind: kind in kinds)

    @property
    def _rules(self) -> dict[str, dict[str, Any]]:
        return self._store.table("faults")

    def _take(self, service: str, operation: str, wanted: Any) -> ApiFault | None:
        for record in self._rules.values():
            rule = ApiFault.model_validate(record)
            covered = fnmatchcase(service, rule.service) and fnmatchcase(operation, rule.operation)
            if not wanted(rule.kind) or not covered:
                continue
            if rule.skip:
                with self._store.saving():
                    record["skip"] = rule.skip - 1
                continue
            self._count(record, rule)
            return rule
        return None

    def _count(self, record: dict[str, Any], rule: ApiFault) -> None:
        if rule.times is None:
            return
        with self._store.saving():
            record["times"] = rule.times - 1
            if rule.times == 1:
                del self._rules[rule.id]
