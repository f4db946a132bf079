"""How files are cut into ranges."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

AT_ONCE = 4


class Range(NamedTuple):
    """One range of one file, by its number in a list; ``end`` is the first byte behind it."""

    file: int
    begin: int
    end: int


def split(sizes: Sequence[int], part: int) -> list[Range]:
    """Return the ranges of files, of ``part`` bytes at most; an empty file has none.

    A few files take turns: writers of one file wait for each other. All at once would leave none finished when the
    reading is interrupted.
    """
    groups = [range(first, min(first + AT_ONCE, len(sizes))) for first in range(0, len(sizes), AT_ONCE)]
    return [span for group in groups for span in sorted(_ranges(group, sizes, part), key=_begin_first)]


def _ranges(group: range, sizes: Sequence[int], part: int) -> Iterator[Range]:
    for number in group:
        for begin in range(0, sizes[number], part):
            yield Range(number, begin, min(begin + part, sizes[number]))


def _begin_first(span: Range) -> tuple[int, int]:
    return span.begin, span.file
