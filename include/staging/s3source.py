"""A prefix in S3 as a source: another bucket, account or region, a JumpStart cache, or a staged revision."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from include.catalog.weights import S3Source
from include.errors import ConfigurationError, IntegrityError
from include.objects import ObjectInfo, Objects
from include.staging.checksums import stated
from include.staging.context import StagingContext
from include.staging.inspection import compare
from include.staging.manifest import FILES_FOLDER, MANIFEST_NAME, Manifest, ManifestFile
from include.staging.refusals import Asked, explained
from include.staging.sources import Listing, SourceFile, StoredAt, content_revision, is_wanted, ranges_in_order
from include.staging.target import bucket_and_prefix, in_its_region, open_objects

if TYPE_CHECKING:
    from obstore import GetOptions

FIELD = "source.uri"


def list_prefix(source: S3Source, context: StagingContext) -> Listing:
    """List the files below a prefix.

    A prefix that ends with ``/files`` and has our manifest beside it is a staged revision: its digests are taken
    over, and its bytes can be copied inside S3.

    :raises ConfigurationError: the bucket may not be read, is in another region than ``source.region``, or has keys
        that cannot be names of files.
    :raises PipelineError: the bucket cannot be read now.
    """
    # What may read the source may be another account's than what writes to the target.
    reading = replace(context, session=context.source_session or context.session)
    prefix = S3Prefix(source, reading, *bucket_and_prefix(source.uri, FIELD))
    objects, found = prefix.found()
    manifest = prefix.manifest()
    origin = {"type": "s3", "bucket": prefix.bucket, "prefix": prefix.prefix}
    if manifest is not None:
        origin |= {"name": manifest.name, "manifest_digest": manifest.digest}
    known = {file.path: file for file in manifest.files} if manifest else {}
    if manifest is not None:
        refuse_incomplete(prefix.uri, manifest, found)
    chosen = [info for info in found if is_wanted(info.path, source.include, source.exclude)]
    files = tuple(prefix.file(objects, info, known.get(info.path)) for info in chosen)
    revision = content_revision([[info.path, info.size, info.etag] for info in chosen])
    return Listing(revision, origin, files, source.region or context.regions.get(prefix.bucket, ""))


@dataclass(frozen=True)
class S3Prefix:
    """A source, and how its bucket is asked."""

    source: S3Source
    context: StagingContext
    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """The prefix without a slash at its end."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def found(self) -> tuple[Objects, list[ObjectInfo]]:
        """Return the open prefix, and its files in the order of their paths.

        :raises ConfigurationError: a key cannot be the name of a file.
        """
        asked = Asked(FIELD, self.source.uri)
        objects, found = in_its_region(self.uri, self.context, asked, self._list, self._options())
        refuse_unusable(self.uri, (info.path for info in found))
        return objects, sorted(found, key=lambda info: info.path)

    def manifest(self) -> Manifest | None:
        """Return the manifest of the staged revision that it is the folder of."""
        if self.prefix.rpartition("/")[2] != FILES_FOLDER:
            return None
        above = open_objects(self.uri.removesuffix(f"/{FILES_FOLDER}"), self.context, **self._options())
        with explained(Asked(FIELD, self.source.uri)):
            data = above.get(MANIFEST_NAME)
        return None if data is None else Manifest.from_bytes(data, above.url(MANIFEST_NAME))

    def file(self, objects: Objects, info: ObjectInfo, known: ManifestFile | None) -> SourceFile:
        """Return a file of it; what its manifest knows of it is what its bytes must be."""
        fetch = self._ranges(objects, info)
        place = None
        if known is not None and self.context.source_session is None:
            # A copy inside S3 is made with the target's rights, which need not reach a source that has its own.
            place = StoredAt(self.bucket, f"{self.prefix}/{info.path}", known.etag, known.crc64nvme)
        return SourceFile(
            info.path,
            info.size,
            known.sha256 if known else None,
            lambda: ranges_in_order(lambda begin, end: [fetch(begin, end)], info.size),
            read_range=fetch,
            stored_at=place,
            etag=None if known else (info.etag or "").strip('"') or None,
            look=None if known else lambda: self.look(info),
        )

    def look(self, info: ObjectInfo) -> dict[str, Any]:
        """Return the digest that S3 states of an object, as fields of its file; without one nothing."""
        with explained(Asked(FIELD, self.source.uri)):
            found = stated(self._head(info), lambda: int(self._head(info, PartNumber=1)["ContentLength"]))
        if found is None:
            return {}
        if found.sha256 is not None:
            return {"sha256": found.sha256, "etag": None}
        if found.algorithm == "CRC64NVME" and not found.part_bytes:
            return {"crc64nvme": found.value}
        return {"stated": found}

    @cached_property
    def s3(self) -> Any:
        """boto3 client of the bucket."""
        return self.context.s3(self.source.region or self.context.regions.get(self.bucket), self.source.anonymous)

    def _head(self, info: ObjectInfo, **more: int) -> Mapping[str, Any]:
        key = f"{self.prefix}/{info.path}" if self.prefix else info.path
        payer = {"RequestPayer": "requester"} if self.source.requester_pays else {}
        found: Mapping[str, Any] = self.s3.head_object(
            Bucket=self.bucket, Key=key, ChecksumMode="ENABLED", **payer, **more
        )
        return found

    def _options(self) -> dict[str, Any]:
        options: dict[str, Any] = {"region": self.source.region, "request_payer": self.source.requester_pays}
        if self.source.anonymous:
            options |= {"skip_signature": True, "credential_provider": None}
        return options

    def _list(self, objects: Objects) -> tuple[Objects, list[ObjectInfo]]:
        from obstore.exceptions import InvalidPathError

        try:
            found = list(objects.list())
        except InvalidPathError:
            return objects, self._list_keys()
        # A folder that somebody made in the console looks like an empty file here; only its key tells.
        return objects, found if all(info.size for info in found) else self._list_keys()

    def _list_keys(self) -> list[ObjectInfo]:
        """List by whole keys; without the markers of folders."""
        start = f"{self.prefix}/" if self.prefix else ""
        payer = {"RequestPayer": "requester"} if self.source.requester_pays else {}
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start, **payer)
        items = [item for page in pages for item in page.get("Contents", ())]
        return [
            ObjectInfo(item["Key"].removeprefix(start), item["Size"], item["ETag"])
            for item in items
            if item["Size"] or not item["Key"].endswith("/")
        ]

    def _ranges(self, objects: Objects, info: ObjectInfo) -> Callable[[int, int], bytes]:
        def fetch(begin: int, end: int) -> bytes:
            import obstore
            from obstore.exceptions import PreconditionError

            # One object's ranges are of one version, or the read fails.
            wanted: GetOptions = {"range": (begin, end), "if_match": info.etag}
            with explained(Asked(FIELD, self.source.uri)):
                try:
                    return bytes(obstore.get(objects.native, info.path, options=wanted).bytes())
                except (PreconditionError, FileNotFoundError) as error:
                    raise IntegrityError(
                        "SourceChanged",
                        f"{info.path}: the object in {self.uri} is no longer the one that was listed",
                        fix="find out who writes to the source, then plan again",
                    ) from error

        return fetch


