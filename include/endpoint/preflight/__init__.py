"""Checks that spend nothing: will this plan work on this cluster? Each failed check says what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from include.catalog.plan import ReleasePlan
from include.endpoint.clients import Clients
from include.endpoint.model import Check, ValidationReport
from include.endpoint.preflight import cluster, objects
from include.errors import PipelineError

Checker = Callable[[ReleasePlan, Clients], Iterable[Check]]

CHECKS: tuple[Checker, ...] = (
    cluster.api_reachable,
    cluster.identity_allowed,
    cluster.definition_served,
    cluster.operator_alive,
    cluster.drivers_installed,
    cluster.addons_installed,
    cluster.room_on_nodes,
    cluster.quota,
    objects.name_free,
    objects.dry_run,
    objects.secrets_exist,
    objects.image_exists,
    objects.stores_reachable,
)


def preflight(plan: ReleasePlan, clients: Clients) -> ValidationReport:
    """Run every check; when the API cannot be reached, only that is reported."""
    started = time.monotonic()
    checks: list[Check] = []
    for checker in CHECKS:
        checks += _guarded(checker, plan, clients)
        if any(check.name == cluster.API and check.verdict == "fail" for check in checks):
            break
    return ValidationReport(checks=tuple(checks), seconds=round(time.monotonic() - started, 3))


def _guarded(checker: Checker, plan: ReleasePlan, clients: Clients) -> Iterator[Check]:
    name = checker.__name__.replace("_", " ")
    try:
        yield from checker(plan, clients)
    except PipelineError as error:
        # A right that only this check needs must not hide the other checks.
        if error.reason == "AccessDenied":
            yield Check(name=name, verdict="skip", observed=error.message, fix=error.fix)
        else:
            yield cluster.failed(name, "an answer", error.message, error.fix, error.failure_class)
