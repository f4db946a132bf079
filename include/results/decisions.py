"""What people decided about a series: pinned baselines and accepted changes, each with a reason; append-only."""

from __future__ import annotations

import datetime as dt
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from include.catalog.specs import Spec
from include.objects import Objects
from include.results.store import parse

FOLDER = "verdicts/decisions"


class Decision(Spec):
    """One decision.

    :param kind: ``accept``: from ``nights[0]`` on the new level is right; ``pin``: ``nights`` are the baseline;
        ``unpin``: the recent past is the baseline again.
    :param metric: a metric's name, or ``*`` for all.
    """

    kind: Literal["accept", "pin", "unpin"]
    series: str = Field(min_length=1)
    metric: str = "*"
    nights: tuple[str, ...] = ()
    reason: str = Field(min_length=3)
    by: str = ""
    at: dt.datetime


@dataclass(frozen=True)
class Decisions:
    """All decisions, oldest first."""

    made: Sequence[Decision] = ()

    def since(self, series: str, metric: str) -> str:
        """Return the first night after the last accepted change, empty when there was none."""
        return max((item.nights[0] for item in self._of(series, metric) if item.kind == "accept"), default="")

    def pinned(self, series: str, metric: str) -> tuple[str, ...]:
        """Return the nights of the pinned baseline, empty when the recent past is the baseline."""
        last = [item for item in self._of(series, metric) if item.kind in ("pin", "unpin")][-1:]
        return last[0].nights if last and last[0].kind == "pin" else ()

    def of(self, series: str) -> list[Decision]:
        """Return the decisions about one series."""
        return [item for item in self.made if item.series == series]

    def _of(self, series: str, metric: str) -> list[Decision]:
        return [item for item in self.made if item.series == series and item.metric in ("*", metric)]


def read_decisions(objects: Objects) -> Decisions:
    """Return every decision of a store."""
    found = [parse(Decision, objects.get(info.path) or b"", info.path) for info in objects.list(FOLDER)]
    return Decisions(sorted(found, key=lambda item: item.at))


def decide(objects: Objects, decision: Decision) -> None:
    """Keep a decision; nothing is ever replaced."""
    name = f"{FOLDER}/{decision.at:%Y%m%dT%H%M%S}-{secrets.token_hex(4)}.json"
    objects.put(name, decision.model_dump_json(indent=1).encode(), create=True)
