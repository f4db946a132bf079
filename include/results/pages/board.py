"""What the pages show, read from a store: one index, refreshed at most every few seconds."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from include.endpoint.intents import Intent, IntentLog
from include.results.decisions import Decisions, read_decisions
from include.results.index import Index
from include.results.schema import RERUN_DAG
from include.results.series import Series, load_series
from include.results.sizing import Sizing, sizes
from include.results.store import ResultsStore
from include.results.verdicts import Confirmation, VerdictRecord, confirmations, judge_series

PAGE_SIZE = 25
REFRESH_S = 10.0
KEPT = 64
_SERIES = """
SELECT series, any_value(model) AS model, any_value(workload) AS workload, any_value(load) AS load,
       max(started_at) AS newest
FROM results
WHERE $find = '' OR contains(lower(concat_ws(' ', model, workload, load, arm, instance_type, engine)), lower($find))
GROUP BY series ORDER BY newest DESC, series
"""


@dataclass
class Board:
    """One store, for any number of reading threads; never writes."""

    uri: str
    _index: Index | None = None
    _read_at: float = 0.0
    _judged: dict[tuple[Any, ...], dict[str, list[VerdictRecord]]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def index(self) -> Index:
        """The index, not older than ``REFRESH_S`` seconds."""
        with self._lock:
            if self._index is None:
                self._index = Index(ResultsStore.open(self.uri))
            if time.monotonic() - self._read_at > REFRESH_S or not self._read_at:
                self._index.refresh(write=False)
                self._read_at = time.monotonic()
            return self._index

    def series(self, find: str, page: int) -> tuple[list[Series], int]:
        """Return a page of series, those with the newest results first, and how many there are in all."""
        every = [str(row["series"]) for row in self.index.query(_SERIES, {"find": find})]
        wanted = every[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]
        found = {one.id: one for one in load_series(self.index, ids=wanted)} if wanted else {}
        return [found[id_] for id_ in wanted if id_ in found], len(every)

    def one(self, series: str) -> Series | None:
        """Return a series by its id."""
        found = load_series(self.index, series=series)
        return found[0] if found else None

    def verdicts(self, series: list[Series]) -> dict[str, list[VerdictRecord]]:
        """Return each series' verdicts on its newest night."""
        objects = self.index.store.objects
        decisions, reruns = self.decisions(), confirmations(objects)
        state = (len(decisions.made), sum(map(len, reruns.values())))
        key = (*state, *((one.id, one.rows[-1]["result_id"], len(one.rows), len(one.gaps)) for one in series))
        if (known := self._judged.get(key)) is not None:
            return known
        made: dict[str, list[VerdictRecord]] = {one.id: [] for one in series}
        for verdict in judge_series(series, decisions, reruns):
            made[verdict.series].append(verdict)
        if len(self._judged) >= KEPT:
            self._judged.clear()
        self._judged[key] = made
        return made

    def decisions(self) -> Decisions:
        """Return what people decided."""
        return read_decisions(self.index.store.objects)

    def reruns(self, series: Series) -> list[Confirmation]:
        """Return what re-runs said of a series, newest first."""
        every = confirmations(self.index.store.objects)
        mine = [one for found in every.values() for one in found if one.series == series.id]
        return sorted(mine, key=lambda one: (one.night, one.metric), reverse=True)

    def levels(self, series: Series) -> list[dict[str, Any]]:
        """Return the newest valid result at each load level of a series' model, workload and place."""
        row = series.rows[-1]
        return self.index.query(
            "SELECT * FROM results WHERE model = $model AND workload = $workload AND arm = $arm AND cluster = $cluster "
            "AND instance_type = $type AND valid AND dag_id <> $rerun "
            "QUALIFY row_number() OVER (PARTITION BY load ORDER BY started_at DESC) = 1 ORDER BY output_tokens_per_s",
            {
                "model": row["model"],
                "workload": row["workload"],
                "arm": row["arm"],
                "cluster": row["cluster"],
                "type": row["instance_type"],
                "rerun": RERUN_DAG,
            },
        )

    def result(self, result_id: str) -> dict[str, Any] | None:
        """Return a result's row."""
        found = self.index.query("SELECT * FROM results WHERE result_id = ?", [result_id])
        return found[0] if found else None

    def results_of(self, run_path: str) -> list[dict[str, Any]]:
        """Return the results of a run."""
        return self.index.query("SELECT * FROM results WHERE run_path = ? ORDER BY started_at", [run_path])

    def runs(self, page: int) -> tuple[list[dict[str, Any]], int]:
        """Return a page of runs, newest first, and how many there are."""
        ((count,),) = [tuple(row.values()) for row in self.index.query("SELECT count(*) AS n FROM runs")]
        rows = self.index.query(
            "SELECT * FROM runs ORDER BY started_at DESC LIMIT ? OFFSET ?", [PAGE_SIZE, (page - 1) * PAGE_SIZE]
        )
        return rows, int(count)

    def run(self, run_path: str) -> dict[str, Any] | None:
        """Return a run's row."""
        found = self.index.query("SELECT * FROM runs WHERE run_path = ?", [run_path])
        return found[0] if found else None

    def endpoints(self) -> tuple[Intent, ...]:
        """Return the endpoints that were made and not yet proven absent."""
        return IntentLog(self.index.store.objects).unfinished()

    def sizes(self, rate: float, model: str = "") -> list[Sizing]:
        """Return what serves a rate."""
        return sizes(self.index, rate, model=model)

    def file(self, path: str) -> bytes | None:
        """Return a file of the store."""
        return self.index.store.objects.get(path)
