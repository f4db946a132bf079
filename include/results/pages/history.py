"""One series over its nights: level, changes of level, failed nights, invalid ones, and what changed with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from include.results.decisions import Decisions
from include.results.pages.board import Board
from include.results.pages.chart import Chart, spread
from include.results.pages.curve import curve
from include.results.pages.html import Html, badge, el, facts, figure, link, page, percent, table
from include.results.series import LABELS, METRICS, Series, streak
from include.results.verdicts import Confirmation, VerdictRecord, suspects

OUTLIER_SIGMAS = 4.0


def history(board: Board, series: Series, metric: str) -> str:
    """Return a series' page."""
    verdicts = board.verdicts([series])[series.id]
    mine = next((one for one in verdicts if one.metric == metric), None)
    decisions = board.decisions()
    return page(
        series.name,
        "verdicts",
        _choice(series, metric),
        _told(series, mine),
        el("figure", _chart(series, metric, mine), el("figcaption", _legend(series, metric, mine))),
        _changes(series, metric, mine),
        table(
            "Verdicts on the newest night",
            ("Metric", "Verdict", "Why", "Noise (CV)", "Smallest change seen"),
            [
                (LABELS[v.metric], badge(v.outcome), v.reason, percent(v.noise_cv).lstrip("+"),
                 percent(v.detectable).lstrip("+"))
                for v in verdicts
            ],
        ),
        _reruns(board.reruns(series)),
        el("h2", "Throughput and latency"),
        curve(board.levels(series)),
        _nights(series, metric, mine),
        _decisions(decisions, series),
        el("h2", "What makes runs comparable"),
        facts((name.replace("_", " "), value) for name, value in series.identity.items()),
    )  # fmt: skip


def _choice(series: Series, metric: str) -> Html:
    entries = [
        el("b", LABELS[name], aria_current="true") if name == metric
        else link(LABELS[name], "series", id=series.id, metric=name)
        for name in METRICS
    ]  # fmt: skip
    return el("nav", entries, aria_label="Metric", class_="choice")


def _told(series: Series, made: VerdictRecord | None) -> Html:
    said = [el("p", badge(made.outcome), " ", made.reason)] if made else []
    if made and made.suspects:
        said += [el("p", "What changed: ", suspect) for suspect in made.suspects]
    if series.gaps:
        reasons = ", ".join(f"{night} ({gap['reason'] or gap['state']})" for night, gap in sorted(series.gaps.items()))
        row = f"; the newest {streak(series)} in a row" if streak(series) else ""
        said.append(el("p", f"{len(series.gaps)} night(s) without a result: {reasons}{row}."))
    return el("div", said, class_=f"notice {made.outcome if made else ''}", role="status")


