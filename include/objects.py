"""One small object-store interface over S3 and a folder, by obstore: records, manifests, intents."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.errors import ConfigurationError

if TYPE_CHECKING:
    from obstore.store import ObjectStore as NativeStore

# botocore hands out credentials that have ten minutes left: who keeps them longer is refused in mid-transfer.
CREDENTIALS_LIVE = dt.timedelta(minutes=10)
PROJECT_ROOT = Path(__file__).resolve().parent.parent


class AlreadyExistsError(Exception):
    """A create-only put met an object that is already there."""


@dataclass(frozen=True)
class ObjectInfo:
    """Path below the store's root, size in bytes, entity tag."""

    path: str
    size: int
    etag: str | None


@dataclass(frozen=True)
class Objects:
    """Objects below one URI.

    :param uri: ``s3://bucket[/prefix]`` or ``file:///folder``, without a trailing slash.
    """

    uri: str
    native: NativeStore

    @classmethod
    def open(cls, uri: str, *, session: Any = None, region: str | None = None) -> Objects:
        """Open a store.

        :param uri: ``s3://bucket/prefix``, ``file:///folder``, or a folder (relative to the checkout).
        :param session: ``boto3.Session`` for credentials; ``None``: the ambient ones.
        :raises ConfigurationError: another scheme, or no bucket.
        """
        from obstore.store import LocalStore, S3Store

        # Not as a URL: # and ? are letters of keys and folders.
        scheme, mark, rest = uri.partition("://")
        bucket, _, prefix = rest.partition("/")
        if mark and (scheme not in ("s3", "file") or (scheme == "s3" and not bucket)):
            raise ConfigurationError(
                "StoreInvalid", f"{uri!r} is no store", fix="give s3://bucket/prefix, file:///folder or a folder"
            )
        if mark and scheme == "s3":
            options = s3_options(session=session, region=region)
            store = S3Store(bucket, prefix=prefix.strip("/") or None, **options)
            return cls(uri.rstrip("/"), store)
        folder = Path(rest if mark else uri)
        folder = folder if folder.is_absolute() else PROJECT_ROOT / folder
        folder.mkdir(parents=True, exist_ok=True)
        return cls(f"file://{folder}", LocalStore(folder))

    def url(self, path: str) -> str:
        """Full URI of an object."""
        return f"{self.uri}/{path}"

    def put(self, path: str, data: bytes, *, create: bool = False, tags: Mapping[str, str] | None = None) -> None:
        """Write an object.

        :param create: only if there is none (If-None-Match).
        :param tags: of the object, where the store has any.
        :raises AlreadyExistsError: with ``create``, when there is one.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError as NativeExists

        try:
            obstore.put(
                self.native, path, data, mode="create" if create else "overwrite", tags=dict(tags or {}) or None
            )
        except NativeExists as error:
            raise AlreadyExistsError(self.url(path)) from error

    def put_file(self, path: str, source: Path) -> None:
        """Write an object from a local file."""
        import obstore

        obstore.put(self.native, path, source)

    def get(self, path: str) -> bytes | None:
        """Return an object's bytes, ``None`` when there is none."""
        import obstore

        try:
            return bytes(obstore.get(self.native, path).bytes())
        except FileNotFoundError:
            return None

    def head(self, path: str) -> ObjectInfo | None:
        """Return size and entity tag, ``None`` when there is no such object."""
        import obstore

        try:
            meta = obstore.head(self.native, path)
        except FileNotFoundError:
            return None
        return ObjectInfo(path, meta["size"], meta["e_tag"])

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield every object below ``prefix`` (a whole path segment, as in a folder)."""
        import obstore

        for page in obstore.list(self.native, prefix or None):
            for meta in page:
                yield ObjectInfo(meta["path"], meta["size"], meta["e_tag"])

    def delete(self, path: str) -> None:
        """Delete an object; none is fine."""
        import obstore

        try:
            obstore.delete(self.native, path)
        except FileNotFoundError:
            return


def s3_options(*, session: Any = None, region: str | None = None) -> dict[str, Any]:
    """Return obstore's S3 options from a boto3 session and the AWS_* environment (endpoint, region)."""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = _environment_keys(region) if session is None else {}
    options = options or _session_keys(session, region)
    if endpoint:
        options |= {"endpoint": endpoint, "virtual_hosted_style_request": False}
        if endpoint.startswith("http://"):
            options["client_options"] = {"allow_http": True}
    return options


def _environment_keys(region: str | None) -> dict[str, Any]:
    """Region and keys, when the environment has both; boto3 would take the same ones, after half a second of import."""
    where = region or os.environ.get("AWS_DEFAULT_REGION")
    key, secret = os.environ.get("AWS_ACCESS_KEY_ID"), os.environ.get("AWS_SECRET_ACCESS_KEY")
    if not where or not key or not secret:
        return {}
    token = os.environ.get("AWS_SESSION_TOKEN")
    return {
        "region": where,
        "access_key_id": key,
        "secret_access_key": secret,
        **({"session_token": token} if token else {}),
    }


def _session_keys(session: Any, region: str | None) -> dict[str, Any]:
    import boto3
    from obstore.auth.boto3 import Boto3CredentialProvider

    session = session or boto3.Session()
    options: dict[str, Any] = {"region": region or session.region_name or "us-east-1"}
    if session.get_credentials() is not None:
        options["credential_provider"] = Boto3CredentialProvider(session, ttl=CREDENTIALS_LIVE)
    return options
