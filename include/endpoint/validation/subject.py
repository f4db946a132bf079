"""What the checks look at, read once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from include.catalog.plan import ReleasePlan
from include.endpoint.asking import Asker
from include.endpoint.clients import Clients
from include.endpoint.model import Check, EndpointRef
from include.endpoint.resources import DEPLOYMENTS, ENDPOINT_KINDS, PODS
from include.staging.model import StagedModel


@dataclass
class Subject:
    """A live endpoint and what was planned for it."""

    plan: ReleasePlan
    ref: EndpointRef
    staged: StagedModel | None
    clients: Clients
    asker: Asker

    @property
    def deployment(self) -> Any:
        """The planned serving side."""
        return self.plan.model.deployment

    @cached_property
    def resource(self) -> dict[str, Any]:
        """The live main object, empty when it is gone."""
        kind = ENDPOINT_KINDS[self.ref.kind]
        return self.clients.api.get(kind, self.ref.name, self.ref.namespace) or {}

    @cached_property
    def workload(self) -> dict[str, Any]:
        """The live Deployment, empty when there is none of the endpoint's name."""
        return self.clients.api.get(DEPLOYMENTS, self.ref.name, self.ref.namespace) or {}

    @cached_property
    def pods(self) -> list[dict[str, Any]]:
        """The live pods of the model."""
        return self.clients.api.list(PODS, self.ref.namespace, labels=f"app={self.ref.name}")

    @cached_property
    def information(self) -> dict[str, Any]:
        """What the server says about itself on ``/info``, empty when it does not."""
        if not self.asker.invocation.direct:
            return {}
        answer = self.asker.get("/info")
        said = answer.json if answer.ok else None
        return said if isinstance(said, dict) else {}

    @property
    def speaks_openai(self) -> bool:
        """True when inference requests are OpenAI-shaped."""
        path = self.asker.invocation.path
        return path.endswith("/completions") or "/completions" in self.deployment.invocation_path


def verdict(name: str, ok: bool, expected: object, observed: object, fix: str = "") -> Check:
    """Return a passed or a failed check."""
    return Check(
        name=name,
        verdict="pass" if ok else "fail",
        expected=str(expected),
        observed=str(observed),
        fix="" if ok else fix,
    )


def skip(name: str, why: str) -> Check:
    """Return a check that could not be made, with the reason."""
    return Check(name=name, verdict="skip", observed=why)
