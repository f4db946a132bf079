"""What a process of the kill tests does; imported by the fork server, so that a child starts in milliseconds."""

from __future__ import annotations

import datetime as dt
import os
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import awscrt.checksums
import boto3
import obstore.store  # noqa: F401

from include.catalog.specs import ModelSpec
from include.local import s3
from include.staging.api import resolve_revision, stage
from include.staging.collect import Staged, delete
from include.staging.context import StagingContext
from include.staging.fetch import fetch
from include.staging.target import Target
from tests.include.staging.conftest import MODELS_URI, model_of


@dataclass(frozen=True)
class Work:
    """One piece of work of a process.

    :param does: stage, repair, delete or fetch.
    :param hub: address of the Hub that has the folder as ``org/model``; empty: the folder is the source.
    :param store: address of S3; empty: the environment's.
    :param to: where fetch writes to.
    """

    folder: str
    name: str
    owner: str
    does: str = "stage"
    hub: str = ""
    store: str = ""
    to: str = ""

    @property
    def context(self) -> StagingContext:
        return StagingContext(region=s3.REGION, lock_stale_seconds=3, hf_endpoint=self.hub or None)

    @property
    def model(self) -> ModelSpec:
        source = {"source": {"type": "huggingface", "repo": "org/model"}} if self.hub else {}
        return model_of(Path(self.folder), self.name, **source)


def run(work: Work, answer: Connection | None = None) -> None:
    """Do it; send the manifest's digest and the bytes moved."""
    if work.store:
        os.environ["AWS_ENDPOINT_URL_S3"] = work.store
    boto3.set_stream_logger("botocore", 50)
    assert awscrt.checksums.crc64nvme(b"") == 0
    done = _do(work, resolve_revision(work.model, work.context))
    if answer is not None:
        answer.send(done)


def _do(work: Work, revision: str) -> tuple[str, int]:
    target = Target.open(MODELS_URI, work.name, revision, work.context)
    if work.does == "fetch":
        return "", fetch(target, Path(work.to)).moved_bytes
    if work.does == "delete":
        now = dt.datetime.now(dt.UTC)
        return "", delete(MODELS_URI, Staged(work.name, revision, now, True, 0, 0), work.context)
    staged = stage(
        work.model, revision, MODELS_URI, work.context, owner=work.owner, repair=work.does == "repair"
    )  # fmt: skip
    return staged.manifest_digest, staged.moved_bytes
