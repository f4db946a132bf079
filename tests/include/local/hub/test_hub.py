"""The Hub's real client and our Hub source, over HTTP, against a hub that fails in the ways that the real one does."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError

from include.catalog.specs import ModelSpec
from include.errors import ConfigurationError, IntegrityError, PipelineError
from include.local.hub.faults import HubFault, HubFaultKind
from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.staging.context import StagingContext
from include.staging.sources import Listing, list_source

TOKEN = "hf_only_for_this_test"
SHARD = "model-00001.safetensors"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = Path(tmp_path_factory.mktemp("repository"))
    (root / SHARD).write_bytes(os.urandom(20 << 20))
    (root / "config.json").write_text("{}")
    (root / "sub").mkdir()
    (root / "sub" / "vocab.txt").write_text("a b c")
    return root


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    repositories = Repository("org/open", folder), Repository("org/gated", folder, tokens=frozenset({TOKEN}))
    with HubServer(repositories) as server:
        yield server


def listing(hub: HubServer, repo: str = "org/open", token: str | None = None, **source: object) -> Listing:
    model = ModelSpec.model_validate(
        {"name": "m", "source": {"type": "huggingface", "repo": repo, **source}, "deployment": {}}
    )
    return list_source(model, StagingContext(hf_endpoint=hub.url, hf_token=token))


def content(found: Listing) -> dict[str, bytes]:
    return {file.path: b"".join(file.open()) for file in found.files}


def on_disk(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_real_client_downloads_a_snapshot(hub: HubServer, folder: Path, tmp_path: Path) -> None:
    HfApi(endpoint=hub.url, token=False).snapshot_download("org/open", local_dir=tmp_path / "got")
    got = {path: data for path, data in on_disk(tmp_path / "got").items() if not path.startswith(".cache")}
    assert got == on_disk(folder)


def test_a_branch_is_pinned_to_its_commit_and_every_digest_is_the_hubs(hub: HubServer, folder: Path) -> None:
    found = listing(hub)
    assert found.revision == hub.repositories["org/open"].commit
    assert len(found.revision) == 40
    digests = {file.path: file.sha256 for file in found.files}
    assert digests[SHARD] == hashlib.sha256((folder / SHARD).read_bytes()).hexdigest()
    assert content(found) == on_disk(folder)


@pytest.mark.parametrize("token", [None, "hf_wrong"])
def test_a_gated_model_is_refused_before_its_bytes_are_asked_for(hub: HubServer, token: str | None) -> None:
    with pytest.raises(ConfigurationError) as caught:
        listing(hub, "org/gated", token)
    assert caught.value.reason == "GatedModel"
    assert "hf_wrong" not in str(caught.value)
    with pytest.raises(GatedRepoError):
        HfApi(endpoint=hub.url, token=token or False).hf_hub_download("org/gated", "config.json")


def test_the_token_reaches_the_hub_and_nobody_else(hub: HubServer, folder: Path) -> None:
    assert content(listing(hub, "org/gated", TOKEN)) == on_disk(folder)
    with_token = {path.split("/")[1] for _, path, had in hub.log if had}
    assert "signed" not in with_token
    assert "org" in with_token
    assert any(path.startswith("/signed/") for _, path, _ in hub.log)


@pytest.mark.parametrize(
    "fault",
    [
        HubFault(HubFaultKind.CUT, SHARD, times=3, after=1_000_000),
        HubFault(HubFaultKind.CUT, "config.json", times=2, after=0),
        HubFault(HubFaultKind.STATUS, "/signed/*", times=3, status=503),
        HubFault(HubFaultKind.STATUS, "*", times=2, status=429),
        HubFault(HubFaultKind.STATUS, "/api/*", times=2, status=502),
        HubFault(HubFaultKind.STATUS, "*/resolve/*", times=2, status=500),
        HubFault(HubFaultKind.EXPIRED, SHARD, times=2),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.path.strip('*/').replace('/', '-')}-{fault.status}",
)
def test_what_passes_by_itself_is_outlived(hub: HubServer, folder: Path, fault: HubFault) -> None:
    hub.faults.rules.append(fault)
    assert content(listing(hub)) == on_disk(folder)
    assert fault.times == 0, "the fault was never met"


def test_a_hub_that_stays_down_is_a_transient_failure(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    import include.staging.hub as source

    monkeypatch.setattr(source, "LONGEST_PAUSE", 0.01)
    hub.faults.rules.append(HubFault(HubFaultKind.STATUS, "*", times=None, status=503))
    with pytest.raises(PipelineError) as caught:
        listing(hub)
    assert (caught.value.reason, caught.value.retryable) == ("HubUnavailable", True)


def test_a_corrupt_small_file_is_found_by_its_blob_id(hub: HubServer) -> None:
    hub.faults.rules.append(HubFault(HubFaultKind.CORRUPT, "config.json"))
    found = {file.path: file for file in listing(hub).files}
    with pytest.raises(IntegrityError, match=r"config\.json"):
        list(found["config.json"].open())


def test_unknown_repositories_and_revisions_are_named(hub: HubServer) -> None:
    with pytest.raises(ConfigurationError, match="org/none"):
        listing(hub, "org/none")
    with pytest.raises(ConfigurationError, match="no-such"):
        listing(hub, revision="no-such")
