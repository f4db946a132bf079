"""Ask the live endpoint whether it is what was asked for: healthy, the right model, configured as requested."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from include.catalog.plan import ReleasePlan
from include.endpoint.asking import Asker
from include.endpoint.clients import Clients
from include.endpoint.invocation import Invocation
from include.endpoint.model import Check, EndpointRef, ValidationReport
from include.endpoint.validation import answers, configuration, identity, transport
from include.endpoint.validation.subject import Subject
from include.staging.model import StagedModel

Checker = Callable[[Subject], Iterable[Check]]

CHECKS: tuple[Checker, ...] = (
    configuration.same_object,
    configuration.live_deployment,
    configuration.live_placement,
    transport.certificate_chain,
    identity.health,
    identity.model_list,
    identity.server_identity,
    answers.completion,
    answers.streamed_completion,
    answers.stops,
    answers.json_schema,
    answers.context_length,
    configuration.cache_and_routing,
)


def validate(
    plan: ReleasePlan,
    ref: EndpointRef,
    staged: StagedModel | None,
    clients: Clients,
    invocation: Invocation,
) -> ValidationReport:
    """Run every check; one that fails does not hide the others.

    A check that the endpoint's way of invoking or its server cannot answer is ``skip`` with the reason, never
    ``pass``.
    """
    started = time.monotonic()
    subject = Subject(plan, ref, staged, clients, Asker(invocation, clients))
    checks = [check for checker in CHECKS for check in checker(subject)]
    return ValidationReport(checks=tuple(checks), seconds=round(time.monotonic() - started, 3))
