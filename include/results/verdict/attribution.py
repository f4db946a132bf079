"""What changed between the last good and the first bad run, and which of it is guilty."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# In the order in which people suspect them.
FACTORS = {
    "manifest_digest": "weights",
    "revision": "model revision",
    "image_digest": "image",
    "image": "image tag",
    "engine_version": "engine version",
    "spec_digest": "custom resource",
    "plan_digest": "plan",
    "operator_version": "operator",
    "instance_type": "node type",
    "node_names": "nodes",
    "driver_version": "driver",
    "harness_version": "load generator",
    "workload_digest": "workload",
    "price_id": "price",
}


@dataclass(frozen=True)
class Change:
    """One thing that differs."""

    factor: str
    before: str
    after: str

    def __str__(self) -> str:
        return f"{self.factor}: {_short(self.before)} → {_short(self.after)}"


def _short(value: str) -> str:
    """A digest's first 12 digits tell it apart; the whole one is in the run's provenance."""
    if not value:
        return "(unknown)"
    return re.sub(r"^(sha256:[0-9a-f]{12})[0-9a-f]{52}$", r"\1…", value)


def changes(good: Mapping[str, object], bad: Mapping[str, object]) -> tuple[Change, ...]:
    """Return what differs between two runs, likeliest first; empty when nothing that is recorded changed.

    :param good, bad: rows of the results index, or provenance as a mapping.
    """
    return tuple(
        Change(name, str(good.get(field) or ""), str(bad.get(field) or ""))
        for field, name in FACTORS.items()
        if str(good.get(field) or "") != str(bad.get(field) or "")
    )


def bisect(found: Sequence[Change], is_bad: Callable[[tuple[Change, ...]], bool]) -> tuple[Change, ...]:
    """Return a smallest set of changes that still makes the run bad (delta debugging; Zeller & Hildebrandt 2002).

    :param is_bad: deploys the good state plus the given changes, measures it and says whether it is bad; called with
        every subset at most once. The whole must be bad and the empty set good.
    """
    known: dict[tuple[Change, ...], bool] = {}

    def bad(part: tuple[Change, ...]) -> bool:
        if part not in known:
            known[part] = is_bad(part)
        return known[part]

    suspects, pieces = tuple(found), 2
    while len(suspects) > 1:
        size = -(-len(suspects) // pieces)
        groups = [suspects[place : place + size] for place in range(0, len(suspects), size)]
        smaller = next((group for group in groups if bad(group)), None)
        rest = None
        if smaller is None and len(groups) > 2:
            rests = (tuple(c for c in suspects if c not in group) for group in groups)
            rest = next((part for part in rests if bad(part)), None)
        if smaller is not None:
            suspects, pieces = smaller, 2
        elif rest is not None:
            suspects, pieces = rest, max(pieces - 1, 2)
        elif size == 1:
            break
        else:
            pieces = min(len(suspects), pieces * 2)
    return suspects
