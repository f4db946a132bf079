"""A prefix in S3 as a source: another bucket, account or region, a JumpStart cache, or a staged revision."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from include.catalog.weights import S3Source
from include.errors import ConfigurationError, FailureClass, PipelineError
from include.objects import ObjectInfo, Objects
from include.staging.context import StagingContext
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest
from include.staging.sources import Listing, SourceFile, StoredAt, content_revision, ranges_in_order
from include.staging.target import open_objects

if TYPE_CHECKING:
    from obstore import GetOptions


def list_prefix(source: S3Source, context: StagingContext) -> Listing:
    """List the files below a prefix.

    A prefix that ends with ``/files`` and has our manifest beside it is a staged revision: its digests are taken
    over, and its bytes can be copied inside S3.

    :raises PipelineError: when the bucket cannot be read.
    """
    parts = urlsplit(source.uri)
    prefix = parts.path.strip("/")
    origin = {"type": "s3", "bucket": parts.netloc, "prefix": prefix}
    objects = _open(source.uri.rstrip("/"), source, context)
    try:
        manifest = _manifest(source, context, prefix)
        found = {info.path: info for info in objects.list() if not info.path.endswith("/")}
    except (OSError, PipelineError):
        raise
    except Exception as error:
        raise _unreadable(source, error) from error
    if manifest is not None:
        origin |= {"name": manifest.name, "manifest_digest": manifest.digest}
    known = {file.path: file for file in manifest.files} if manifest else {}
    files = tuple(
        SourceFile(
            info.path,
            info.size,
            known[info.path].sha256 if info.path in known else None,
            _reader(objects, info),
            read_range=_ranges(objects, info),
            stored_at=StoredAt(
                parts.netloc, f"{prefix}/{info.path}", known[info.path].etag, known[info.path].crc64nvme
            ) if info.path in known else None,
        )
        for info in map(found.__getitem__, sorted(found))
    )  # fmt: skip
    revision = content_revision([[path, found[path].size, found[path].etag] for path in sorted(found)])
    return Listing(revision, origin, files, source.region or "")


def _open(uri: str, source: S3Source, context: StagingContext) -> Objects:
    more: dict[str, object] = {"region": source.region, "request_payer": source.requester_pays}
    if source.anonymous:
        more |= {"skip_signature": True, "credential_provider": None}
    return open_objects(uri, context, **more)


def _manifest(source: S3Source, context: StagingContext, prefix: str) -> Manifest | None:
    if prefix.rpartition("/")[2] != FILES_FOLDER:
        return None
    above = _open(source.uri.rstrip("/").removesuffix(f"/{FILES_FOLDER}"), source, context)
    data = above.get(MANIFEST_NAME)
    return None if data is None else Manifest.from_bytes(data, above.url(MANIFEST_NAME))


def _reader(objects: Objects, info: ObjectInfo) -> Callable[[], Iterator[bytes]]:
    fetch = _ranges(objects, info)
    return lambda: ranges_in_order(lambda begin, end: [fetch(begin, end)], info.size)


def _ranges(objects: Objects, info: ObjectInfo) -> Callable[[int, int], bytes]:
    def fetch(begin: int, end: int) -> bytes:
        import obstore

        # One object's ranges are of one version, or the read fails.
        wanted: GetOptions = {"range": (begin, end), "if_match": info.etag}
        return bytes(obstore.get(objects.native, info.path, options=wanted).bytes())

    return fetch


def _unreadable(source: S3Source, error: Exception) -> PipelineError:
    text = str(error)
    if any(word in text for word in ("403", "AccessDenied", "Forbidden", "NoSuchBucket", "301", "PermanentRedirect")):
        return ConfigurationError(
            "SourceUnreadable",
            f"source.uri = {source.uri!r}: {text.splitlines()[0][:300]}",
            fix="check bucket and source.region, and that the AWS connection may list and read it",
        )
    return PipelineError("SourceUnreadable", f"{source.uri}: {text[:300]}", failure_class=FailureClass.TRANSIENT)
