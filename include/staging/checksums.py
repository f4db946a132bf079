"""The checksum that S3 states of an object, computed of its bytes as they pass: of the whole, or of its parts."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

# The cheap ones first: S3 keeps one, other stores may keep several.
ALGORITHMS = ("CRC64NVME", "CRC32C", "CRC32", "SHA256", "SHA1")


@dataclass(frozen=True)
class Stated:
    """What S3 says of an object.

    :param value: as S3 writes it: base64, of composite checksums with ``-<parts>`` behind it.
    :param part_bytes: size of the parts that a composite checksum is of; 0: it is of the whole object.
    """

    algorithm: str
    value: str
    part_bytes: int = 0

    @property
    def sha256(self) -> str | None:
        """Hex, when that is what is stated of the whole object."""
        if self.algorithm != "SHA256" or self.part_bytes:
            return None
        return base64.b64decode(self.value).hex()


def stated(head: Mapping[str, Any], part_bytes: Callable[[], int]) -> Stated | None:
    """Return what a HEAD answer states; ``None`` when it is nothing that can be computed again.

    :param part_bytes: asked for the size of the first part, when the checksum is of parts.
    """
    for algorithm in ALGORITHMS:
        value = head.get(f"Checksum{algorithm}")
        if value is None:
            continue
        if "-" not in value:
            return Stated(algorithm, value)
        size, count = part_bytes(), int(value.rpartition("-")[2])
        # Parts of several sizes: nobody says which.
        return Stated(algorithm, value, size) if size and -(-head["ContentLength"] // size) == count else None
    return None


@dataclass
class Running:
    """A stated checksum's like, of the bytes that have passed."""

    stated: Stated
    _sum: _Sum = field(init=False)
    _parts: list[bytes] = field(default_factory=list)
    _in_part: int = 0

    def __post_init__(self) -> None:
        self._sum = _Sum(self.stated.algorithm)

    def add(self, chunk: bytes) -> None:
        """Count a chunk in."""
        view, size = memoryview(chunk), self.stated.part_bytes
        while size and self._in_part + len(view) >= size:
            rest = size - self._in_part
            self._sum.add(view[:rest])
            self._end_part()
            view = view[rest:]
        self._sum.add(view)
        self._in_part += len(view)

    def text(self) -> str:
        """Return the checksum as S3 writes it."""
        if not self.stated.part_bytes:
            return base64.b64encode(self._sum.digest()).decode()
        if self._in_part:
            self._end_part()
        whole = _Sum(self.stated.algorithm)
        whole.add(b"".join(self._parts))
        return f"{base64.b64encode(whole.digest()).decode()}-{len(self._parts)}"

    def _end_part(self) -> None:
        self._parts.append(self._sum.digest())
        self._sum, self._in_part = _Sum(self.stated.algorithm), 0


class _Sum:
    """One checksum of S3's algorithms."""

    def __init__(self, algorithm: str) -> None:
        self._hash = hashlib.new(algorithm, usedforsecurity=False) if algorithm.startswith("SHA") else None
        self._crc, self._bytes = 0, 8 if algorithm == "CRC64NVME" else 4
        self._algorithm = algorithm.casefold()

    def add(self, data: bytes | memoryview) -> None:
        if self._hash is not None:
            self._hash.update(data)
            return
        from awscrt import checksums

        self._crc = getattr(checksums, self._algorithm)(data, self._crc)

    def digest(self) -> bytes:
        return self._crc.to_bytes(self._bytes, "big") if self._hash is None else self._hash.digest()
