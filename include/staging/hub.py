"""The Hugging Face Hub as a source: pinned to a commit, read by ranges, each file checked as it passes."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from include.catalog.base import JsonObject
from include.catalog.weights import HuggingFaceSource
from include.errors import ConfigurationError, FailureClass, IntegrityError, PipelineError
from include.staging.context import StagingContext
from include.staging.sources import CHUNK, Listing, SourceFile, is_wanted, ranges_in_order

COMMIT = re.compile(r"^[0-9a-f]{40}$")
# Tries without a single new byte between them.
TRIES = 6
LONGEST_PAUSE = 30.0
TIMEOUT = (10, 60)


def list_repository(source: HuggingFaceSource, context: StagingContext) -> Listing:
    """List a repository's files at a commit.

    :raises ConfigurationError: it is gated and the token has no access, or it is not there.
    :raises PipelineError: the Hub cannot be reached or does not say a commit.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    api = HfApi(endpoint=context.hf_endpoint, token=context.hf_token or False)
    try:
        info = _patiently(lambda: api.model_info(source.repo, revision=source.revision, files_metadata=True))
        if info.gated:
            # Everybody may list a gated repository; only its files are closed.
            _patiently(lambda: api.auth_check(source.repo))
    except GatedRepoError as error:
        raise ConfigurationError(
            "GatedModel",
            f"source.repo = {source.repo!r} is gated and the token has no access",
            fix="accept the licence on the Hub and set source.token_conn_id to a connection with that token",
        ) from error
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigurationError(
            "SourceMissing",
            f"source.repo = {source.repo!r}, revision {source.revision!r}: not on the Hub, or closed to this token",
            fix="correct source.repo or source.revision, or set source.token_conn_id",
        ) from error
    except (HfHubHTTPError, OSError, _http_error()) as error:
        raise PipelineError(
            "HubUnavailable", f"the Hub answered: {error}", failure_class=FailureClass.TRANSIENT
        ) from error
    commit = str(info.sha)
    if not COMMIT.match(commit):
        raise PipelineError("HubRevisionUnpinned", f"{source.repo}: the Hub says commit {commit!r}, not 40 hex digits")
    files = tuple(
        _file(item, source.repo, commit, context)
        for item in info.siblings or ()
        if _wanted(item.rfilename, source.include, source.exclude)
    )
    origin: JsonObject = {"type": "huggingface", "repo": source.repo, "commit": commit}
    card = getattr(info, "card_data", None)
    if card is not None and getattr(card, "license", None):
        origin["license"] = str(card.license)
    return Listing(commit, origin, files)


def _http_error() -> type[Exception]:
    """The base of what the Hub's own HTTP client raises when no answer comes."""
    from huggingface_hub import errors

    return next(base for base in errors.HfHubHTTPError.__mro__ if base.__name__ == "HTTPError")


def _patiently(call: Callable[[], Any]) -> Any:
    """Call the Hub; wait and ask again while it is busy or down."""
    from huggingface_hub.errors import HfHubHTTPError

    for attempt in range(TRIES):
        try:
            return call()
        except HfHubHTTPError as error:
            status = error.response.status_code
            if attempt == TRIES - 1 or (status != 429 and status < 500):
                raise
            _pause(attempt, error.response.headers.get("Retry-After"))
    raise AssertionError


def _pause(attempt: int, asked: str | None) -> None:
    seconds = float(asked) if asked and asked.isdigit() else 0.5 * 2**attempt
    time.sleep(min(seconds, LONGEST_PAUSE))


def _file(item: Any, repo: str, commit: str, context: StagingContext) -> SourceFile:
    size = int(item.size or 0)
    if item.lfs:
        remote = Remote(context, repo, commit, item.rfilename, size)
        return SourceFile(item.rfilename, size, item.lfs.sha256, remote.chunks, read_range=remote.part)
    remote = Remote(context, repo, commit, item.rfilename, size, git_sha1=item.blob_id)
    return SourceFile(item.rfilename, size, None, remote.chunks, read_range=remote.part)