def refuse_incomplete(where: str, manifest: Manifest, found: Iterable[ObjectInfo]) -> None:
    """Refuse a staged revision that lacks files, or has others, than its manifest says.

    Entity tags may differ, as of what was copied elsewhere: the bytes are compared with its digests as they pass.

    :raises IntegrityError: naming the files.
    """
    tags = {file.path: file.etag for file in manifest.files}
    differences = list(compare(manifest, {info.path: replace(info, etag=tags.get(info.path)) for info in found}))
    if differences:
        lines = tuple(text for _, text in differences)
        raise IntegrityError(
            "SourceIncomplete",
            f"{FIELD}: {where} is not what the manifest beside it says: {'; '.join(lines[:3])}",
            fix="copy the staged revision again, whole; or move its manifest away to take the files as they are",
            evidence=lines,
        )


def refuse_unusable(where: str, paths: Iterable[str]) -> None:
    """Refuse what S3 takes as a key and a file system does not take as a path.

    :raises ConfigurationError: naming the keys.
    """
    known = set(paths)
    bad = sorted(path for path in known if not _is_path(path))
    bad += sorted(path for path in known for above in _folders(path) if above in known)
    if bad:
        raise ConfigurationError(
            "KeyUnusable",
            f"{FIELD}: {where} has keys that cannot be files: {', '.join(map(repr, bad[:3]))}",
            fix="rename or delete these objects (empty names, . and .., control characters, files in a file), "
            "or name a deeper prefix",
        )


def _is_path(path: str) -> bool:
    return path.isprintable() and not any(part in ("", ".", "..") for part in path.split("/"))


def _folders(path: str) -> Iterator[str]:
    at = path.find("/")
    while at >= 0:
        yield path[:at]
        at = path.find("/", at + 1)
