"""What staging needs from outside: credentials and addresses, never in a manifest, a log or a repr."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StagingContext:
    """Sessions and tokens of one staging.

    :param session: ``boto3.Session`` for source and target; ``None``: the ambient one.
    :param source_session: for a source in S3 that has a connection of its own.
    :param expected_bucket_owner: account that must own the target bucket; asked with every control call, so before the
        first byte, before the manifest is written and before anything is deleted. What moves bytes cannot ask.
    :param kube: Kubernetes ``ApiClient``, for copies to FSx that run in the cluster.
    :param kms_key: ARN or id: staged objects are encrypted with it; ``None``: as the bucket says.
    :param storage_class: of staged objects; ``None``: the bucket's.
    :param reading: told how far the digests of a local source are, which are computed before it is staged.
    :param tags: of staged objects, for cost reports and policies.
    :param regions: of buckets that turned out to be elsewhere than ``region``, learned from their answers.
    :param lock_stale_seconds: silence after which another stager of the revision counts as dead.
    """

    session: Any = None
    source_session: Any = None
    region: str | None = None
    hf_token: str | None = field(default=None, repr=False)
    hf_endpoint: str | None = None
    expected_bucket_owner: str | None = None
    kube: Any = None
    kms_key: str | None = None
    storage_class: str | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    lock_stale_seconds: float = 30.0
    reading: ProgressCallback | None = field(default=None, repr=False, compare=False)
    regions: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    def s3(self, region: str | None = None, anonymous: bool = False) -> Any:
        """Return a boto3 S3 client for control calls.

        :param region: instead of the context's.
        :param anonymous: ask without credentials, as public buckets allow.
        """
        import boto3
        from botocore import UNSIGNED
        from botocore.config import Config

        session, signed = self.session or boto3.Session(), {"signature_version": UNSIGNED} if anonymous else {}
        config = Config(retries={"mode": "adaptive", "max_attempts": 6}, **signed)
        return session.client("s3", region_name=region or self.region, config=config)

    def encryption_options(self) -> dict[str, Any]:
        """Return obstore's options for the KMS key, when there is one."""
        return {"server_side_encryption": "aws:kms", "sse_kms_key_id": self.kms_key} if self.kms_key else {}

    def owner_arguments(self) -> dict[str, str]:
        """Return ``ExpectedBucketOwner`` when one is asked for."""
        return {"ExpectedBucketOwner": self.expected_bucket_owner} if self.expected_bucket_owner else {}


@dataclass(frozen=True)
class Progress:
    """How far a staging is: bytes done and in all, bytes per second, seconds left, current file."""

    done: int
    total: int
    rate: float
    eta_s: float | None
    file: str

    def __str__(self) -> str:
        share = 100 * self.done / self.total if self.total else 100.0
        eta = "" if self.eta_s is None else f", {self.eta_s:.0f} s left"
        return f"{self.done / 1e6:.1f} of {self.total / 1e6:.1f} MB ({share:.0f} %), {self.rate / 1e6:.0f} MB/s{eta}"


ProgressCallback = Callable[[Progress], None]
