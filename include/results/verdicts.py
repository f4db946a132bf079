"""The verdicts of a night: made from the index, kept beside the results, read by the page and the command line."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from include.catalog.specs import Spec
from include.objects import Objects
from include.results.decisions import Decisions, read_decisions
from include.results.index import Index
from include.results.schema import RERUN_DAG
from include.results.series import METRICS, Series, load_series, streak
from include.results.store import parse
from include.results.verdict.attribution import changes
from include.results.verdict.confirm import LEAST_EFFECT, Decision
from include.results.verdict.judge import NIGHTS_TO_FIND, SeriesVerdict, examine, judge

FOLDER = "verdicts/nights"
CONFIRMATIONS = "verdicts/confirmations"


class ChangeOfLevel(Spec):
    """A change point: the first night at the new level, the relative change and its 95 % interval."""

    night: str
    effect: float
    low: float
    high: float


class VerdictRecord(Spec):
    """One metric of one series in one night; relative changes, 0.05 for 5 %; ``None``: it cannot be told."""

    series: str
    name: str
    metric: str
    night: str
    outcome: Literal["pass", "fail", "inconclusive"]
    reason: str
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    q: float = 1.0
    detectable: float | None = None
    noise_cv: float | None = None
    drift: float = 0.0
    reference_first: str = ""
    reference_last: str = ""
    reference_nights: int = 0
    changes: tuple[ChangeOfLevel, ...] = ()
    suspects: tuple[str, ...] = ()
    confirm: bool = False
    page: bool = False
    failed_nights_in_a_row: int = 0


class Confirmation(Spec):
    """What the re-runs of one suspicion said; relative changes, ``None`` where too few ended to tell."""

    series: str
    metric: str
    night: str
    decision: Decision
    effect: float | None = None
    low: float | None = None
    high: float | None = None
    pairs: int
    at: dt.datetime


class NightVerdicts(Spec):
    """All verdicts of one night."""

    night: str
    made_at: dt.datetime
    verdicts: tuple[VerdictRecord, ...] = ()

    @property
    def pages(self) -> tuple[VerdictRecord, ...]:
        """What a person is told."""
        return tuple(one for one in self.verdicts if one.page)

    @property
    def to_confirm(self) -> tuple[VerdictRecord, ...]:
        """What is to be run again first."""
        return tuple(one for one in self.verdicts if one.confirm)


def judge_night(index: Index, night: str = "", *, metrics: Sequence[str] = tuple(METRICS)) -> NightVerdicts:
    """Judge every series that ran, or should have run, in a night.

    :param night: ``YYYY-MM-DD``; empty: the newest night of the store.
    """
    objects = index.store.objects
    decisions = read_decisions(objects)
    chosen = night or newest_night(index)
    every = [one for one in load_series(index, until=chosen) if one.nights[-1:] == [chosen]]
    return NightVerdicts(
        night=chosen,
        made_at=dt.datetime.now(dt.UTC),
        verdicts=tuple(judge_series(every, decisions, confirmations(objects), metrics)),
    )


def judge_series(
    series: Sequence[Series],
    decisions: Decisions,
    confirmed: Mapping[str, Sequence[Confirmation]] | None = None,
    metrics: Sequence[str] = tuple(METRICS),
) -> list[VerdictRecord]:
    """Judge series together: false discoveries are controlled over all of them.

    A worse level that nobody accepted stays an open regression on the nights after it, however usual it has become.
    """
    made = confirmed or {}
    owners, findings = [], []
    for one in series:
        for metric in metrics:
            history = one.history(metric, decisions)
            if any(value is not None for value in history.values):
                owners.append((one, metric))
                findings.append(examine(history))
    tonight: dict[str, Decision] = {}
    for finding, (one, metric) in zip(findings, owners, strict=True):
        since = max(decisions.since(one.id, metric), *one.nights[-NIGHTS_TO_FIND:][:1])
        for rerun in made.get(finding.key, ()):
            # A confirmation holds while its night is within what is tested; nobody re-runs the same finding nightly.
            if rerun.night == finding.night or (rerun.decision == "confirmed" and since <= rerun.night):
                tonight[finding.key] = rerun.decision
    return [
        _still_open(_record(one, metric, verdict), one, made.get(verdict.finding.key, ()))
        for (one, metric), verdict in zip(owners, judge(findings, tonight), strict=True)
    ]


def newest_night(index: Index) -> str:
    """Return the newest night with a result or a run, empty for an empty store."""
    (row,) = index.query(
        "SELECT max(night) AS night FROM (SELECT night, dag_id FROM results UNION ALL SELECT night, dag_id FROM runs) "
        "WHERE dag_id <> ?",
        [RERUN_DAG],
    )
    return str(row["night"] or "")


def keep(objects: Objects, made: NightVerdicts) -> str:
    """Keep a night's verdicts; return their URI. Judging again after a re-run replaces them."""
    path = f"{FOLDER}/{made.night}.json"
    objects.put(path, made.model_dump_json(indent=1).encode())
    return objects.url(path)


