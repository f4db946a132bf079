"""Will this be servable, and is it safe to load? Asked of the source, before a byte moves."""

from __future__ import annotations

import json
from collections.abc import Iterator

from include.catalog.specs import ModelSpec
from include.errors import ConfigurationError, IntegrityError
from include.staging.sources import Listing, SourceFile

PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
WEIGHTS = (".safetensors", ".gguf", *PICKLES)
GGUF_MAGIC = b"GGUF"
MAX_HEADER = 100 << 20


def check_formats(model: ModelSpec, listing: Listing) -> None:
    """Check the weight files of a source.

    :raises ConfigurationError: no weights, or pickles that the model does not allow.
    :raises IntegrityError: a header that is not what the format says.
    """
    weights = [file for file in listing.files if file.path.endswith(WEIGHTS)]
    if not weights:
        raise ConfigurationError(
            "NoWeights",
            f"model {model.name!r}: none of {len(listing.files)} files is {', '.join(WEIGHTS)}",
            fix="correct source.include and source.exclude",
        )
    pickles = [file.path for file in weights if file.path.endswith(PICKLES)]
    if pickles and not model.allow_pickle:
        raise ConfigurationError(
            "PickleRefused",
            f"model {model.name!r}: {', '.join(pickles[:3])} can run code when loaded",
            fix="take a safetensors revision, exclude these files, or set allow_pickle: true if you trust them",
        )
    tensors: set[str] = set()
    for file in weights:
        if file.path.endswith(".gguf"):
            _check_gguf(file)
        elif file.path.endswith(".safetensors"):
            tensors |= _check_safetensors(file)
    _check_index(listing, tensors)


def _check_gguf(file: SourceFile) -> None:
    if _head(file, 4) != GGUF_MAGIC:
        raise IntegrityError("NotGguf", f"{file.path}: does not start with GGUF", fix="the file is damaged")


def _check_safetensors(file: SourceFile) -> set[str]:
    """Check a safetensors header: its length, and data ranges that fill the file without gap (format spec)."""
    length = int.from_bytes(_head(file, 8), "little")
    if length > min(MAX_HEADER, file.size - 8):
        raise IntegrityError(
            "SafetensorsTruncated",
            f"{file.path}: header of {length} bytes in a file of {file.size}",
            fix="the file is damaged",
        )
    try:
        header = json.loads(_head(file, 8 + length)[8:])
        tensors = {name: entry["data_offsets"] for name, entry in header.items() if name != "__metadata__"}
        ranges = sorted((int(begin), int(end)) for begin, end in tensors.values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise IntegrityError(
            "SafetensorsInvalid", f"{file.path}: header: {error}", fix="the file is damaged"
        ) from error
    position = 0
    for begin, end in ranges:
        if begin != position or end < begin:
            raise IntegrityError(
                "SafetensorsInvalid", f"{file.path}: gap at data offset {position}", fix="the file is damaged"
            )
        position = end
    if 8 + length + position != file.size:
        raise IntegrityError(
            "SafetensorsTruncated",
            f"{file.path}: its header describes {8 + length + position} bytes, the file has {file.size}",
            fix="the file is damaged",
        )
    return set(tensors)


def _check_index(listing: Listing, tensors: set[str]) -> None:
    for file in listing.files:
        if not file.path.endswith(".safetensors.index.json"):
            continue
        wanted = set(json.loads(_head(file, file.size))["weight_map"])
        missing = sorted(wanted - tensors)
        if missing:
            raise IntegrityError(
                "ShardMissing",
                f"{file.path}: {len(missing)} tensors are in no shard, first {missing[0]}",
                fix="the source is incomplete; check source.include",
            )


def _head(file: SourceFile, size: int) -> bytes:
    return b"".join(_take(file.open(), size))[:size]


def _take(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk
        size -= len(chunk)
        if size <= 0:
            return
