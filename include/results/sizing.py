"""How many instances of a type a request rate needs under its SLO, and what that costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from include.results.index import Index

LEAST_SHARE = 0.95
_BEST = """
SELECT model, workload, instance_type, engine, slo, load, night, replicas, goodput_rps, goodput_share,
       usd_per_million, usd_per_million_good, result_id,
       cost_usd / nullif(epoch(ended_at - started_at), 0) * 3600 AS hourly_usd
FROM results
WHERE valid AND goodput_rps > 0 AND goodput_share >= $share
  AND ($model = '' OR model = $model) AND ($workload = '' OR workload = $workload)
QUALIFY row_number() OVER (
  PARTITION BY model, workload, instance_type, engine, slo ORDER BY goodput_rps / greatest(replicas, 1) DESC, night DESC
) = 1
ORDER BY model, workload, instance_type
"""


@dataclass(frozen=True)
class Sizing:
    """One way to serve a rate.

    :param per_instance: requests/s that met the SLO, of one instance, at the best level measured.
    :param instances: instances for the rate; ``usd_per_hour`` is theirs together, ``None`` without a price.
    """

    row: Mapping[str, Any]
    per_instance: float
    instances: int
    usd_per_hour: float | None


def sizes(
    index: Index, rate: float, *, model: str = "", workload: str = "", share: float = LEAST_SHARE
) -> list[Sizing]:
    """Return what serves ``rate`` requests/s, by model, workload, instance type and SLO; cheapest first.

    Only levels count at which at least ``share`` of all requests met the SLO. Instances are taken to add up: measure
    the routing before trusting that.
    """
    found = []
    for row in index.query(_BEST, {"share": share, "model": model, "workload": workload}):
        replicas = max(1, row["replicas"])
        each = row["goodput_rps"] / replicas
        count = max(1, math.ceil(rate / each - 1e-9))
        hourly = row["hourly_usd"]
        found.append(Sizing(row, each, count, hourly / replicas * count if hourly else None))
    return sorted(found, key=lambda one: (one.row["model"], one.row["workload"], one.usd_per_hour or math.inf))
