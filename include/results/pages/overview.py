"""The first page: which series are fine, which are not, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from include.results.pages.board import PAGE_SIZE, Board
from include.results.pages.chart import sparkline
from include.results.pages.html import Html, badge, el, figure, form, link, page, table
from include.results.series import LABELS, Series, streak
from include.results.verdicts import VerdictRecord

ORDER = {"fail": 0, "inconclusive": 1, "pass": 2}

LEGEND = (
    "A series is one model, workload and load (c=4: four requests at a time; rate=2: two a second) on one kind of "
    "machine; each night adds a run. TTFT: time to the first token; p50: half of the requests were faster. "
    "fail: worse than its reference nights, and re-runs confirmed it. inconclusive: suspected and not yet run again, "
    "or too little is known to rule a worsening out; the reason says which."
)


def overview(board: Board, find: str = "", number: int = 1) -> str:
    """Return the page of the latest verdicts; the worst metric stands for a series."""
    series, count = board.series(find, number)
    verdicts = board.verdicts(series)
    rows = [(_worst(verdicts[one.id]), one) for one in series]
    rows.sort(key=lambda row: (ORDER[row[0].outcome] if row[0] else 3, not (row[0] and row[0].confirm)))
    tally = Counter(worst.outcome if worst else "inconclusive" for worst, _ in rows)
    failing = sum(1 for one in series if streak(one))
    cards = [el("li", el("b", tally[name]), badge(name)) for name in ("fail", "inconclusive", "pass")] + [
        el("li", el("b", failing), "series without a result in their newest night")
    ]
    return page(
        "Latest verdicts",
        "verdicts",
        el("ul", cards, class_="cards", aria_label="Summary of this page"),
        _search(find),
        table(
            f"Series {(number - 1) * PAGE_SIZE + 1 if count else 0} to {min(count, number * PAGE_SIZE)} of {count}",
            ("Series", "Verdict", "Why", "TTFT p50, all nights", "TTFT p50", "Tokens/s", "Newest night"),
            [_row(one, worst, verdicts[one.id]) for worst, one in rows],
            empty="No results match." if find else "No results yet: run the Dag nightly_benchmark or release_model.",
        ),
        pager("verdicts", number, count, q=find),
        el("p", LEGEND, class_="soft"),
    )


def pager(name: str, number: int, count: int, **query: str) -> Html:
    """Return links to the pages before and after."""
    before = link("← Newer", name, page=str(number - 1), **query) if number > 1 else None
    after = link("Older →", name, page=str(number + 1), **query) if number * PAGE_SIZE < count else None
    return el("p", before, " ", after)


def _row(one: Series, worst: VerdictRecord | None, verdicts: Sequence[VerdictRecord]) -> tuple[Html | str, ...]:
    chosen, nights = one.by_night(), one.nights
    values = [_value(chosen, night, one) for night in nights[-60:]]
    last = one.rows[-1]
    gaps = f", {streak(one)} failed night(s) in a row" if streak(one) else ""
    affected = [verdict.metric for verdict in verdicts if worst and verdict.outcome == worst.outcome != "pass"]
    others = f" (and {len(affected) - 1} more figures)" if len(affected) > 1 else ""
    why = f"{LABELS[worst.metric].split(',')[0]}: {worst.reason}{others}" if worst else "no figures"
    return (
        link(one.name, "series", id=one.id),
        badge(worst.outcome if worst else "inconclusive"),
        el("div", why, class_="why"),
        sparkline(values, f"TTFT p50 of {len(nights)} nights{gaps}"),
        figure(last["ttft_ms_p50"], "ms"),
        figure(last["output_tokens_per_s"]),
        f"{nights[-1]}{gaps}",
    )


def _value(chosen: Mapping[str, Mapping[str, object]], night: str, one: Series) -> float | None:
    row = chosen.get(night)
    value = row["ttft_ms_p50"] if row is not None and one.usable(row) else None
    return float(value) if isinstance(value, float) else None


def _worst(verdicts: Sequence[VerdictRecord]) -> VerdictRecord | None:
    return min(verdicts, key=lambda one: (ORDER[one.outcome], not one.confirm, not one.changes), default=None)


def _search(find: str) -> Html | None:
    field = el("label", "Find by model, workload, load or type", el("input", type="search", name="q", value=find))
    return form(field, el("button", "Find", type="submit"), action="verdicts", role="search")