def _wanted(path: str, include: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    return path != ".gitattributes" and is_wanted(path, include, exclude)


@dataclass
class Remote:
    """One file on the Hub.

    :param git_sha1: blob id of a file that git itself keeps; large files (LFS) have a sha256 instead.
    """

    context: StagingContext
    repo: str
    commit: str
    path: str
    size: int
    git_sha1: str | None = None
    _location: str = field(default="", repr=False)

    def chunks(self) -> Iterator[bytes]:
        """Yield the file's bytes in order; a few ranges are fetched ahead.

        :raises IntegrityError: a file kept by git does not have its blob id.
        """
        sha1 = hashlib.sha1(b"blob %d\0" % self.size, usedforsecurity=False)
        for chunk in self._ahead():
            if self.git_sha1:
                sha1.update(chunk)
            yield chunk
        if self.git_sha1 and sha1.hexdigest() != self.git_sha1:
            raise IntegrityError(
                "SourceCorrupt",
                f"{self.path}: git blob is {sha1.hexdigest()}, the Hub says {self.git_sha1}",
                fix="the download was damaged; stage again",
            )

    def part(self, begin: int, end: int) -> bytes:
        """Return the bytes from ``begin`` to ``end``, and fetch no others."""
        with _session() as session:
            return b"".join(self._range(session, begin, end))

    def _ahead(self) -> Iterator[bytes]:
        with _session() as session:
            yield from ranges_in_order(lambda begin, end: self._range(session, begin, end), self.size)

    def _range(self, session: Any, begin: int, end: int) -> list[bytes]:
        """Return a range's bytes; goes on where a connection was cut."""
        import requests
        from urllib3.exceptions import HTTPError

        pieces: list[bytes] = []
        tries = 0
        while begin < end:
            pause, said, before = None, "an answer without bytes", begin
            try:
                with self._request(session, begin, end) as answer:
                    pause = answer.headers.get("Retry-After")
                    self._check(answer, begin)
                    while begin < end and (piece := answer.raw.read(min(CHUNK, end - begin))):
                        pieces.append(piece)
                        begin += len(piece)
            except (requests.RequestException, HTTPError, _RetryError) as error:
                said = without_queries(str(error))
            if begin < end:
                tries = tries + 1 if begin == before else 1
                self._give_up_or_wait(tries, pause, f"{self.path}: at byte {begin}: {said}")
        return pieces

    def _give_up_or_wait(self, tries: int, pause: str | None, said: str) -> None:
        # Not in an except clause: the client's own error holds the signed address, and a log would print it.
        if tries >= TRIES:
            raise PipelineError("HubUnavailable", said, failure_class=FailureClass.TRANSIENT)
        _pause(tries - 1, pause)

    def _request(self, session: Any, begin: int, end: int) -> Any:
        location = self._location or self._locate()
        headers = {"Range": f"bytes={begin}-{end - 1}", "Accept-Encoding": "identity"}
        if self.context.hf_token and urlsplit(location).netloc == urlsplit(self._url()).netloc:
            headers["Authorization"] = f"Bearer {self.context.hf_token}"
        return session.get(location, headers=headers, stream=True, timeout=TIMEOUT, allow_redirects=False)

    def _check(self, answer: Any, begin: int) -> None:
        if answer.status_code in (301, 302, 303, 307, 308, 401, 403):
            # A signed address has run out, or was never one: ask the Hub again.
            self._location = ""
            raise _RetryError(f"HTTP {answer.status_code}")
        if answer.status_code == 429 or answer.status_code >= 500:
            raise _RetryError(f"HTTP {answer.status_code}")
        whole = answer.status_code == 200 and begin == 0
        if not whole and answer.status_code != 206:
            raise PipelineError("HubUnavailable", f"{self.path}: HTTP {answer.status_code} for a range of bytes")
        stated = answer.headers.get("Content-Range", f"/{self.size}").rpartition("/")[2]
        if stated not in ("*", str(self.size)):
            raise IntegrityError(
                "SourceChanged",
                f"{self.path}: has {stated} bytes, the listing said {self.size}",
                fix="stage again; a commit's files never change, so ask the Hub's operator",
            )

    def _url(self) -> str:
        from huggingface_hub import hf_hub_url

        return hf_hub_url(self.repo, self.path, revision=self.commit, endpoint=self.context.hf_endpoint)

    def _locate(self) -> str:
        from huggingface_hub import get_hf_file_metadata
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

        try:
            found = get_hf_file_metadata(
                self._url(), token=self.context.hf_token or False, endpoint=self.context.hf_endpoint
            )
        except GatedRepoError as error:
            raise ConfigurationError(
                "GatedModel", f"{self.repo} is gated and the token has no access", fix="set source.token_conn_id"
            ) from error
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise ConfigurationError(
                    "SourceForbidden",
                    f"source.repo = {self.repo!r}: the Hub refuses {self.path}: HTTP {error.response.status_code}",
                    fix="check that the token of source.token_conn_id still lives and may read the repository",
                ) from error
            raise _RetryError(str(error)) from error
        except _http_error() as error:
            raise _RetryError(str(error)) from error
        if found.commit_hash not in (None, self.commit):
            raise IntegrityError(
                "SourceChanged", f"{self.path}: the Hub answers for commit {found.commit_hash}, not {self.commit}"
            )
        self._location = found.location
        return self._location


def without_queries(text: str) -> str:
    """Return a client's message without the queries of its addresses: a signed one opens the file to anybody."""
    return re.sub(r"""\?[^\s'")>\]]+""", "?…", text)


class _RetryError(Exception):
    """Worth asking again."""


def _session() -> Any:
    import requests

    session = requests.Session()
    # A token from somebody's .netrc must not go to the servers that the Hub points to.
    session.auth = _no_credentials
    return session


def _no_credentials(request: Any) -> Any:
    return request
