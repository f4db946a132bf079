"""The endpoints of ours that exist: age, owner, expiry, cost so far."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from include.endpoint import names
from include.endpoint.resources import ENDPOINT_KINDS
from include.results.cost import cost_usd

if TYPE_CHECKING:
    from include.endpoint.clients import Clients


@dataclass(frozen=True)
class Endpoint:
    """One endpoint.

    :param keeps: why it outlives its run: ``protected``, ``held`` or ``kept``; empty otherwise.
    :param cost_usd: from its creation until now.
    """

    kind: str
    namespace: str
    name: str
    uid: str
    state: str
    run: str
    owner: str
    age: dt.timedelta
    expires_at: dt.datetime | None
    keeps: str
    cost_usd: Decimal

    @property
    def line(self) -> str:
        """One line for a terminal."""
        expires = names.format_time(self.expires_at) if self.expires_at else "never"
        hours = self.age.total_seconds() / 3600
        keeps = f" ({self.keeps})" if self.keeps else ""
        return (
            f"{self.name:<42} {self.state or '-':<22} {hours:7.2f} h  ${self.cost_usd:<9} {expires}{keeps}  {self.run}"
        )


def inventory(clients: Clients, namespace: str, now: dt.datetime) -> Iterator[Endpoint]:
    """Yield every endpoint that this project made in a namespace, oldest first."""
    selector = f"{names.MANAGED_BY}={names.MANAGER}"
    found = [
        describe(kind, item, now)
        for kind, resource in ENDPOINT_KINDS.items()
        for item in clients.api.list(resource, namespace, labels=selector)
    ]
    yield from sorted(found, key=lambda item: item.age, reverse=True)


def describe(kind: str, item: dict[str, Any], now: dt.datetime) -> Endpoint:
    """Read one endpoint's labels and annotations."""
    meta = item["metadata"]
    created = names.parse_time(meta.get("creationTimestamp")) or now
    age = max(now - created, dt.timedelta(0))
    dag_id, run_id = names.annotation(item, names.DAG_ID), names.annotation(item, names.RUN_ID)
    return Endpoint(
        kind=kind,
        namespace=str(meta.get("namespace", "")),
        name=str(meta["name"]),
        uid=str(meta["uid"]),
        state=str((item.get("status") or {}).get("state") or ""),
        run=f"{dag_id} {run_id}".strip(),
        owner=names.label(item, names.OWNER),
        age=age,
        expires_at=names.parse_time(names.annotation(item, names.EXPIRES_AT)),
        keeps=_keeps(item, now),
        cost_usd=cost_usd(names.hourly_price(item), age.total_seconds()),
    )


def _keeps(item: dict[str, Any], now: dt.datetime) -> str:
    held = names.parse_time(names.annotation(item, names.HOLD_UNTIL))
    if names.is_protected(item):
        return "protected"
    if held is not None and held > now:
        return "held"
    return "kept" if names.annotation(item, names.KEPT) else ""
