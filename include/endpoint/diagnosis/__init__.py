"""Why an endpoint does not come up: one pure function per row of the failure catalogue, most specific first."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Callable, Iterator

from include.endpoint.diagnosis import cluster, pods, registration
from include.endpoint.diagnosis.model import Diagnosis, Limits
from include.endpoint.facts import Facts

__all__ = ["ROWS", "Diagnosis", "Limits", "diagnose", "explain"]

GIVEN_UP = ("deadline", "deployment-failed")

Row = Callable[[Facts, dt.datetime, Limits], Diagnosis | None]

ROWS: dict[str, Row] = {
    **cluster.DELETED_ROWS,
    **pods.LOG_ROWS,
    **pods.ROWS,
    **registration.ROWS,
    **cluster.ROWS,
    **pods.LAST_ROWS,
}
"""Name of the row → its function; the order is the order of preference."""


def diagnose(facts: Facts, now: dt.datetime, limits: Limits | None = None) -> Iterator[Diagnosis]:
    """Yield every row that applies, the most specific first."""
    for row in ROWS.values():
        found = row(facts, now, limits or Limits())
        if found is not None:
            yield found


def explain(facts: Facts, now: dt.datetime, limits: Limits | None = None) -> Diagnosis | None:
    """Return the cause to tell: the first terminal row, else the first that applies, ``None`` when all looks well.

    When the operator or the clock gave up, the most specific row that applies says why.
    """
    found = list(diagnose(facts, now, limits))
    ended = next((item for item in found if item.terminal), None)
    if ended is None or ended.row not in GIVEN_UP:
        return ended or next(iter(found), None)
    cause = next((item for item in found if item.row not in GIVEN_UP), None)
    if cause is None:
        return ended
    evidence = tuple(dict.fromkeys((ended.message, *cause.evidence)))
    return dataclasses.replace(cause, terminal=True, evidence=evidence)
