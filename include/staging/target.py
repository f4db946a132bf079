"""Where one revision lives in S3, and what is there now."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from include.errors import ConfigurationError, IntegrityError
from include.objects import ObjectInfo, Objects, s3_options
from include.staging.context import StagingContext
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest
from include.staging.refusals import Asked, explained, is_elsewhere

LOCK_NAME = "staging.lock"
REQUEST_SECONDS = 300
NO_OPTIONS: Mapping[str, Any] = {}
T = TypeVar("T")


def model_prefix(name: str, revision: str) -> str:
    """Return ``<name>/<revision>``, below a cluster's ``models_uri``."""
    return f"{name}/{revision}"


def manifest_of(data: bytes, name: str, revision: str, where: str) -> Manifest:
    """Read the manifest of a revision.

    :raises IntegrityError: it is damaged, or that of another model or revision, which somebody copied here.
    """
    manifest = Manifest.from_bytes(data, where)
    if (manifest.name, manifest.revision) != (name, revision):
        raise IntegrityError(
            "ManifestElsewhere",
            f"{where} is the manifest of {manifest.name}/{manifest.revision}, not of {name}/{revision}",
            fix="find out who copied it here, then stage again with --repair",
        )
    return manifest


def bucket_and_prefix(uri: str, field: str = "models_uri") -> tuple[str, str]:
    """Split ``s3://bucket/prefix``; the prefix has no slash at its ends.

    :raises ConfigurationError: when it is not an s3:// URI.
    """
    # Not as a URL: # and ? are letters of a key.
    scheme, _, rest = uri.partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme != "s3" or not re.fullmatch(r"[\w.:-]+", bucket):
        raise ConfigurationError(
            "TargetInvalid",
            f"{field} = {uri!r} is not an s3:// URI",
            fix=f"write s3://bucket[/prefix] in {field}",
        )
    return bucket, prefix.strip("/")


def open_objects(uri: str, context: StagingContext, **more: Any) -> Objects:
    """Open a prefix for moving bytes: no payload hash in the signature, a checksum that the store verifies.

    :param more: further options of obstore's ``S3Store``.
    """
    from obstore.store import S3Store

    bucket, prefix = bucket_and_prefix(uri)
    region = more.pop("region", None) or context.regions.get(bucket) or context.region
    options = s3_options(session=context.session, region=region)
    options |= {"unsigned_payload": True, "checksum_algorithm": "crc64nvme", **context.encryption_options(), **more}
    options["client_options"] = {"timeout": f"{REQUEST_SECONDS}s", **options.get("client_options", {})}
    return Objects(uri.rstrip("/"), S3Store(bucket, prefix=prefix or None, **options))


def in_its_region(
    uri: str,
    context: StagingContext,
    asked: Asked,
    act: Callable[[Objects], T],
    options: Mapping[str, Any] = NO_OPTIONS,
) -> T:
    """Do something with the objects below a prefix; again, where its bucket is, if that is another region.

    :param options: of :func:`open_objects`; a ``region`` among them is what a person says, and must be right.
    :raises PipelineError: what the store refuses.
    """
    bucket, _ = bucket_and_prefix(uri, asked.field)
    with explained(asked):
        try:
            return act(open_objects(uri, context, **options))
        except Exception as error:
            if not is_elsewhere(error):
                raise
            anonymous = bool(options.get("skip_signature"))
            region = region_of(context.s3(options.get("region"), anonymous), bucket, asked)
            _refuse_region(bucket, region, options.get("region"))
            if not region:
                raise
            context.regions[bucket] = region
        return act(open_objects(uri, context, **options))


def _refuse_region(bucket: str, found: str, stated: str | None) -> None:
    if found and stated and found != stated:
        raise ConfigurationError(
            "RegionWrong",
            f"source.region = {stated!r}, but bucket {bucket!r} is in {found!r}",
            fix=f"write source.region: {found}, or leave it empty",
        )


def region_of(s3: Any, bucket: str, asked: Asked, **owner: str) -> str:
    """Return the region of a bucket; empty when the store does not say.

    :param owner: ``ExpectedBucketOwner``, when one is asked for.
    :raises ConfigurationError: the bucket is absent, another account's, or closed to us.
    """
    from botocore.exceptions import ClientError

    what = f"{asked.field}: bucket {bucket!r}"
    try:
        answer = s3.head_bucket(Bucket=bucket, **owner)
    except ClientError as error:
        answer, status = error.response, int(error.response["ResponseMetadata"]["HTTPStatusCode"])
        if status == 404:
            raise ConfigurationError(
                "BucketMissing", f"{what} does not exist", fix=f"make it, or correct {asked.field}"
            ) from error
        if status == 403:
            belongs = f", or it does not belong to account {owner['ExpectedBucketOwner']}" if owner else ""
            raise ConfigurationError(
                "BucketForbidden",
                f"{what} may not be used by this connection{belongs}",
                fix="check the connection's rights and the account that owns the bucket",
            ) from error
        if status not in (301, 400):
            raise
    return str(answer["ResponseMetadata"].get("HTTPHeaders", {}).get("x-amz-bucket-region", ""))


