"""Faults on the wire, for tests that must survive a bad API server.

A rule is JSON such as ``{"match": {"verb": "create", "resource": "leases"}, "action": "status", "code": 429,
"retry_after": 1, "times": 3}``. Actions: ``status`` (answer with ``code``), ``reset`` (drop the connection),
``hang`` (say nothing for ``seconds``), ``delay`` (answer ``seconds`` later), ``expire`` (410, in a watch as an ERROR
event). With ``"after": true`` the request is carried out first and only its answer is lost. ``match`` may name
``verb``, ``group``, ``resource``, ``subresource``, ``namespace``, ``name``, ``user`` and ``path``; each is a glob.
"""

from __future__ import annotations

import itertools
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from include.local.kube.errors import ApiError, bad_request

Facts = dict[str, str]
_REASONS = {
    400: "BadRequest", 401: "Unauthorized", 403: "Forbidden", 404: "NotFound", 409: "Conflict", 410: "Expired",
    429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout",
}  # fmt: skip


class Rule(BaseModel):
    """One fault and how often it still happens."""

    model_config = ConfigDict(extra="forbid")

    match: dict[Literal["verb", "group", "resource", "subresource", "namespace", "name", "user", "path"], str] = Field(
        default_factory=dict
    )
    action: Literal["status", "reset", "hang", "delay", "expire"]
    code: int = Field(500, ge=400, le=599)
    message: str = "injected fault"
    retry_after: int | None = None
    seconds: float = 0.0
    times: int = Field(1, description="how often; -1 for always")
    skip: int = Field(0, description="matching requests that pass before the first fault")
    after: bool = False
    id: int = 0
    seen: int = 0
    fired: int = 0

    def takes(self, facts: Facts) -> bool:
        """Count a request; return whether the fault happens to it."""
        if not all(fnmatchcase(facts.get(key, ""), pattern) for key, pattern in self.match.items()):
            return False
        if self.times >= 0 and self.fired >= self.times:
            return False
        self.seen += 1
        if self.seen <= self.skip:
            return False
        self.fired += 1
        return True

    def error(self) -> ApiError:
        """Return the answer of a ``status`` or ``expire`` fault."""
        code = 410 if self.action == "expire" else self.code
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        details = {"retryAfterSeconds": self.retry_after} if self.retry_after is not None else None
        return ApiError(code, _REASONS.get(code, "Unknown"), self.message, details, headers)


class Faults:
    """The rules in force, first match wins."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._ids = itertools.count(1)

    def replace(self, rules: Any) -> None:
        """Put new rules in place of all.

        :raises ApiError: 400 when a rule is malformed.
        """
        if not isinstance(rules, list):
            raise bad_request("faults are a JSON list of rules")
        parsed = [self._parse(rule) for rule in rules]
        self._rules = parsed

    def add(self, rule: Any) -> None:
        """Add one rule after the others."""
        self._rules.append(self._parse(rule))

    def _parse(self, rule: Any) -> Rule:
        try:
            return Rule.model_validate(rule).model_copy(update={"id": next(self._ids), "seen": 0, "fired": 0})
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise bad_request(f"fault rule: {where}: {first['msg']}") from None

    def listed(self) -> list[dict[str, Any]]:
        """Return the rules with their counters."""
        return [rule.model_dump() for rule in self._rules]

    def take(self, facts: Facts) -> Rule | None:
        """Return the fault that happens to a request, if any."""
        return next((rule for rule in self._rules if rule.takes(facts)), None)
