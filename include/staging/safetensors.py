"""The safetensors format as far as a header tells: lengths, types, ranges; and the index of several files."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any

from include.errors import IntegrityError
from include.staging.sources import SourceFile

INDEX = ".index.json"
# The format's own limit (safetensors/src/tensor.rs, MAX_HEADER_SIZE).
MAX_HEADER = 100_000_000
# Most headers fit: one request each.
FIRST_READ = 256 << 10
# Bits of one element. A type that is not here is newer than this list: its size is left to the ranges.
BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "U16": 16, "I16": 16, "U32": 32, "I32": 32, "U64": 64, "I64": 64,
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8,
    "F8_E5M2FNUZ": 8, "F16": 16, "BF16": 16, "F32": 32, "F64": 64, "C64": 64,
}  # fmt: skip
DAMAGED = "the file is damaged: fetch it again at the source"


def tensors_of(file: SourceFile) -> frozenset[str]:
    """Check a file's header, and return the names of its tensors.

    :raises IntegrityError: SafetensorsTruncated, SafetensorsInvalid.
    """
    head = file.head(FIRST_READ)
    length = int.from_bytes(head[:8], "little")
    if len(head) < 8 or length > min(MAX_HEADER, file.size - 8):
        raise _truncated(file, f"header of {length} bytes in a file of {file.size}")
    if len(head) < 8 + length:
        head = file.head(8 + length)
    entries = _entries(file, head[8 : 8 + length])
    end = _filled(file, entries)
    if 8 + length + end != file.size:
        raise _truncated(file, f"its header describes {8 + length + end} bytes, the file has {file.size}")
    return frozenset(entries)


def _entries(file: SourceFile, header: bytes) -> dict[str, Any]:
    try:
        found = json.loads(header)
    except ValueError as error:
        raise _invalid(file, f"header is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise _invalid(file, "header is not a JSON object")
    return {name: entry for name, entry in found.items() if name != "__metadata__"}


def _filled(file: SourceFile, entries: Mapping[str, Any]) -> int:
    """Return where the data ends; its ranges follow each other without gap and are as long as shape and type say."""
    position = 0
    for begin, end, name in sorted(_range(file, name, entry) for name, entry in entries.items()):
        if begin != position or end < begin:
            raise _invalid(file, f"gap or overlap at data offset {position}, tensor {name}")
        position = end
    return position


def _range(file: SourceFile, name: str, entry: Any) -> tuple[int, int, str]:
    try:
        begin, end = (_natural(number) for number in entry["data_offsets"])
        elements = math.prod(_natural(number) for number in entry["shape"])
        bits = BITS.get(entry["dtype"])
    except (ValueError, KeyError, TypeError) as error:
        raise _invalid(file, f"tensor {name}: {type(error).__name__}: {error}") from error
    if bits is not None and elements * bits != (end - begin) * 8:
        raise _invalid(
            file, f"tensor {name}: {entry['dtype']} of shape {entry['shape']} does not fill {end - begin} bytes"
        )
    return begin, end, name


def _natural(number: object) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"{number!r} is no size")
    return number


def check_index(
    file: SourceFile, paths: frozenset[str], tensors: Mapping[str, frozenset[str]], fix: str
) -> None:  # fmt: skip
    """Check that each shard of an index is listed and holds the tensors that the index looks for in it.

    :param paths: of all files of the source.
    :param tensors: names by file, of the files whose tensors are known.
    :raises IntegrityError: IndexInvalid, ShardMissing, TensorMissing.
    """
    for shard, wanted in sorted(_shards(file).items()):
        path = (PurePosixPath(file.path).parent / shard).as_posix()
        if path not in paths:
            raise IntegrityError(
                "ShardMissing", f"{file.path}: {path}, with {len(wanted)} of its tensors, is not in the source", fix=fix
            )
        missing = sorted(wanted - tensors.get(path, wanted))
        if missing:
            raise IntegrityError(
                "TensorMissing",
                f"{file.path}: {path} lacks {len(missing)} of its tensors, first {missing[0]}",
                fix="index and shards are of different revisions: correct the source",
            )


def _shards(file: SourceFile) -> dict[str, set[str]]:
    try:
        content = json.loads(file.head(file.size))
        weight_map = content["weight_map"]
        found: dict[str, set[str]] = {}
        for tensor, shard in weight_map.items():
            found.setdefault(str(shard), set()).add(str(tensor))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            "IndexInvalid",
            f"{file.path}: not an index with a weight_map: {type(error).__name__}: {error}",
            fix=DAMAGED,
        ) from error
    return found


def _truncated(file: SourceFile, text: str) -> IntegrityError:
    return IntegrityError("SafetensorsTruncated", f"{file.path}: {text}", fix=DAMAGED)


def _invalid(file: SourceFile, text: str) -> IntegrityError:
    return IntegrityError("SafetensorsInvalid", f"{file.path}: {text}", fix=DAMAGED)
