"""What the stage step hands on."""

from __future__ import annotations

from include.catalog.base import Spec


class StagedModel(Spec):
    """A staged revision, verified.

    :param uri: ``s3://bucket/…/<name>/<revision>``; the files are below ``files/``.
    :param total_bytes: size of all files.
    :param moved_bytes: what this run moved; 0 when the revision was already there.
    :param seconds: wall time of moving and verifying.
    """

    name: str
    revision: str
    uri: str
    manifest_uri: str
    manifest_digest: str
    files: int
    total_bytes: int
    moved_bytes: int = 0
    reused: bool = False
    seconds: float = 0.0
