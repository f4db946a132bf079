"""``python -m include.endpoint``: what is there, held for debugging, given back."""

from __future__ import annotations

import datetime as dt
import os
from pathlib import Path

import pytest

from include.endpoint import names
from include.endpoint.__main__ import main
from include.endpoint.clients import Clients
from include.endpoint.intents import IntentLog
from include.endpoint.lifecycle import create_endpoint
from include.endpoint.resources import ENDPOINT_CONFIGS
from include.endpoint.teardown import teardown
from tests.include.endpoint.test_preflight import new_plan


def test_an_endpoint_is_listed_held_and_given_back(
    clients: Clients, intents: IntentLog, capsys: pytest.CaptureFixture[str]
) -> None:
    assert os.environ["KUBECONFIG"]
    ref = create_endpoint(new_plan(), None, clients, intents)
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert ref.name in listed
    assert "release_model" in listed

    assert main(["hold", ref.name, "--hours", "2"]) == 0
    assert teardown(ref, clients, intents, patience_s=10).kept
    main(["list"])
    assert "(held)" in capsys.readouterr().out

    assert main(["release", ref.name]) == 0
    item = clients.api.get(ENDPOINT_CONFIGS, ref.name, "default")
    assert item is not None
    expires = names.parse_time(names.annotation(item, names.EXPIRES_AT))
    assert expires is not None
    assert expires <= dt.datetime.now(dt.UTC)
    assert teardown(ref, clients, intents, patience_s=10).absent


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["hold", "nobody", "--hours", "1"], "no endpoint of ours named 'nobody'"),
        (["list", "--context", "nowhere"], "KubeconfigInvalid"),
        (["list", "--namespace", "../kube-system"], "NamespaceInvalid"),
        (["hold", "nobody", "--hours", "nan"], "HoldInvalid"),
    ],
)
def test_what_cannot_be_done_is_said_with_the_fix(
    clients: Clients, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    assert main(arguments) == 1
    told = capsys.readouterr().err
    assert said in told
    assert "Fix:" in told


@pytest.mark.parametrize("content", ["rubbish: [", "hello", "contexts: 5", "", None])
def test_a_kubeconfig_that_is_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], content: str | None
) -> None:
    path = tmp_path / "kubeconfig"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(path))
    assert main(["list"]) == 1
    assert "KubeconfigInvalid" in capsys.readouterr().err


def test_an_intent_that_cannot_be_read_is_told_and_hides_no_other(
    intents: IntentLog, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    intents.open(new_plan())
    (kept,) = intents.unfinished()
    broken = tmp_path / "results" / "intents" / kept.cluster / "broken.json"
    assert broken.parent.is_dir()
    broken.write_text("{")
    assert intents.unfinished() == (kept,)
    assert "broken.json cannot be read" in caplog.text
