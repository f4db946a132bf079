"""Repositories of the local hub: a folder each, at one commit."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

# As the Hub's .gitattributes say for weights: large files are kept by LFS, the rest by git.
LFS_SUFFIXES = (".safetensors", ".bin", ".gguf", ".pt")


@dataclass(frozen=True)
class HubFile:
    """One file: where its bytes are, and both digests that the Hub states."""

    name: str
    path: Path
    size: int
    sha256: str
    blob_id: str

    @classmethod
    def read(cls, name: str, path: Path) -> HubFile:
        """Read a file and compute its digests."""
        size = path.stat().st_size
        blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
        sha256 = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(1 << 22):
                blob.update(chunk)
                sha256.update(chunk)
        return cls(name, path, size, sha256.hexdigest(), blob.hexdigest())

    @property
    def lfs(self) -> bool:
        """Whether LFS keeps it."""
        return self.name.endswith(LFS_SUFFIXES)

    @property
    def etag(self) -> str:
        """What the Hub gives as ETag (X-Linked-Etag for LFS)."""
        return self.sha256 if self.lfs else self.blob_id

    def sibling(self) -> dict[str, Any]:
        """The file's entry in a model's information."""
        found: dict[str, Any] = {"rfilename": self.name, "size": self.size, "blobId": self.blob_id}
        return found | ({"lfs": self._pointer} if self.lfs else {})

    def tree_entry(self) -> dict[str, Any]:
        """The file's entry in a tree."""
        found: dict[str, Any] = {"type": "file", "path": self.name, "size": self.size, "oid": self.blob_id}
        return found | ({"lfs": {**self._pointer, "oid": self.sha256}} if self.lfs else {})

    @property
    def _pointer(self) -> dict[str, Any]:
        return {"sha256": self.sha256, "size": self.size, "pointerSize": 134}


@dataclass(frozen=True)
class Repository:
    """A model repository.

    :param tokens: who may read its files when it is gated; empty: everybody.
    :param earlier: its other commits, each with a folder of its own; ``main`` is this one.
    """

    name: str
    folder: Path
    license: str = "apache-2.0"
    tokens: frozenset[str] = field(default_factory=frozenset)
    earlier: tuple[Repository, ...] = ()

    def at(self, revision: str) -> Repository | None:
        """Return the repository at ``main`` or a commit."""
        commits = {"main": self, **{one.commit: one for one in (self, *self.earlier)}}
        return commits.get(revision)

    @cached_property
    def files(self) -> dict[str, HubFile]:
        """The files by name; read once."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        names = [path.relative_to(self.folder).as_posix() for path in paths]
        return {name: HubFile.read(name, path) for name, path in zip(names, paths, strict=True)}

    @cached_property
    def commit(self) -> str:
        """The commit: 40 hex digits that follow from the files."""
        text = "".join(f"{file.name} {file.etag}\n" for file in self.files.values())
        return hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()

    def information(self) -> dict[str, Any]:
        """What ``/api/models/<name>`` answers."""
        return {
            "_id": self.commit[:24],
            "id": self.name,
            "modelId": self.name,
            "sha": self.commit,
            "private": False,
            "disabled": False,
            "gated": "manual" if self.tokens else False,
            "tags": [f"license:{self.license}"],
            "downloads": 0,
            "likes": 0,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "lastModified": "2026-01-01T00:00:00.000Z",
            "cardData": {"license": self.license},
            "siblings": [file.sibling() for file in self.files.values()],
        }
