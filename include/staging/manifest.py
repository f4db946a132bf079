"""The manifest of a staged revision: the commit. No manifest, not staged."""

from __future__ import annotations

import datetime as dt
from typing import Any

from pydantic import ValidationError

from include.canonical import canonical_json, digest
from include.catalog.base import JsonObject, Spec
from include.errors import IntegrityError

MANIFEST_NAME = "manifest.json"
FILES_FOLDER = "files"


class ManifestFile(Spec):
    """One staged file.

    :param path: below ``files/``.
    :param sha256: hex; of the bytes as they passed through.
    :param crc64nvme: base64 of the full-object checksum, ours; equals the store's where it reports one.
    """

    path: str
    size: int
    sha256: str
    crc64nvme: str
    etag: str


class Manifest(Spec):
    """Every file of a staged revision, and where it came from."""

    schema_version: int = 1
    name: str
    revision: str
    source: JsonObject
    files: tuple[ManifestFile, ...]
    total_bytes: int
    license: str = ""
    created_at: dt.datetime
    created_by: str = ""

    @property
    def digest(self) -> str:
        """``sha256:<hex>`` of the canonical JSON: the same for equal content and origin.

        When and by which run it was written is not part of the identity: two stagings of the same bytes agree.
        """
        return digest(self.model_dump(mode="json", exclude={"created_at", "created_by"}))

    def to_bytes(self) -> bytes:
        """Return the manifest as it is stored, its digest included."""
        return canonical_json({**self.model_dump(mode="json"), "digest": self.digest})

    @classmethod
    def from_bytes(cls, data: bytes, where: str) -> Manifest:
        """Read a stored manifest.

        :raises IntegrityError: when it is not valid, or its digest is not that of its content.
        """
        import json

        try:
            content: dict[str, Any] = json.loads(data)
            stated = content.pop("digest", None)
            manifest = cls.model_validate(content)
        except (ValueError, AttributeError, TypeError, ValidationError) as error:
            raise IntegrityError(
                "ManifestInvalid", f"{where} is not a manifest: {error}", fix=_RESTAGE.format(where=where)
            ) from error
        if stated != manifest.digest:
            raise IntegrityError(
                "ManifestChanged",
                f"{where} states digest {stated} but its content has {manifest.digest}",
                fix=_RESTAGE.format(where=where),
            )
        return manifest


_RESTAGE = "somebody changed {where}; stage again with --repair after finding out who writes to this prefix"