@dataclass
class Target:
    """One revision's place.

    :param objects: rooted at ``<models_uri>/<name>/<revision>``.
    :param models_uri: the root of all models.
    """

    name: str
    revision: str
    objects: Objects
    bucket: str
    prefix: str
    models_uri: str
    context: StagingContext

    @classmethod
    def open(cls, models_uri: str, name: str, revision: str, context: StagingContext) -> Target:
        """Open the target; no request is made."""
        bucket, above = bucket_and_prefix(models_uri)
        prefix = "/".join(part for part in (above, model_prefix(name, revision)) if part)
        objects = open_objects(f"s3://{bucket}/{prefix}", context)
        return cls(name, revision, objects, bucket, prefix, models_uri.rstrip("/"), context)

    @cached_property
    def s3(self) -> Any:
        """boto3 client for control calls, made when one is needed: a revision that is there needs none."""
        return self.context.s3(self.context.regions.get(self.bucket))

    @property
    def asked(self) -> Asked:
        """What a person would have to correct when the store refuses."""
        return Asked("models_uri", self.models_uri, self.context)

    def region(self) -> str:
        """Return the bucket's region, and go on there; empty when the store does not say.

        :raises ConfigurationError: the bucket is absent, another account's, or closed to us.
        """
        region = region_of(self.s3, self.bucket, self.asked, **self.context.owner_arguments())
        if region and region != (self.context.regions.get(self.bucket) or self.context.region):
            self.context.regions[self.bucket] = region
            self.objects = open_objects(self.objects.uri, self.context)
            self.__dict__.pop("s3", None)
        return region

    def key(self, path: str) -> str:
        """Full key of a file of the revision."""
        return f"{self.prefix}/{FILES_FOLDER}/{path}"

    def manifest(self) -> Manifest | None:
        """Return the stored manifest, ``None`` when the revision is not staged.

        :raises IntegrityError: it is damaged, or another revision's.
        """
        with explained(self.asked):
            try:
                data = self.objects.get(MANIFEST_NAME)
            except Exception as error:
                if not is_elsewhere(error) or not self.region():
                    raise
                data = self.objects.get(MANIFEST_NAME)
        return None if data is None else manifest_of(data, self.name, self.revision, self.objects.url(MANIFEST_NAME))

    def require_manifest(self) -> Manifest:
        """Return the stored manifest.

        :raises IntegrityError: when there is none.
        """
        manifest = self.manifest()
        if manifest is None:
            where = self.objects.url(MANIFEST_NAME)
            raise IntegrityError("NotStaged", f"{where}: there is no manifest", fix="stage the revision")
        return manifest

    def stored(self) -> dict[str, ObjectInfo]:
        """Return what lies in the revision's folder, by path; one request for a thousand files."""
        start = f"{FILES_FOLDER}/"
        return {info.path.removeprefix(start): info for info in self.objects.list(FILES_FOLDER)}

    def head(self, path: str) -> dict[str, Any] | None:
        """Return the store's answer for a file, its checksum included; ``None`` when it is not there."""
        from botocore.exceptions import ClientError

        arguments = {"ChecksumMode": "ENABLED", **self.context.owner_arguments()}
        try:
            return dict(self.s3.head_object(Bucket=self.bucket, Key=self.key(path), **arguments))
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchKey", "NotFound"):
                raise
            return None

    def uploads(self) -> Iterator[dict[str, Any]]:
        """Yield the multipart uploads below the revision that were neither completed nor aborted."""
        pages = self.s3.get_paginator("list_multipart_uploads").paginate(
            Bucket=self.bucket, Prefix=f"{self.prefix}/", **self.context.owner_arguments()
        )
        for page in pages:
            yield from page.get("Uploads", ())

    def sweep_uploads(self, allowed: Callable[[], bool] = lambda: True) -> int:
        """Abort every multipart upload below the revision; only the lock's holder may.

        :param allowed: asked after the uploads are listed: whoever holds the lock then has begun none of them in
            another's place, and what a successor begins later is not on the list.
        :returns: how many were found.
        """
        with explained(self.asked):
            found = list(self.uploads())
            if found and allowed():
                for upload in found:
                    self._abort(upload["Key"], upload["UploadId"])
        return len(found)

    def _abort(self, key: str, upload: str) -> None:
        from botocore.exceptions import ClientError

        arguments = {"Bucket": self.bucket, "Key": key, "UploadId": upload, **self.context.owner_arguments()}
        try:
            self.s3.abort_multipart_upload(**arguments)
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("404", "NoSuchUpload"):
                raise
