"""What a process of the kill tests does; imported by the fork server, so that a child starts in milliseconds."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

import awscrt.checksums
import boto3
import obstore.store  # noqa: F401

from include.local import s3
from include.staging.api import resolve_revision, stage
from include.staging.context import StagingContext
from tests.include.staging.conftest import MODELS_URI, model_of


def stage_folder(folder: str, name: str, owner: str, answer: Connection | None = None) -> None:
    """Stage a folder; send the manifest's digest and the bytes moved."""
    boto3.set_stream_logger("botocore", 50)
    assert awscrt.checksums.crc64nvme(b"") == 0
    context = StagingContext(region=s3.REGION, lock_stale_seconds=3)
    model = model_of(Path(folder), name)
    staged = stage(model, resolve_revision(model, context), MODELS_URI, context, owner=owner)
    if answer is not None:
        answer.send((staged.manifest_digest, staged.moved_bytes))
