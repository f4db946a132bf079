"""From the query index to the histories that verdicts are made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from include.results.decisions import Decisions
from include.results.index import Index
from include.results.schema import RERUN_DAG
from include.results.verdict.attribution import FACTORS
from include.results.verdict.judge import History, Worse
from include.results.verdict.overlap import Overlap, Window, contaminated

METRICS: Mapping[str, Worse] = {
    "ttft_ms_p50": "higher",
    "ttft_ms_p99": "higher",
    "tpot_ms_p50": "higher",
    "e2e_ms_p50": "higher",
    "output_tokens_per_s": "lower",
    "goodput_rps": "lower",
}
LABELS = {
    "ttft_ms_p50": "TTFT p50, ms", "ttft_ms_p99": "TTFT p99, ms", "tpot_ms_p50": "TPOT p50, ms",
    "e2e_ms_p50": "End to end p50, ms", "output_tokens_per_s": "Output tokens/s", "goodput_rps": "Good requests/s",
}  # fmt: skip
# A rate that was measured as zero, when no request met the SLO. Verdicts are made of logarithms: this is as bad as it
# gets, and no missing value.
LEAST_RATE = 1e-6
_COLUMNS = (
    "result_id", "series", "night", "run_path", "run_id", "dag_id", "cell", "model", "workload", "load", "arm",
    "cluster", "instance_type", "accelerators", "engine", "valid", "reasons", "slo", "endpoint_uid", "started_at",
    "ended_at", "requests_uri", "path", "requests_ok", "requests_failed", "cost_usd", "usd_per_million",
    "usd_per_million_good", "goodput_share", "ttft_ms_p90", *METRICS, *FACTORS,
)  # fmt: skip
_NAMING = ("model", "workload", "load", "arm", "cluster", "instance_type", "accelerators", "engine")


@dataclass(frozen=True)
class Series:
    """All results with one comparability key, oldest first, with the nights that brought none.

    :param rows: rows of the results index; of several in one night the last valid one stands for it, the others are
        A/A repeats.
    :param gaps: night → why it has no result: the failed or skipped run's reason.
    """

    id: str
    rows: tuple[dict[str, Any], ...]
    gaps: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    overlaps: Mapping[str, Overlap] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it."""
        row = self.rows[-1]
        return " · ".join(str(row[part]) for part in ("model", "workload", "load", "arm"))

    @property
    def identity(self) -> dict[str, str]:
        """The fields that a person tells it by."""
        return {part: str(self.rows[-1][part] or "") for part in _NAMING}

    @cached_property
    def nights(self) -> list[str]:
        """Every night with a result or a reason for none, oldest first."""
        return sorted({str(row["night"]) for row in self.rows} | set(self.gaps))

    def usable(self, row: Mapping[str, Any]) -> bool:
        """True for a valid result whose window nobody shared."""
        return bool(row["valid"]) and row["result_id"] not in self.overlaps

    def by_night(self) -> Mapping[str, dict[str, Any]]:
        """The result that stands for each night."""
        return self._by_night

    @cached_property
    def _by_night(self) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        for row in self.rows:
            night = str(row["night"])
            if self.usable(row) or night not in found:
                found[night] = row
        return found

    def history(self, metric: str, decisions: Decisions) -> History:
        """Return one metric's history up to the newest night.

        Goodput is cut where the SLO changed: under another SLO it is another quantity.
        """
        nights, chosen = self.nights, self.by_night()
        values = [self._value(chosen.get(night), metric) for night in nights]
        since = decisions.since(self.id, metric)
        if metric.startswith("goodput"):
            since = max(since, self._slo_since(chosen, nights))
        pinned = decisions.pinned(self.id, metric)
        return History(f"{self.id}/{metric}", values, nights, METRICS[metric], self._repeats(metric), since, pinned)

    def _value(self, row: Mapping[str, Any] | None, metric: str) -> float | None:
        return figure(row, metric) if row is not None and self.usable(row) else None

    def _repeats(self, metric: str) -> list[list[float]]:
        groups: dict[str, list[float]] = defaultdict(list)
        for row in self.rows:
            value = self._value(row, metric)
            if value is not None and value > 0:
                groups[str(row["night"])].append(value)
        return [group for group in groups.values() if len(group) > 1]

    def _slo_since(self, chosen: Mapping[str, Mapping[str, Any]], nights: Sequence[str]) -> str:
        known = [night for night in nights if night in chosen]
        if not known:
            return ""
        last = chosen[known[-1]]["slo"]
        start = known[-1]
        for night in reversed(known):
            if chosen[night]["slo"] != last:
                break
            start = night
        return start


