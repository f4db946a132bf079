"""The Prometheus text exposition format, version 0.0.4, as far as samples go."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\\n]|\\.)*)"\s*(,|(?=\}))')
_ESCAPE = re.compile(r"\\(.)")


class Sample(msgspec.Struct, frozen=True):
    """One value of one series."""

    name: str
    labels: tuple[tuple[str, str], ...]
    value: float


def parse(text: str) -> Iterator[Sample]:
    """Yield the samples of a page; comments, and lines that are none, are stepped over."""
    for line in text.split("\n"):
        sample = _sample(line.strip())
        if sample is not None:
            yield sample


def _sample(line: str) -> Sample | None:
    name = _NAME.match(line)
    if name is None or line.startswith("#"):
        return None
    rest = line[name.end() :].lstrip()
    labels: list[tuple[str, str]] = []
    if rest.startswith("{"):
        at = 1
        while (label := _LABEL.match(rest, at)) is not None:
            labels.append((label[1], _ESCAPE.sub(lambda m: {"n": "\n"}.get(m[1], m[1]), label[2])))
            at = label.end()
        if rest[at : at + 1] != "}":
            return None
        rest = rest[at + 1 :]
    fields = rest.split()
    if not 1 <= len(fields) <= 2:
        return None
    try:
        return Sample(name[0], tuple(sorted(labels)), float(fields[0]))
    except ValueError:
        return None
