"""One thing wrong with what a person wrote, and the error that lists all of them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from include.errors import ConfigurationError

LONGEST_VALUE = 120


@dataclass(frozen=True)
class Problem:
    """A field (dotted path), its value as written, and what to do."""

    field: str
    value: str
    fix: str

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.fix}"


def problem(field: str, value: Any, fix: str) -> Problem:
    """Make a problem; long values are cut."""
    text = value if isinstance(value, str) and value in ("absent",) else repr(value)
    text = text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
    return Problem(field, text, fix)


def refuse(problems: Iterable[Problem], *, reason: str, subject: str) -> None:
    """Do nothing when there is no problem.

    :raises ConfigurationError: listing every problem, one a line.
    """
    lines = tuple(dict.fromkeys(str(item) for item in problems))
    if lines:
        raise ConfigurationError(
            reason,
            f"{subject}: {len(lines)} problem(s):\n  " + "\n  ".join(lines),
            fix="correct the fields named above; nothing was started",
            evidence=lines,
        )
