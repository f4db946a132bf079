"""Alerts: one per trouble, with an owner; told once, closed by itself when the trouble is over."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from include.canonical import digest
from include.catalog.specs import Spec
from include.objects import Objects
from include.results.store import parse
from include.results.verdicts import VerdictRecord

OPEN, CLOSED = "alerts/open", "alerts/closed"


class Trouble(Spec):
    """Something that a person should know now.

    :param key: what it is about; equal for the same trouble on the next night.
    """

    key: str
    kind: Literal["regression", "failed-nights"]
    title: str
    text: str
    owner: str


class Alert(Spec):
    """A trouble that was told to its owner."""

    trouble: Trouble
    opened: str
    last_seen: str
    nights: int = 1
    closed: str = ""


class Reconciled(Spec):
    """What a night changes: only ``opened`` and ``closed`` are told, ``kept`` are not told again."""

    opened: tuple[Alert, ...] = ()
    kept: tuple[Alert, ...] = ()
    closed: tuple[Alert, ...] = ()


def reconcile(known: Sequence[Alert], troubles: Iterable[Trouble], night: str, looked_at: Iterable[str]) -> Reconciled:
    """Set a night's troubles against the open alerts.

    :param looked_at: keys that could be judged this night; an alert about anything else stays open, for silence is
        no proof that it is over.
    """
    by_key = {one.key: one for one in troubles}
    open_keys, judged = {alert.trouble.key for alert in known}, set(looked_at)
    opened = [Alert(trouble=one, opened=night, last_seen=night) for key, one in by_key.items() if key not in open_keys]
    kept, closed = [], []
    for alert in known:
        key = alert.trouble.key
        if key in by_key:
            again = 0 if alert.last_seen == night else 1
            changed = {"trouble": by_key[key], "last_seen": night, "nights": alert.nights + again}
            kept.append(alert.model_copy(update=changed))
        elif key in judged:
            closed.append(alert.model_copy(update={"closed": night}))
        else:
            kept.append(alert)
    return Reconciled(opened=tuple(opened), kept=tuple(kept), closed=tuple(closed))


def regressions(verdicts: Iterable[VerdictRecord], owners: dict[str, str]) -> tuple[list[Trouble], set[str]]:
    """Return the confirmed regressions as troubles, one per series, and the keys that could be judged.

    :param owners: owner by model.
    """
    worst: dict[str, list[VerdictRecord]] = {}
    judged: set[str] = set()
    for one in verdicts:
        if one.outcome != "inconclusive":
            judged.add(f"regression/{one.series}")
        if one.outcome == "fail":
            worst.setdefault(one.series, []).append(one)
    found = []
    for series, mine in worst.items():
        lines = [f"{one.metric}: {one.reason}" for one in mine] + [item for one in mine[:1] for item in one.suspects]
        owner = owners.get(mine[0].name.split(" · ", maxsplit=1)[0], "")
        found.append(
            Trouble(key=f"regression/{series}", kind="regression", title=f"{mine[0].name} is worse",
                    text="\n".join(lines), owner=owner)
        )  # fmt: skip
    return found, judged


def failures(runs: Iterable[dict[str, Any]], owners: dict[str, str], streak: int = 1) -> tuple[list[Trouble], set[str]]:
    """Return cells whose newest ``streak`` or more nights failed, and the keys of all cells that ran.

    :param runs: rows of the runs index, newest first; a failed night counts as often as its reason changes: once.
    """
    newest: dict[str, list[dict[str, Any]]] = {}
    for run in runs:
        if run["state"] != "skipped":
            newest.setdefault(f"{run['dag_id']}/{run['cell'] or run['model']}", []).append(run)
    found = []
    for cell, mine in newest.items():
        count = next((place for place, run in enumerate(mine) if run["state"] == "success"), len(mine))
        if count >= streak and count:
            last = mine[0]
            found.append(
                Trouble(key=f"failed/{cell}", kind="failed-nights", title=f"{cell} failed {count} time(s) in a row",
                        text=f"{last['failed_stage']}: {last['reason']}: {last['message']} Fix: {last['fix']}",
                        owner=owners.get(str(last["model"]), ""))
            )  # fmt: skip
    return found, {f"failed/{cell}" for cell in newest}


def read_open(objects: Objects) -> list[Alert]:
    """Return the open alerts."""
    paths = sorted(info.path for info in objects.list(OPEN))
    return [parse(Alert, data, path) for path in paths if (data := objects.get(path)) is not None]


def keep(objects: Objects, made: Reconciled) -> None:
    """Write what a night changed; a crash between two writes repeats an alert rather than losing it."""
    for alert in (*made.opened, *made.kept):
        objects.put(_path(OPEN, alert), alert.model_dump_json(indent=1).encode())
    for alert in made.closed:
        objects.put(_path(f"{CLOSED}/{alert.closed}", alert), alert.model_dump_json(indent=1).encode())
        objects.delete(_path(OPEN, alert))


def message(alert: Alert) -> str:
    """Return what the owner reads."""
    owner = alert.trouble.owner or "nobody"
    if alert.closed:
        return f"CLOSED {alert.trouble.title}: over on {alert.closed}, open since {alert.opened} (owner: {owner})"
    return f"{alert.trouble.title} (owner: {owner}, since {alert.opened})\n{alert.trouble.text}"


def subject(alert: Alert) -> str:
    """Return one line of at most 100 ASCII characters: what SNS takes as a subject."""
    said = f"{'CLOSED ' if alert.closed else ''}{alert.trouble.title}".replace(" · ", " / ")
    plain = "".join(char if char.isascii() and char.isprintable() else "?" for char in " ".join(said.split()))
    return plain[:100]


def _path(folder: str, alert: Alert) -> str:
    return f"{folder}/{digest(alert.trouble.key).removeprefix('sha256:')[:24]}.json"
