"""What multipart uploads left in a bucket, and whether what is deleted there stays."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from include.staging.context import StagingContext
from include.staging.target import bucket_and_prefix


@dataclass(frozen=True)
class Uploads:
    """Multipart uploads of a revision that were neither completed nor aborted.

    :param bytes: of their parts.
    :param newest: when the last of them began.
    """

    bytes: int = 0
    newest: dt.datetime | None = None


NO_UPLOADS = Uploads()


def unfinished_uploads(models_uri: str, context: StagingContext) -> dict[tuple[str, str], Uploads]:
    """Return what lies in unfinished uploads below ``models_uri``, by name and revision."""
    bucket, above = bucket_and_prefix(models_uri)
    start, owner = f"{above}/" if above else "", context.owner_arguments()
    s3 = context.s3()
    found: dict[tuple[str, str], Uploads] = {}
    for page in s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=start, **owner):
        for upload in page.get("Uploads", ()):
            name, _, rest = upload["Key"].removeprefix(start).partition("/")
            revision, inside, _ = rest.partition("/")
            if not inside or name.startswith("."):
                continue
            place = {"Bucket": bucket, "Key": upload["Key"], "UploadId": upload["UploadId"], **owner}
            pages = s3.get_paginator("list_parts").paginate(**place)
            size = sum(part["Size"] for page in pages for part in page.get("Parts", ()))
            before = found.get((name, revision), NO_UPLOADS)
            newest = max(filter(None, (before.newest, upload["Initiated"])))
            found[name, revision] = Uploads(before.bytes + size, newest)
    return found


def keeps_versions(models_uri: str, context: StagingContext) -> bool:
    """Return whether deleted bytes stay in the bucket as older versions; false when that may not be asked."""
    from botocore.exceptions import ClientError

    bucket, _ = bucket_and_prefix(models_uri)
    try:
        answer = context.s3().get_bucket_versioning(Bucket=bucket, **context.owner_arguments())
    except ClientError:
        return False
    return answer.get("Status") in ("Enabled", "Suspended")
