"""Which cells a scheduled night runs: changed, failed last time, or due by the calendar; never quarantined ones."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from include.canonical import digest
from include.catalog.loader import Catalog
from include.catalog.plan import RunIdentity
from include.catalog.specs import NightlyCell
from include.objects import Objects
from include.results.paths import safe_segment
from include.results.schema import RunRecord
from include.results.store import ResultsStore

FOLDER = "nightly/cells"


@dataclass(frozen=True)
class Due:
    """Whether a cell runs, and why or why not."""

    run: bool
    reason: str
    quarantined: bool = False


def inputs(catalog: Catalog, model: str, workload: str, cluster: str) -> str:
    """Return the digest of what the catalog says of a cell; an unknown name counts as no content."""
    parts: list[Any] = []
    for kind, name in ((catalog.models, model), (catalog.workloads, workload), (catalog.clusters, cluster)):
        found: Any = kind.get(name)
        parts.append(None if found is None else found.model_dump(mode="json"))
    return digest(parts)


def due(objects: Objects, run: RunIdentity, now: str, entry: NightlyCell) -> Due:
    """Return whether a cell is due in a run's night.

    A retry of the same run gets the same answer: what this run itself noted does not count.

    :param now: digest of the cell's inputs (:func:`inputs`).
    """
    night = run.started_at.astimezone(dt.UTC).date()
    if entry.quarantine and night <= dt.date.fromisoformat(entry.quarantine.until):
        return Due(False, f"quarantined until {entry.quarantine.until}: {entry.quarantine.reason}", quarantined=True)
    known = [item for item in _notes(objects, run.cell) if item["run_path"] != run.path]
    if not known:
        return Due(True, "has never run")
    last = known[-1]
    if last["inputs"] != now:
        return Due(True, "its inputs in the catalog changed")
    record = ResultsStore(objects).record(f"{last['run_path']}/record.json")
    if record is None or record.state != "success":
        return Due(True, "did not succeed last time")
    days = (night - dt.date.fromisoformat(last["night"])).days
    if days >= entry.every_days:
        return Due(True, f"last ran {days} day(s) ago; due every {entry.every_days}")
    return Due(False, f"unchanged and run {days} day(s) ago; due every {entry.every_days}")


def note(objects: Objects, run: RunIdentity, now: str) -> None:
    """Keep that a cell runs tonight, and with which inputs; the last two runs are kept."""
    kept = [item for item in _notes(objects, run.cell) if item["run_path"] != run.path][-1:]
    kept.append({"run_path": run.path, "night": f"{run.started_at.astimezone(dt.UTC):%Y-%m-%d}", "inputs": now})
    objects.put(_path(run.cell), json.dumps(kept).encode())


def record_skipped(objects: Objects, run: RunIdentity, model: str, workloads: Sequence[str], reason: str) -> None:
    """Record a quarantined cell's night: skipped, with its reason."""
    moment = dt.datetime.now(dt.UTC)
    ResultsStore(objects).put_record(
        RunRecord(
            run=run, state="skipped", failed_stage="plan", reason="Quarantined", message=reason,
            fix="nothing; it runs again by itself", started_at=moment, ended_at=moment,
            model={"name": model, "workloads": list(workloads)},
        )
    )  # fmt: skip


def _notes(objects: Objects, cell: str) -> list[dict[str, str]]:
    data = objects.get(_path(cell))
    return [] if data is None else list(json.loads(data))


def _path(cell: str) -> str:
    return f"{FOLDER}/{safe_segment(cell)}.json"
