"""The GGUF format as far as its head tells: version, counts, and tensors that fit into the file."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass

from include.errors import IntegrityError
from include.staging.sources import SourceFile

MAGIC = b"GGUF"
VERSIONS = (2, 3)
FIRST_READ = 1 << 20
# A vocabulary of half a million words with its merges takes some 20 MB.
MAX_HEAD = 256 << 20
ALIGNMENT = 32
STRING, ARRAY = 8, 9
# Bytes of a metadata value by its type (gguf.md, gguf_metadata_value_type).
SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# Elements and bytes of a block by tensor type (ggml-common.h). A type that is not here is newer than this list.
BLOCKS = {
    0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
    11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 15: (256, 292), 16: (256, 66), 17: (256, 74),
    18: (256, 98), 19: (256, 50), 20: (32, 18), 21: (256, 110), 22: (256, 82), 23: (256, 136), 24: (1, 1), 25: (1, 2),
    26: (1, 4), 27: (1, 8), 28: (1, 8), 29: (256, 56), 30: (1, 2), 34: (256, 54), 35: (256, 66), 39: (32, 17),
}  # fmt: skip
MAX_DIMENSIONS = 8
DAMAGED = "the file is damaged: fetch it again at the source"


def check_gguf(file: SourceFile) -> None:
    """Check a file's head: its counts can be read to their end, and every tensor's bytes lie inside the file.

    :raises IntegrityError: NotGguf, GgufTruncated, GgufInvalid.
    """
    size = FIRST_READ
    while True:
        head = file.head(size)
        if head[:4] != MAGIC:
            raise IntegrityError("NotGguf", f"{file.path}: does not start with GGUF", fix=DAMAGED)
        try:
            end = _end(_Reader(head))
            break
        except _ShortError as error:
            if size >= file.size:
                raise _truncated(file, f"ends at byte {file.size}, inside its {error}") from error
            if size >= MAX_HEAD:
                raise _invalid(file, f"metadata of more than {MAX_HEAD} bytes") from error
            size *= 4
        except _InvalidError as error:
            raise _invalid(file, str(error)) from error
    if end > file.size:
        raise _truncated(file, f"its tensors end at byte {end}, the file at {file.size}")


def _end(reader: _Reader) -> int:
    """Return the first byte after the last tensor."""
    reader.skip(len(MAGIC))
    version = reader.u32("version")
    if version not in VERSIONS:
        raise _InvalidError(f"version {version}, not {' or '.join(map(str, VERSIONS))} (little-endian)")
    tensors, values = reader.u64("counts"), reader.u64("counts")
    alignment = ALIGNMENT
    for _ in range(values):
        alignment = _metadata(reader) or alignment
    ends = [_tensor(reader, alignment) for _ in range(tensors)]
    start = -(-reader.position // alignment) * alignment
    return start + max(ends) if ends else reader.position


def _metadata(reader: _Reader) -> int | None:
    """Pass a value; return the alignment when it is that."""
    key = reader.string("metadata")
    kind = reader.u32("metadata")
    if key == b"general.alignment" and kind == 4:
        alignment = reader.u32("metadata")
        if alignment == 0 or alignment % 8:
            raise _InvalidError(f"general.alignment is {alignment}")
        return alignment
    _pass(reader, kind)
    return None


def _pass(reader: _Reader, kind: int) -> None:
    if kind == STRING:
        reader.string("metadata")
    elif kind == ARRAY:
        inner, count = reader.u32("metadata"), reader.u64("metadata")
        if inner in SIZES:
            reader.skip(SIZES[inner] * count)
            return
        for _ in range(count):
            _pass(reader, inner)
    elif kind in SIZES:
        reader.skip(SIZES[kind])
    else:
        raise _InvalidError(f"metadata value of type {kind}")


def _tensor(reader: _Reader, alignment: int) -> int:
    """Return where a tensor's data ends, from the start of all data."""
    name = reader.string("tensors").decode(errors="replace")
    count = reader.u32("tensors")
    if count > MAX_DIMENSIONS:
        raise _InvalidError(f"tensor {name} has {count} dimensions")
    shape = [reader.u64("tensors") for _ in range(count)]
    kind, offset = reader.u32("tensors"), reader.u64("tensors")
    if offset % alignment:
        raise _InvalidError(f"tensor {name} starts at {offset}, which is no multiple of {alignment}")
    elements, size = BLOCKS.get(kind, (1, 0))
    if shape and shape[0] % elements:
        raise _InvalidError(f"tensor {name} of type {kind} has rows of {shape[0]}, no multiple of {elements}")
    return offset + math.prod(shape) // elements * size


@dataclass
class _Reader:
    """Reads numbers and strings from the head of a file."""

    data: bytes
    position: int = 0

    def skip(self, size: int, what: str = "metadata") -> int:
        """Go on by ``size``; return where it was."""
        begin = self.position
        if begin + size > len(self.data):
            raise _ShortError(what)
        self.position = begin + size
        return begin

    def u32(self, what: str) -> int:
        return int(struct.unpack_from("<I", self.data, self.skip(4, what))[0])

    def u64(self, what: str) -> int:
        return int(struct.unpack_from("<Q", self.data, self.skip(8, what))[0])

    def string(self, what: str) -> bytes:
        size = self.u64(what)
        begin = self.skip(size, what)
        return self.data[begin : begin + size]


class _ShortError(Exception):
    """More bytes are needed."""


class _InvalidError(Exception):
    """The bytes are not what the format says."""


def _truncated(file: SourceFile, text: str) -> IntegrityError:
    return IntegrityError("GgufTruncated", f"{file.path}: {text}", fix=DAMAGED)


def _invalid(file: SourceFile, text: str) -> IntegrityError:
    return IntegrityError("GgufInvalid", f"{file.path}: {text}", fix=DAMAGED)
