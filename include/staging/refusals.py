"""What a store's refusal means: one error that names the field, its value and what to do, whichever client asked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from include.errors import ConfigurationError, FailureClass, PipelineError

if TYPE_CHECKING:
    from include.staging.context import StagingContext

LIBRARIES = ("obstore", "botocore", "boto3", "s3transfer")
FORBIDDEN = (
    "AccessDenied", "AllAccessDisabled", "Forbidden", "InvalidAccessKeyId", "InvalidToken", "SignatureDoesNotMatch",
    "NoCredentialsError", "PartialCredentialsError", "UnauthorizedAccess", "401", "403",
)  # fmt: skip
EXPIRED = ("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "CredentialRetrievalError")
ELSEWHERE = (
    "PermanentRedirect", "TemporaryRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException",
    "301", "307",
)  # fmt: skip
LONGEST = 300


@dataclass(frozen=True)
class Asked:
    """What was asked, in a person's terms.

    :param field: of the catalog; a wrong value there is what may have led here.
    :param context: its KMS key, storage class and tags may be what the store refuses.
    """

    field: str
    value: str
    context: StagingContext | None = None


@contextmanager
def explained(asked: Asked) -> Iterator[None]:
    """Turn what a store's client raises into a :class:`PipelineError`; other errors pass.

    :raises ConfigurationError: a person must change something.
    :raises PipelineError: TRANSIENT: anything else.
    """
    try:
        yield
    except Exception as error:
        found = explain(error, asked)
        if found is None:
            raise
        raise found from error


def explain(error: BaseException, asked: Asked) -> PipelineError | None:
    """Return what a store's refusal means; ``None`` when no store's client raised it."""
    if not is_of_store(error):
        return None
    code, said = code_of(error), first_line(error)
    what = f"{asked.field} = {asked.value!r}"
    found = _about_objects(code, said, asked)
    if found is not None:
        return found
    if code in EXPIRED:
        return PipelineError(
            "CredentialsExpired", f"{what}: {said}", fix="renew the credentials of the AWS connection, then run again",
            failure_class=FailureClass.TRANSIENT,
        )  # fmt: skip
    if code in FORBIDDEN:
        return ConfigurationError(
            "StoreForbidden", f"{what}: may not be used by this AWS connection: {said}",
            fix=f"check {asked.field}, and the rights of the connection and of the bucket's policy",
        )  # fmt: skip
    if code == "NoSuchBucket":
        return ConfigurationError(
            "BucketMissing", f"{what}: there is no such bucket", fix=f"make it, or correct {asked.field}"
        )
    if code in ELSEWHERE:
        return ConfigurationError(
            "RegionWrong", f"{what}: the bucket is in another region: {said}", fix="correct the region"
        )
    return PipelineError("StoreUnavailable", f"{what}: {said}", failure_class=FailureClass.TRANSIENT)


def is_of_store(error: BaseException) -> bool:
    """Tell whether a store's client raised this; it is not loaded to find out."""
    # obstore raises Python's own classes for what a file system also says.
    builtin = isinstance(error, PermissionError) and "Error performing" in str(error)
    return builtin or type(error).__module__.partition(".")[0] in LIBRARIES


def is_elsewhere(error: BaseException) -> bool:
    """Tell whether the store answered that the bucket is in another region."""
    return is_of_store(error) and code_of(error) in ELSEWHERE


def code_of(error: BaseException) -> str:
    """Return S3's code of an error, else the HTTP status or the class's name."""
    answer = getattr(error, "response", None)
    if isinstance(answer, dict):
        return str(answer.get("Error", {}).get("Code", ""))
    text = str(error)
    if "redirect without LOCATION" in text:
        return "PermanentRedirect"
    stated = re.search(r"<Code>([\w.]+)</Code>", text) or re.search(r"status code: (\d{3})", text)
    if stated:
        return stated.group(1)
    refused = ("PermissionDenied", "Unauthenticated", "PermissionError")
    return "AccessDenied" if type(error).__name__.startswith(refused) else type(error).__name__


def first_line(error: BaseException) -> str:
    """Return what the store said: its own message, else the first line, shortened."""
    text = str(error)
    code, message = re.search(r"<Code>([\w.]+)</Code>", text), re.search(r"<Message>([^<]+)</Message>", text)
    if code and message:
        return f"{code.group(1)}: {message.group(1)}"[:LONGEST]
    return (text.splitlines() or [type(error).__name__])[0][:LONGEST]


def _about_objects(code: str, said: str, asked: Asked) -> ConfigurationError | None:
    """The error of what was asked for each object: its class, its key, its tags."""
    context = asked.context
    if context is None:
        return None
    if code == "InvalidStorageClass":
        return ConfigurationError(
            "StorageClassInvalid", f"models_bucket.storage_class = {context.storage_class!r}: {said}",
            fix="name a class of S3 that is read at once, or leave it empty",
        )  # fmt: skip
    if context.kms_key and (code.startswith("KMS.") or "kms:" in said.casefold() or "kms key" in said.casefold()):
        return ConfigurationError(
            "KmsKeyRefused", f"models_bucket.kms_key = {context.kms_key!r}: {said}",
            fix="check that the key exists in the bucket's region, is enabled, and that the connection may use it",
        )  # fmt: skip
    if code == "InvalidTag":
        return ConfigurationError(
            "TagsRefused", f"models_bucket.tags = {dict(context.tags)!r}: {said}", fix="correct models_bucket.tags"
        )
    return None