def read_night(objects: Objects, night: str = "") -> NightVerdicts | None:
    """Return the kept verdicts of a night, or of the newest judged one."""
    path = f"{FOLDER}/{night}.json" if night else max((info.path for info in objects.list(FOLDER)), default="")
    data = objects.get(path) if path else None
    return None if data is None else parse(NightVerdicts, data, path)


def keep_confirmation(objects: Objects, made: Confirmation) -> None:
    """Keep what a re-run said."""
    name = f"{CONFIRMATIONS}/{made.night}/{made.series}-{made.metric}.json"
    objects.put(name, made.model_dump_json(indent=1).encode())


def confirmations(objects: Objects) -> dict[str, list[Confirmation]]:
    """Return the outcomes of all re-runs by series and metric, oldest first."""
    found: dict[str, list[Confirmation]] = {}
    for path in sorted(info.path for info in objects.list(CONFIRMATIONS)):
        one = parse(Confirmation, objects.get(path) or b"", path)
        found.setdefault(f"{one.series}/{one.metric}", []).append(one)
    return found


def suspects(series: Series, since: str) -> tuple[str, ...]:
    """Return what changed between the last good night before ``since`` and the first bad one."""
    chosen = {night: row for night, row in series.by_night().items() if series.usable(row)}
    good = max((night for night in chosen if night < since), default="")
    bad = min((night for night in chosen if night >= since), default="")
    if not good or not bad:
        return ()
    found = tuple(f"{change} (between {good} and {bad})" for change in changes(chosen[good], chosen[bad]))
    return found or (f"nothing that is recorded changed between {good} and {bad}",)


def _still_open(made: VerdictRecord, series: Series, reruns: Sequence[Confirmation]) -> VerdictRecord:
    """Return the verdict with the last worse change of level that is neither accepted, undone nor refuted."""
    if made.outcome == "fail" or not made.changes:
        return made
    last = made.changes[-1]
    worse = last.low > LEAST_EFFECT if METRICS[made.metric] == "higher" else last.high < -LEAST_EFFECT
    since = [one for one in reruns if one.night >= last.night]
    if not worse or any(one.decision == "refuted" for one in since):
        return made
    confirmed = any(one.decision == "confirmed" for one in since)
    if made.confirm and not confirmed:
        return made
    size = f"{last.effect:+.1%} [{last.low:+.1%}, {last.high:+.1%}]"
    how = "confirmed by a re-run" if confirmed else "never confirmed by a re-run"
    return made.model_copy(
        update={
            "outcome": "fail" if confirmed else "inconclusive",
            "reason": f"worse by {size} since {last.night}, not accepted; {how}",
            "confirm": False,
            "suspects": suspects(series, last.night),
        }
    )


def _record(series: Series, metric: str, made: SeriesVerdict) -> VerdictRecord:
    found = made.finding
    suspicious = made.confirm or made.outcome == "fail"
    since = _began(series, made) if suspicious else ""
    return VerdictRecord(
        series=series.id,
        name=series.name,
        metric=metric,
        night=found.night,
        outcome=made.outcome,
        reason=_gap_reason(series) or made.reason,
        effect=_known(found.effect),
        low=_known(found.low),
        high=_known(found.high),
        q=made.q,
        detectable=_known(found.seen),
        noise_cv=_known(found.noise.cv) if found.noise else None,
        drift=found.drift,
        reference_first=found.first,
        reference_last=found.last,
        reference_nights=found.reference_nights,
        changes=tuple(
            ChangeOfLevel(night=night, effect=one.effect, low=one.low, high=one.high) for night, one in found.changes
        ),
        suspects=suspects(series, since) if since else (),
        confirm=made.confirm,
        page=made.page,
        failed_nights_in_a_row=streak(series),
    )


def _began(series: Series, made: SeriesVerdict) -> str:
    """The first of the nights that are suspected."""
    usable = [night for night, row in sorted(series.by_night().items()) if series.usable(row)]
    return usable[-made.finding.window] if made.finding.window and len(usable) >= made.finding.window else ""


def _gap_reason(series: Series) -> str:
    run: Mapping[str, Any] | None = series.gaps.get(series.nights[-1])
    if run is None:
        return ""
    count = streak(series)
    return f"no result: {run['state']} in {run['failed_stage'] or '?'}: {run['reason']} ({count} night(s) in a row)"


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
