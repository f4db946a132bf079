"""Find endpoints that nobody will tear down any more, and tear them down."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from include.catalog.specs import ClusterSpec, JsonObject
from include.endpoint import names
from include.endpoint.intents import Intent, IntentLog
from include.endpoint.model import EndpointRef, TeardownReport
from include.endpoint.resources import ENDPOINT_KINDS
from include.endpoint.teardown import remnants, teardown
from include.errors import PipelineError

if TYPE_CHECKING:
    from include.endpoint.clients import Clients

logger = logging.getLogger(__name__)
RunIsOver = Callable[[str, str], bool]
GRACE = dt.timedelta(minutes=2)


@dataclass(frozen=True)
class Orphan:
    """An endpoint that has to go, and why."""

    ref: EndpointRef
    why: str


def find_orphans(
    cluster: ClusterSpec, clients: Clients, intents: IntentLog, *, run_is_over: RunIsOver, now: dt.datetime
) -> Iterator[Orphan]:
    """Yield expired endpoints, endpoints whose run is over, and intents that never came to an end.

    Protected and held endpoints, and everything without our labels, are never found.
    """
    seen: set[str] = set()
    for kind, resource in ENDPOINT_KINDS.items():
        for item in clients.api.list(resource, cluster.namespace, labels=f"{names.MANAGED_BY}={names.MANAGER}"):
            name = str(item["metadata"]["name"])
            seen.add(name)
            why = why_reap(item, intents.find(name, cluster.name), run_is_over, now)
            if why and names.label(item, names.OWNER):
                yield Orphan(_ref(cluster, kind, item), why)
    for intent in intents.unfinished(cluster.name):
        if intent.name in seen or now - intent.opened_at < GRACE:
            continue
        if now > intent.expires_at or run_is_over(intent.run.dag_id, intent.run.run_id):
            yield Orphan(_ref_of_intent(intent), "its creation was announced and never came to an end")


def why_reap(item: JsonObject, intent: Intent | None, run_is_over: RunIsOver, now: dt.datetime) -> str:
    """Return why an endpoint of ours has to go; empty: it may stay."""
    if names.is_protected(item):
        return ""
    held = names.parse_time(names.annotation(item, names.HOLD_UNTIL))
    if held is not None and now < held:
        return ""
    expires = names.parse_time(names.annotation(item, names.EXPIRES_AT))
    if expires is not None and now > expires:
        return f"expired at {names.format_time(expires)}"
    if names.annotation(item, names.KEPT):
        return ""
    dag_id, run_id = names.annotation(item, names.DAG_ID), names.annotation(item, names.RUN_ID)
    if intent is not None:
        dag_id, run_id = intent.run.dag_id, intent.run.run_id
    if dag_id and run_id and run_is_over(dag_id, run_id):
        return f"its run {dag_id} {run_id} is over"
    return ""


def reap(
    cluster: ClusterSpec,
    clients: Clients,
    intents: IntentLog,
    *,
    run_is_over: RunIsOver,
    now: dt.datetime | None = None,
    patience_s: float = 300,
) -> tuple[TeardownReport, ...]:
    """Tear down every orphan; one that does not go does not keep the others.

    :raises PipelineError: at the end, naming the orphans that are still there.
    """
    moment = now or dt.datetime.now(dt.UTC)
    reports: list[TeardownReport] = []
    failures: list[PipelineError] = []
    for orphan in list(find_orphans(cluster, clients, intents, run_is_over=run_is_over, now=moment)):
        age = moment - orphan.ref.created_at
        logger.warning("reaping %s: %s; %s old, $%s/h", orphan.ref.name, orphan.why, age, orphan.ref.hourly_price)
        try:
            reports.append(teardown(orphan.ref, clients, intents, patience_s=patience_s))
        except PipelineError as error:
            logger.error("%s", error)
            failures.append(error)
    if failures:
        raise PipelineError(
            "NotReaped",
            f"{len(failures)} of {len(failures) + len(reports)} orphans are still there: "
            + "; ".join(error.message for error in failures),
            fix=failures[0].fix,
            evidence=tuple(str(error) for error in failures),
        )
    return tuple(reports)


def _ref(cluster: ClusterSpec, kind: str, item: JsonObject) -> EndpointRef:
    metadata = item["metadata"]
    created = names.parse_time(metadata.get("creationTimestamp")) or dt.datetime.now(dt.UTC)
    return EndpointRef(
        cluster=cluster.name,
        namespace=cluster.namespace,
        kind=kind,
        name=metadata["name"],
        uid=metadata["uid"],
        owner=names.label(item, names.OWNER),
        spec_digest=names.annotation(item, names.SPEC_DIGEST),
        created_at=created,
        expires_at=names.parse_time(names.annotation(item, names.EXPIRES_AT)) or created,
        hourly_price=_decimal(names.annotation(item, names.HOURLY_USD)),
        sagemaker_endpoint=(item.get("spec") or {}).get("endpointName")
        or ((item.get("spec") or {}).get("sageMakerEndpoint") or {}).get("name"),
    )


def _ref_of_intent(intent: Intent) -> EndpointRef:
    return EndpointRef(
        cluster=intent.cluster,
        namespace=intent.namespace,
        kind=intent.kind,
        name=intent.name,
        uid=intent.uid or "never created",
        owner=intent.owner,
        spec_digest="",
        created_at=intent.opened_at,
        expires_at=intent.expires_at,
        hourly_price=intent.hourly_price,
        sagemaker_endpoint=intent.sagemaker_endpoint,
    )


def _decimal(text: str) -> Decimal:
    try:
        return Decimal(text or "0")
    except InvalidOperation:
        return Decimal(0)


__all__ = ["Orphan", "find_orphans", "reap", "remnants", "why_reap"]