def outliers(series: Series, metric: str, made: VerdictRecord | None) -> dict[str, float]:
    """Return nights that stand alone: beyond four times the noise on both sides' level; relative deviation."""
    chosen = series.by_night()
    known = [(n, float(chosen[n][metric])) for n in series.nights if n in chosen and chosen[n][metric]]
    noise = made.noise_cv if made and made.noise_cv else 0.05
    found = {}
    for place in range(1, len(known) - 1):
        around = [value for _, value in known[max(0, place - 3) : place] + known[place + 1 : place + 4]]
        level = sorted(around)[len(around) // 2]
        off, beside = known[place][1] / level - 1, [abs(value / known[place][1] - 1) for value in around]
        if abs(off) > OUTLIER_SIGMAS * noise and min(beside) > 2 * noise:
            found[known[place][0]] = off
    return found


def _chart(series: Series, metric: str, made: VerdictRecord | None) -> Html:
    nights, chosen = series.nights, series.by_night()
    place = {night: float(number) for number, night in enumerate(nights)}
    values = {n: float(chosen[n][metric]) for n in nights if n in chosen and chosen[n][metric] is not None}
    if not values:
        return el("p", "No night has a value for this metric.")
    low, high = spread(list(values.values()))
    label = f"{LABELS[metric]} of {series.name} over {len(nights)} nights, {len(series.gaps)} of them failed"
    chart = Chart(label, (-0.5, max(len(nights) - 0.5, 1)), (low, high), "night", LABELS[metric])
    if made and made.reference_first in place and made.reference_last in place:
        part = [v for n, v in values.items() if made.reference_first <= n <= made.reference_last]
        middle = sorted(part)[len(part) // 2] if part else low
        width = 2 * middle * (made.noise_cv or 0)
        ends = (place[made.reference_first] - 0.3, place[made.reference_last] + 0.3)
        chart.band(ends, (middle - width, middle + width), "reference level, two times its noise")
    piece: list[tuple[float, float]] = []
    for night in [*nights, ""]:
        if night in values:
            piece.append((place[night], values[night]))
        elif piece:
            chart.line(piece)
            piece = []
    odd = outliers(series, metric, made)
    for night, value in values.items():
        fine = series.usable(chosen[night]) and night not in odd
        why = "" if fine else (f", outlier {odd[night]:+.0%}" if night in odd else ", not comparable")
        chart.dot(place[night], value, f"{night}: {figure(value)}{why}", "dot" if fine else "hollow", 4 if fine else 6)
    for night, off in odd.items():
        chart.text(place[night], values[night], f"outlier {off:+.0%}", "", lift=11)
    for night in series.gaps:
        chart.text(place[night], low, "✗", "gap", lift=4)
    for row, change in enumerate(made.changes if made else ()):
        better = (change.effect < 0) == (METRICS[metric] == "higher")
        chart.upright(place[change.night] - 0.5, f"{change.effect:+.1%} since {change.night}",
                      f"change{' better' if better else ''}", row=row % 3)  # fmt: skip
    step = max(1, len(nights) // 8)
    return chart.svg([(place[night], night[5:]) for night in nights[::step]])


def _legend(series: Series, metric: str, made: VerdictRecord | None) -> str:
    parts = ["● a night", "dashed line: change of level", "shaded: reference"]
    if series.gaps:
        parts.append("✗ failed night, no value")
    if series.overlaps or outliers(series, metric, made) or any(not row["valid"] for row in series.rows):
        parts.append("○ outlier, invalid or shared its endpoint: no baseline")
    return " · ".join(parts)


def _changes(series: Series, metric: str, made: VerdictRecord | None) -> Html:
    rows = []
    for change in reversed(made.changes if made else ()):
        worse = (change.effect > 0) == (METRICS[metric] == "higher")
        what = suspects(series, change.night)
        rows.append((change.night, f"{percent(change.effect)} [{percent(change.low)}, {percent(change.high)}]",
                     "worse" if worse else "better", el("ul", [el("li", item) for item in what])))  # fmt: skip
    return table("Changes of level", ("First night", "Size and 95 % interval", "Direction", "What changed"), rows)


def _nights(series: Series, metric: str, made: VerdictRecord | None) -> Html:
    chosen, rows, odd = series.by_night(), [], outliers(series, metric, made)
    good = ""
    for night in series.nights:
        row, gap = chosen.get(night), series.gaps.get(night)
        if row is None:
            rows.append(_gap(night, gap or {}))
            continue
        note: list[str] = []
        overlap = series.overlaps.get(row["result_id"])
        if overlap:
            note.append(f"shared its endpoint for {overlap.share:.0%} of the time with {', '.join(overlap.others)}")
        if night in odd:
            note.append(f"outlier: {odd[night]:+.0%} against the nights around it")
        note += [row["reasons"]] if row["reasons"] else []
        against = link("against the night before", "compare", a=good, b=row["result_id"]) if good else ""
        good = str(row["result_id"])
        rows.append((link(night, "run", path=row["run_path"]), figure(row[metric]), "; ".join(note), against))
    return table("Nights", ("Night", LABELS[metric], "Note", "Distribution"), rows[::-1])


def _gap(night: str, gap: dict[str, Any]) -> Sequence[Any]:
    where = f"{gap.get('state', 'failed')} in {gap.get('failed_stage') or '?'}"
    said = f"{where}: {gap.get('reason', '')}. {gap.get('message', '')}"
    return (link(night, "run", path=str(gap.get("run_path", ""))), badge("failed"), said, "")


def _reruns(found: Sequence[Confirmation]) -> Html:
    rows = [
        (
            one.night, LABELS[one.metric], one.decision,
            percent(one.effect) + (f" [{percent(one.low)}, {percent(one.high)}]" if one.low is not None else ""),
            f"{one.pairs} pairs with the baseline" if one.pairs else "single repeat",
        )
        for one in found
    ]  # fmt: skip
    return table("Re-runs of suspicions", ("Night", "Metric", "Decision", "Suspect over baseline", "From"), rows,
                 empty="None. The Dag confirm_suspicion runs a suspect cell again before anyone is told.")  # fmt: skip


def _decisions(decisions: Decisions, series: Series) -> Html:
    rows = [
        (f"{one.at:%Y-%m-%d}", one.kind, one.metric, ", ".join(one.nights), one.reason, one.by)
        for one in decisions.of(series.id)
    ]
    return table("Decisions", ("When", "What", "Metric", "Nights", "Reason", "By"), rows,
                 empty="None. Accept a change with: python -m include.results verdict --accept "
                 f"{series.id} --night YYYY-MM-DD --reason …")  # fmt: skip
