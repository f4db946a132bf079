"""Find endpoints that nobody will tear down any more, and tear them down."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from include.catalog.specs import ClusterSpec, JsonObject
from include.endpoint import names
from include.endpoint.absence import sagemaker_remnants
from include.endpoint.intents import Intent, IntentLog
from include.endpoint.model import EndpointRef, TeardownReport
from include.endpoint.resources import ENDPOINT_KINDS
from include.endpoint.teardown import operator_tags, teardown
from include.errors import PipelineError

if TYPE_CHECKING:
    from include.endpoint.clients import Clients

logger = logging.getLogger(__name__)
RunIsOver = Callable[[str, str], bool]
# Between an intent and its object, and between a teardown's two planes, lie seconds: do not race them.
GRACE = dt.timedelta(minutes=2)
AT_ONCE = 8


@dataclass(frozen=True)
class Orphan:
    """An endpoint that has to go, and why.

    :param cost_usd: what it has cost so far.
    """

    ref: EndpointRef
    why: str
    age: dt.timedelta = dt.timedelta(0)
    cost_usd: Decimal = Decimal(0)

    @property
    def line(self) -> str:
        """One line for a log: name, reason, age, cost."""
        hours = self.age.total_seconds() / 3600
        return f"{self.ref.namespace}/{self.ref.name}: {self.why}; {hours:.2f} h old, ${self.cost_usd}"


def find_orphans(
    cluster: ClusterSpec, clients: Clients, intents: IntentLog, *, run_is_over: RunIsOver, now: dt.datetime
) -> Iterator[Orphan]:
    """Yield expired endpoints, endpoints whose run is over, intents without an end, and left SageMaker objects.

    Protected and held endpoints, and everything without our labels or recorded names, are never found.
    """
    unfinished = {intent.name: intent for intent in intents.unfinished(cluster.name)}
    seen: set[str] = set()
    for kind, resource in ENDPOINT_KINDS.items():
        for item in clients.api.list(resource, cluster.namespace, labels=f"{names.MANAGED_BY}={names.MANAGER}"):
            name = str(item["metadata"]["name"])
            seen.add(name)
            why = why_reap(item, unfinished.get(name), run_is_over, now)
            if why and names.label(item, names.OWNER):
                yield _orphan(_ref(cluster, kind, item), why, now)
    for intent in unfinished.values():
        if intent.name in seen or now - intent.opened_at < GRACE:
            continue
        seen.add(intent.name)
        if now > intent.expires_at or run_is_over(intent.run.dag_id, intent.run.run_id):
            yield _orphan(_ref_of_intent(intent), "its creation was announced and never came to an end", now)
    yield from _left_on_sagemaker(cluster, clients, intents, seen, now)


def _orphan(ref: EndpointRef, why: str, now: dt.datetime) -> Orphan:
    from include.results.cost import cost_usd

    age = max(now - ref.created_at, dt.timedelta(0))
    return Orphan(ref, why, age, cost_usd(ref.hourly_price, age.total_seconds()))


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


def _left_on_sagemaker(
    cluster: ClusterSpec, clients: Clients, intents: IntentLog, seen: set[str], now: dt.datetime
) -> Iterator[Orphan]:
    """SageMaker objects of names that we tore down: the operator can leave them, or make them late."""
    if clients.session is None:
        return
    for name in sorted(set(_operator_made(clients)) - seen):
        intent = intents.closed_intent(name, cluster.name)
        if intent is None or now - intent.opened_at < GRACE:
            continue
        if any(True for _ in sagemaker_remnants(name, clients)):
            yield _orphan(_ref_of_intent(intent), "SageMaker objects outlived their endpoint", now)


def _operator_made(clients: Clients) -> Iterator[str]:
    """Yield the names of SageMaker objects that carry the operator's tag."""
    client = clients.sagemaker
    listings: tuple[tuple[str, str, str, str], ...] = (
        ("list_endpoints", "Endpoints", "EndpointName", "EndpointArn"),
        ("list_endpoint_configs", "EndpointConfigs", "EndpointConfigName", "EndpointConfigArn"),
        ("list_models", "Models", "ModelName", "ModelArn"),
    )
    key, value = names.OPERATOR_TAG
    for operation, field, name, arn in listings:
        for page in client.get_paginator(operation).paginate():
            for entry in page[field]:
                if operator_tags(entry[arn], clients).get(key) == value:
                    yield str(entry[name])


def reap(
    cluster: ClusterSpec,
    clients: Clients,
    intents: IntentLog,
    *,
    run_is_over: RunIsOver,
    now: dt.datetime | None = None,
    patience_s: float = 300,
) -> tuple[TeardownReport, ...]:
    """Tear down every orphan, several at once: one that does not go keeps no other from going.

    :param patience_s: for each of them.
    :raises PipelineError: at the end, naming the orphans that are still there.
    """
    moment = now or dt.datetime.now(dt.UTC)
    reports: list[TeardownReport] = []
    failures: list[PipelineError] = []
    orphans = list(find_orphans(cluster, clients, intents, run_is_over=run_is_over, now=moment))
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="reap") as pool:
        for orphan in orphans:
            logger.warning("reaping %s", orphan.line)
        ends = [pool.submit(teardown, orphan.ref, clients, intents, patience_s=patience_s) for orphan in orphans]
    for end in ends:
        try:
            reports.append(end.result())
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
    metadata, spec = item["metadata"], item.get("spec") or {}
    created = names.parse_time(metadata.get("creationTimestamp")) or dt.datetime.now(dt.UTC)
    registered: Any = spec.get("endpointName") or (spec.get("sageMakerEndpoint") or {}).get("name")
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
        hourly_price=names.hourly_price(item),
        sagemaker_endpoint=registered or None,
    )


def _ref_of_intent(intent: Intent) -> EndpointRef:
    # Without a UID, teardown goes by name and owner.
    return EndpointRef(
        cluster=intent.cluster,
        namespace=intent.namespace,
        kind=intent.kind,
        name=intent.name,
        uid=intent.uid or "",
        owner=intent.owner,
        spec_digest="",
        created_at=intent.opened_at,
        expires_at=intent.expires_at,
        hourly_price=intent.hourly_price,
        sagemaker_endpoint=intent.sagemaker_endpoint,
    )
