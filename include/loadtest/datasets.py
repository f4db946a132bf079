"""Data sets and traces in their published forms, written down in the one plain form that generators read."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec

from include.catalog.specs import PromptSpec
from include.errors import ConfigurationError
from include.loadtest.engine.prompts import Entry, TraceEntry
from include.objects import PROJECT_ROOT, Objects

_SPEAKERS = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PROMPT_FIELDS = ("prompt", "question", "instruction", "inputs", "text", "input")
_LENGTH_FIELDS = ("output_tokens", "output_length", "max_tokens")
MAX_ENTRIES = 100_000


def write_dataset(spec: PromptSpec, target: Path) -> Path:
    """Write a prompt kind's data set as JSON lines of :class:`Entry`; returns ``target``.

    Understood: a field ``prompt`` (or ``question``, ``instruction``, ``inputs``, ``text``, ``input``), OpenAI's
    ``messages``, ShareGPT's ``conversations``; as JSON lines, a JSON array or Parquet. Assistant messages are not
    sent: the server gives its own; with ``turns`` > 1 the later user messages become later turns.

    :raises ConfigurationError: unreadable, or no entry is understood.
    """
    source = str(spec.dataset)
    encode = msgspec.json.Encoder().encode
    count = 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with target.open("wb") as file:
        for row in _rows(source):
            entry = to_entry(row, spec)
            if entry is not None and count < MAX_ENTRIES:
                file.write(encode(entry) + b"\n")
                count += 1
    if not count:
        raise ConfigurationError(
            "EmptyDataset",
            f"{source} has no entry with a prompt, messages or conversations",
            fix="Give JSON lines, a JSON array or Parquet with one of these fields.",
        )
    return target


def to_entry(row: dict[str, Any], spec: PromptSpec) -> Entry | None:
    """Return one row as an entry, ``None`` when it asks nothing."""
    length = next((int(row[name]) for name in _LENGTH_FIELDS if row.get(name)), spec.output_tokens)
    messages = _messages(row)
    if not messages:
        return None
    head = [message for message in messages if message["role"] == "system"][:1]
    users = [message for message in messages if message["role"] == "user"]
    if not users:
        return None
    return Entry([*head, users[0]], users[1 : spec.turns], length)


def _messages(row: dict[str, Any]) -> list[dict[str, Any]]:
    if row.get("messages") is not None:
        return [{"role": m["role"], "content": m.get("content") or ""} for m in row["messages"] if "role" in m]
    if row.get("conversations") is not None:
        return [
            {"role": _SPEAKERS[str(m.get("from", "")).lower()], "content": str(m.get("value") or "")}
            for m in row["conversations"]
            if str(m.get("from", "")).lower() in _SPEAKERS
        ]
    for name in _PROMPT_FIELDS:
        if isinstance(row.get(name), str) and row[name]:
            return [{"role": "user", "content": row[name]}]
    return []


def write_trace(source: str, target: Path) -> Path:
    """Write a recorded trace as JSON lines of :class:`TraceEntry`; returns ``target``.

    Understood: Mooncake's (``timestamp`` ms, ``input_length``, ``output_length``, ``hash_ids`` of 512 tokens), our own
    record files (``scheduled_ns``), and rows with ``at_s`` or ``timestamp_s``.

    :raises ConfigurationError: unreadable, or no row has a time.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    encode = msgspec.json.Encoder().encode
    entries = [entry for entry in map(to_trace_entry, _rows(source)) if entry is not None]
    if not entries:
        raise ConfigurationError(
            "EmptyTrace", f"{source} has no row with timestamp, at_s or scheduled_ns", fix="Give a trace with times."
        )
    start = min(entry.at_s for entry in entries)
    for entry in entries:
        entry.at_s -= start
    target.write_bytes(b"".join(encode(entry) + b"\n" for entry in entries))
    return target


def to_trace_entry(row: dict[str, Any]) -> TraceEntry | None:
    """Return one row of a trace, ``None`` when it has no time or is not a measured request."""
    if row.get("phase") not in (None, "measure"):
        return None
    for name, unit in (("at_s", 1.0), ("timestamp_s", 1.0), ("timestamp", 1e-3), ("scheduled_ns", 1e-9)):
        if row.get(name) is not None:
            return TraceEntry(
                at_s=float(row[name]) * unit,
                input_tokens=_length(row, "input_length", "input_tokens"),
                output_tokens=_length(row, "output_length", "output_tokens"),
                blocks=[int(block) for block in row.get("hash_ids") or ()],
            )
    return None


def _length(row: dict[str, Any], *names: str) -> int:
    return next((int(row[name]) for name in names if row.get(name)), 0)


def _rows(source: str) -> Iterator[dict[str, Any]]:
    """Yield the rows of a JSON, JSON lines or Parquet file at a path or S3 URI."""
    data = _read(source)
    try:
        if data[:4] == b"PAR1":
            import pyarrow as pa
            import pyarrow.parquet as pq

            yield from pq.read_table(pa.BufferReader(data)).to_pylist()
        elif data.lstrip()[:1] == b"[":
            yield from (row for row in json.loads(data) if isinstance(row, dict))
        else:
            lines = (line for line in data.splitlines() if line.strip())
            yield from (row for row in map(json.loads, lines) if isinstance(row, dict))
    except (ValueError, OSError) as error:
        raise ConfigurationError(
            "BadDataset", f"{source} is neither JSON, JSON lines nor Parquet: {error}", fix="Correct the file."
        ) from error


def _read(source: str) -> bytes:
    if source.startswith("s3://"):
        parts = urlsplit(source)
        found = Objects.open(f"s3://{parts.netloc}").get(parts.path.lstrip("/"))
    else:
        path = Path(source) if Path(source).is_absolute() else PROJECT_ROOT / source
        found = path.read_bytes() if path.is_file() else None
    if found is None:
        raise ConfigurationError("NoSuchDataset", f"there is no {source}", fix="Correct the path in the workload.")
    return found