def figure(row: Mapping[str, Any], metric: str) -> float | None:
    """Return a row's figure as verdicts take it: above 0, ``None`` when it was not measured."""
    value = row[metric]
    if value is None:
        return None
    if METRICS[metric] == "lower":
        return max(float(value), LEAST_RATE)
    return float(value) or None


def load_series(
    index: Index, *, series: str = "", ids: Sequence[str] | None = None, model: str = "", until: str = ""
) -> list[Series]:
    """Return the series of the store, those with the newest result first.

    :param series: only this id; ``ids``: only these; ``model``: only this model's; ``until``: no night after it.
    """
    # A re-run decides a suspicion and stands for no night: half of them repeat the baseline.
    where: list[str] = ["dag_id <> $rerun"]
    values: dict[str, Any] = {"rerun": RERUN_DAG}
    if series or ids is not None:
        where.append("series IN (SELECT unnest($ids))")
        values["ids"] = [series] if series else list(ids or ())
    if model:
        where.append("model = $model")
        values["model"] = model
    if until:
        where.append("night <= $until")
        values["until"] = until
    columns = ", ".join(column for column in dict.fromkeys(_COLUMNS) if column in _known(index))
    rows = index.query(f"SELECT {columns} FROM results WHERE {' AND '.join(where)} ORDER BY started_at", values)  # noqa: S608
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        groups[str(row["series"])].append(row)
    shared = overlaps(index, {str(row["endpoint_uid"]) for row in rows})
    missed = _missed(index, until)
    found = [Series(id_, tuple(mine), _gaps(mine, missed), _only(shared, mine)) for id_, mine in groups.items()]
    return sorted(found, key=lambda one: one.rows[-1]["started_at"], reverse=True)


def overlaps(index: Index, endpoints: set[str] | None = None) -> dict[str, Overlap]:
    """Return the results whose window another run's result shared on the same endpoint.

    Levels of one run follow each other, so windows of the same run are never each other's contamination.
    """
    rows = index.query(
        "SELECT result_id, run_path, endpoint_uid, started_at, ended_at FROM results WHERE endpoint_uid <> '' AND "
        "endpoint_uid IN (SELECT endpoint_uid FROM results GROUP BY ALL HAVING count(DISTINCT run_path) > 1)"
    )
    windows = [
        Window(row["result_id"], row["endpoint_uid"], row["started_at"], row["ended_at"])
        for row in rows
        if endpoints is None or row["endpoint_uid"] in endpoints
    ]
    runs = {row["result_id"]: row["run_path"] for row in rows}
    found = contaminated(windows)
    return {key: one for key, one in found.items() if any(runs[other] != runs[key] for other in one.others)}


def _missed(index: Index, until: str) -> list[dict[str, Any]]:
    return index.query(
        "SELECT night, model, workloads, cell, dag_id, state, failed_stage, reason, message, fix, evidence, cost_usd, "
        "report_uri, run_path, run_id FROM runs WHERE state <> 'success' AND ($until = '' OR night <= $until) "
        "AND dag_id <> $rerun",
        {"until": until, "rerun": RERUN_DAG},
    )


def _gaps(rows: Sequence[Mapping[str, Any]], missed: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Failed and skipped runs that would have brought this series a result, by night."""
    last = rows[-1]
    have = {str(row["night"]) for row in rows}
    cells = {str(row["cell"]) for row in rows}
    first = min(have)
    return {
        str(run["night"]): dict(run)
        for run in missed
        if run["model"] == last["model"]
        and str(run["night"]) not in have
        and str(run["night"]) >= first
        and (run["cell"] in cells)
        and (f'"{last["workload"]}"' in run["workloads"] or run["workloads"] == "[]")
    }


def _known(index: Index) -> set[str]:
    return {str(row["column_name"]) for row in index.query("DESCRIBE results")}


def _only(shared: Mapping[str, Overlap], rows: Sequence[Mapping[str, Any]]) -> dict[str, Overlap]:
    return {row["result_id"]: shared[row["result_id"]] for row in rows if row["result_id"] in shared}


def streak(series: Series) -> int:
    """Return how many of the newest nights in a row failed or were skipped."""
    count = 0
    for night in reversed(series.nights):
        if night not in series.gaps:
            break
        count += 1
    return count
