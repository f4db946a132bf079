"""From a Hub straight into S3: no local copy, and a damaged file never becomes an object."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.errors import ConfigurationError, IntegrityError
from include.local import s3
from include.local.hub.faults import HubFault, HubFaultKind
from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.staging.api import resolve_revision, stage
from include.staging.context import StagingContext
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, model_of, staged_contents

pytestmark = pytest.mark.local
SHARD = "model-0.safetensors"


def test_a_cut_download_is_finished_and_a_corrupt_one_is_never_visible(server: Server, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    make_model(folder, "unused", (20 << 20, 3 << 20), seed=6000)
    with HubServer([Repository("org/model", folder)]) as hub:
        model = model_of(folder, "from-hub", source={"type": "huggingface", "repo": "org/model"})
        context = StagingContext(region=s3.REGION, hf_endpoint=hub.url)
        commit = resolve_revision(model, context)
        assert commit == hub.repositories["org/model"].commit
        hub.faults.rules.append(HubFault(HubFaultKind.CORRUPT, SHARD, times=None))
        with pytest.raises(IntegrityError, match=SHARD):
            stage(model, commit, MODELS_URI, context, owner="test")
        present = server.keys(f"models/from-hub/{commit}/")
        assert not [key for key in present if key.endswith((SHARD, "manifest.json"))]
        assert server.uploads() == []
        hub.faults.rules[:] = [HubFault(HubFaultKind.CUT, SHARD, times=2, after=3_000_000)]
        staged = stage(model, commit, MODELS_URI, context, owner="test")
    assert staged.revision == commit
    assert staged_contents(server, "from-hub", commit) == contents(folder)


def test_the_planned_commit_is_staged_although_the_branch_moved_on(server: Server, tmp_path: Path) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    make_model(old, "unused", (1 << 20,), seed=6100)
    make_model(new, "unused", (1 << 20,), seed=6200)
    first = Repository("org/model", old)
    with HubServer([first]) as hub:
        model = model_of(old, "moved-on", source={"type": "huggingface", "repo": "org/model"})
        context = StagingContext(region=s3.REGION, hf_endpoint=hub.url)
        planned = resolve_revision(model, context)
        hub.repositories["org/model"] = Repository("org/model", new, earlier=(first,))
        assert resolve_revision(model, context) != planned
        staged = stage(model, planned, MODELS_URI, context, owner="test")
        assert staged_contents(server, "moved-on", planned) == contents(old)
        # An older revision that a release names is the one that it gets.
        assert resolve_revision(model, context, planned) == staged.revision == planned
        with pytest.raises(ConfigurationError, match="0" * 40):
            stage(model, "0" * 40, MODELS_URI, context, owner="test")


def test_a_source_that_keeps_only_one_revision_says_that_it_moved(server: Server, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "changed", (1 << 20,), seed=6300)
    context = StagingContext(region=s3.REGION)
    planned = resolve_revision(model, context)
    (tmp_path / "model" / "config.json").write_text('{"another": true}')
    with pytest.raises(ConfigurationError, match=planned) as caught:
        stage(model, planned, MODELS_URI, context, owner="test")
    assert caught.value.reason == "RevisionMoved"
    assert server.keys("models/changed/") == []
