"""Looking for new revisions: a model that cannot be read or staged keeps no other from its turn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowSkipException

from hyperpod.hooks.hyperpod import HyperPodHook
from hyperpod.operators.refresh import FindCandidateOperator
from include.catalog.loader import load_catalog
from include.catalog.specs import ClusterSpec, ModelSpec
from include.errors import ConfigurationError, IntegrityError
from include.staging.context import StagingContext
from tests.include.staging.conftest import MODELS_URI, Server, context, make_model, s3_server, server

pytestmark = pytest.mark.local
__all__ = ["context", "s3_server", "server"]


@pytest.fixture
def refresh(context: StagingContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run the operator on a catalog of these models; returns what it answers and announces."""

    def run(*models: ModelSpec, **fields: Any) -> tuple[Any, Any]:
        cluster = ClusterSpec(name="c", models_uri=MODELS_URI, results_uri=str(tmp_path / "results"), **fields)
        catalog = replace(load_catalog(), models={one.name: one for one in models}, clusters={"c": cluster})
        monkeypatch.setattr("include.catalog.loader.load_catalog", lambda: catalog)
        monkeypatch.setattr(HyperPodHook, "staging", lambda *_: context)
        events: Any = SimpleNamespace(extra=None)
        operator = FindCandidateOperator(task_id="find", cluster="c")
        answer = operator.execute({"run_id": "hourly", "outlet_events": _Any(events)})  # type: ignore[typeddict-item]
        return answer, events.extra

    return run


class _Any(dict[Any, Any]):
    """The same event of whatever asset."""

    def __init__(self, events: Any) -> None:
        self.events = events

    def __getitem__(self, asset: Any) -> Any:
        return self.events


def test_a_model_that_cannot_be_staged_does_not_keep_the_next_from_its_turn(
    server: Server, refresh: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pickled = make_model(tmp_path / "a", "a-pickled", (1000,), seed=9100)
    (tmp_path / "a" / "weights.bin").write_bytes(b"\x80\x04.")
    damaged = make_model(tmp_path / "b", "b-damaged", (1000,), seed=9101)
    (tmp_path / "b" / "model-0.safetensors").write_bytes(b"12345678")
    gone = make_model(tmp_path / "c", "c-gone", (1000,), seed=9102)
    gone = gone.model_copy(update={"source": gone.source.model_copy(update={"path": str(tmp_path / "gone")})})
    sound = make_model(tmp_path / "d", "d-sound", (1000,), seed=9103)
    answer, announced = refresh(pickled, damaged, gone, sound)
    assert answer["model"] == announced["model"] == "d-sound"
    assert announced["manifest_digest"].startswith("sha256:")
    assert server.keys(f"models/d-sound/{answer['revision']}/manifest.json")
    out = capsys.readouterr().out
    for said in ("PickleRefused", "SafetensorsTruncated", "SourceMissing", "staging d-sound: "):
        assert said in out


def test_a_run_in_which_every_model_failed_is_no_success(refresh: Any, tmp_path: Path) -> None:
    make_model(tmp_path / "a", "unused", (1000,), seed=9104)
    (tmp_path / "a" / "model-0.safetensors").write_bytes(b"12345678")
    with pytest.raises(IntegrityError):
        refresh(make_model(tmp_path / "a", "all-damaged", (), seed=9104))


def test_nothing_new_skips(refresh: Any) -> None:
    with pytest.raises(AirflowSkipException, match="no model's source has changed"):
        refresh()


def test_a_revision_over_the_clusters_limit_is_not_staged(server: Server, refresh: Any, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="the budget is 1000"):
        refresh(make_model(tmp_path / "m", "too-large", (5000,), seed=9105), max_staged_gb=1e-6)
    assert server.keys("models/too-large/") == []
