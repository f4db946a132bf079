"""Markers of files that the query index has not seen: written before the file, removed after it is indexed."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from include.objects import Objects

Kind = Literal["results", "runs"]
FOLDER = "index/pending"


@dataclass(frozen=True)
class Marker:
    """One file to index: where the marker is, what it points to, when it was written."""

    path: str
    kind: Kind
    target: str
    written_at: dt.datetime


def note(objects: Objects, kind: Kind, target: str) -> None:
    """Mark a file, before it is written: a crash in between leaves a marker too many, never one too few.

    Every write has a marker of its own, so that removing one that was seen cannot remove a later one.
    """
    now = dt.datetime.now(dt.UTC).isoformat()
    name = hashlib.sha256(f"{target}|{now}|{secrets.token_hex(4)}".encode()).hexdigest()[:32]
    content = {"target": target, "written_at": now}
    objects.put(f"{FOLDER}/{kind}/{name}.json", json.dumps(content).encode())


def pending(objects: Objects, kind: Kind) -> Iterator[Marker]:
    """Yield the markers of one kind."""
    for info in objects.list(f"{FOLDER}/{kind}"):
        data = objects.get(info.path)
        if data is not None:
            content = json.loads(data)
            written = dt.datetime.fromisoformat(content["written_at"])
            yield Marker(info.path, kind, str(content["target"]), written)
