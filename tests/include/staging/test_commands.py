"""The command line on a real store: fetch and warm find every wrong byte, collection spares what is in use."""

from __future__ import annotations

import datetime as dt
import json
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.staging.cli import main
from include.staging.collect import Retention, Staged, decide
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model

NOW = dt.datetime(2026, 11, 23, tzinfo=dt.UTC)
SHARD = "model-0.safetensors"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(server: Server, capsys: pytest.CaptureFixture[str]) -> Run:
    def command(*arguments: object) -> tuple[int, str, str]:
        name, *rest = map(str, arguments)
        code = main([name, *rest] if name == "warm" else [name, "--models-uri", MODELS_URI, *rest])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


@pytest.fixture
def staged(run: Run, tmp_path: Path, request: pytest.FixtureRequest) -> tuple[str, str, Path]:
    """Name, revision and source folder of a model staged from the command line."""
    name = f"cli-{zlib.crc32(request.node.name.encode())}"
    folder = tmp_path / "model"
    make_model(folder, name, (3 << 20, 70 << 20), seed=5000 + zlib.crc32(name.encode()) % 1000)
    code, out, err = run("stage", name, "--source", folder)
    assert code == 0, err
    return name, json.loads(out)["revision"], folder


@pytest.mark.local
def test_fetch_brings_exactly_the_bytes_and_goes_on_where_it_was(
    run: Run, staged: tuple[str, str, Path], tmp_path: Path
) -> None:
    name, revision, folder = staged
    to = tmp_path / "fsx"
    code, out, err = run("fetch", name, revision, "--to", to)
    assert code == 0, err
    files = to / name / revision / "files"
    assert contents(files) == contents(folder)
    (files / "config.json").unlink()
    code, out, _ = run("fetch", name, revision, "--to", to)
    assert (code, json.loads(out)["moved_bytes"]) == (0, len(contents(folder)["config.json"]))
    assert contents(files) == contents(folder)
    code, out, _ = run("warm", to / name / revision)
    assert (code, json.loads(out)["read_bytes"]) == (0, sum(map(len, contents(folder).values())))


@pytest.mark.local
def test_warm_names_a_file_that_is_not_what_was_staged(run: Run, staged: tuple[str, str, Path], tmp_path: Path) -> None:
    name, revision, _ = staged
    run("fetch", name, revision, "--to", tmp_path / "fsx")
    shard = tmp_path / "fsx" / name / revision / "files" / SHARD
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.write_bytes(data)
    code, _, err = run("warm", tmp_path / "fsx" / name / revision)
    assert code == 1
    assert SHARD in err


@pytest.mark.local
def test_fetch_refuses_an_object_that_changed_after_staging(
    server: Server, run: Run, staged: tuple[str, str, Path], tmp_path: Path
) -> None:
    name, revision, _ = staged
    key = f"models/{name}/{revision}/files/{SHARD}"
    body = bytearray(server.body(key))
    body[100] ^= 1
    server.client.put_object(Bucket="hyperpod-models", Key=key, Body=bytes(body))
    code, _, err = run("fetch", name, revision, "--to", tmp_path / "fsx")
    assert code == 1
    assert SHARD in err
    assert not (tmp_path / "fsx" / name / revision / "manifest.json").exists()
    assert not (tmp_path / "fsx" / name / revision / "files" / SHARD).exists()


@pytest.mark.local
def test_list_verify_and_explore_say_what_is_there(run: Run, staged: tuple[str, str, Path]) -> None:
    name, revision, folder = staged
    assert revision in run("list", name)[1]
    assert run("verify", name, revision, "--depth", "content")[0] == 0
    code, out, _ = run("explore", name, revision)
    assert code == 0
    assert all(path in out for path in contents(folder))
    assert run("verify", name, "sha256-0000000000000000")[0] == 1


@pytest.mark.local
def test_collect_says_what_first_and_deletes_only_when_told(
    server: Server, run: Run, staged: tuple[str, str, Path], tmp_path: Path
) -> None:
    name, revision, folder = staged
    (folder / "config.json").write_text("{}")
    newer = json.loads(run("stage", name, "--source", folder)[1])["revision"]
    asked = ("collect", name, "--keep", 1, "--days", 0, "--without-cluster")
    code, out, _ = run(*asked)
    assert code == 0
    assert "would be deleted" in out
    assert f"delete {name}/{revision} 76552" in out
    assert server.keys(f"models/{name}/{revision}/")
    assert run(*asked, "--yes")[0] == 0
    assert server.keys(f"models/{name}/{revision}/") == []
    assert run("verify", name, newer)[0] == 0


@pytest.mark.local
def test_a_pickle_is_refused_before_a_byte_moves(server: Server, run: Run, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    code, _, err = run("stage", "pickled", "--source", tmp_path)
    assert code == 2
    assert "PickleRefused" in err
    assert server.keys("models/pickled/") == []


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.booleans(), st.booleans()), max_size=12),
    st.integers(0, 3),
    st.integers(0, 10),
)
def test_collection_never_takes_what_is_used_young_or_among_the_newest(
    rows: list[tuple[str, int, bool, bool]], keep: int, days: int
) -> None:
    staged = [
        Staged(name, str(number), NOW - dt.timedelta(days=age), finished, 1, 1)
        for number, (name, age, finished, _) in enumerate(rows)
    ]
    in_use = {one.key for one, row in zip(staged, rows, strict=True) if row[3]}
    decisions = decide(staged, Retention(keep, dt.timedelta(days=days)), in_use, NOW)
    doomed = {decision.staged.key for decision in decisions if decision.delete}
    assert len(decisions) == len(staged)
    assert not doomed & in_use
    for name in "ab":
        finished = sorted((one for one in staged if one.name == name and one.finished), key=lambda one: one.at)
        young = {one.key for one in staged if NOW - one.at < dt.timedelta(days=days)}
        assert not doomed & young
        assert sum(one.key not in doomed for one in finished) >= min(keep, len(finished))
