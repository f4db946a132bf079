"""Shapes of requests and replies, and Prometheus text."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.local.modelserver.bodies import BadBodyError, TokenStream, of_invocation, parse_json
from include.local.modelserver.counters import Histogram
from include.local.modelserver.files import manifest_digest, model_folder


def chunk(text: str, finish: str | None = None) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": text, "finish_reason": finish}]}).encode() + b"\n\n"


@given(st.lists(st.text(), max_size=8), st.data())
def test_token_stream_does_not_depend_on_how_the_bytes_are_cut(texts: list[str], data: st.DataObject) -> None:
    whole = b"".join(map(chunk, texts)) + chunk("", "stop") + b"data: [DONE]\n\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(whole)), max_size=10)))
    stream = TokenStream()
    made = []
    for start, end in zip([0, *cuts], [*cuts, len(whole)], strict=True):
        made += list(stream.feed(whole[start:end]))
    found = [json.loads(event.removeprefix(b"data:")) for event in made]
    assert [event["token"]["text"] for event in found] == [*texts, ""]
    assert found[-1]["generated_text"] == "".join(texts)
    assert found[-1]["details"]["generated_tokens"] == sum(bool(text) for text in texts)


def test_an_error_inside_a_stream_is_passed_on() -> None:
    (event,) = TokenStream().feed(b'data: {"error": {"message": "broken"}}\n')
    assert json.loads(event.removeprefix(b"data:")) == {"error": {"message": "broken"}}


def test_parameters_keep_their_meaning() -> None:
    call = of_invocation(
        {"inputs": "x", "parameters": {"max_new_tokens": 5, "stop_sequences": ["."], "do_sample": False, "seed": 3}}
    )
    assert call.body == {"prompt": "x", "max_tokens": 5, "stop": ["."], "temperature": 0, "seed": 3}
    assert call.generated_text


@given(st.binary(max_size=40))
def test_any_bytes_are_parsed_or_refused(data: bytes) -> None:
    try:
        body = parse_json(data)
    except BadBodyError:
        return
    assert isinstance(body, dict)


@given(st.lists(st.floats(0, 100, allow_nan=False), max_size=30))
def test_histogram_buckets_are_cumulative_and_complete(values: list[float]) -> None:
    histogram = Histogram("x", "y")
    for value in values:
        histogram.observe(value)
    counts = {}
    for line in histogram.text().splitlines():
        if line.startswith("x_bucket"):
            counts[line.split('"')[1]] = int(line.split()[1])
    assert counts.pop("+Inf") == len(values)
    assert counts == {bound: sum(value <= float(bound) for value in values) for bound in counts}


def test_the_folder_comes_from_the_argument_then_the_environment(tmp_path: Path) -> None:
    for name in ("given", "environment", "mount"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "m.gguf").touch()
    environment = {
        "SM_MODEL_DIR": str(tmp_path / "environment"),
        "HYPERPOD_LOCAL_MOUNT_MODEL_WEIGHTS": str(tmp_path / "mount"),
    }
    assert model_folder(str(tmp_path / "given"), environment).name == "given"
    assert model_folder("/opt/ml/model", environment).name == "environment"
    del environment["SM_MODEL_DIR"]
    assert model_folder(None, environment).name == "mount"
    with pytest.raises(FileNotFoundError, match="absent"):
        model_folder(str(tmp_path / "absent"), {})


def test_manifest_digest_is_the_agents_or_that_of_the_file(tmp_path: Path) -> None:
    from include.canonical import digest

    folder = tmp_path / "files"
    folder.mkdir()
    assert manifest_digest(folder, {}) is None
    (tmp_path / "manifest.json").write_text('{"b": 1, "a": 2}')
    assert manifest_digest(folder, {}) == digest({"a": 2, "b": 1})
    assert manifest_digest(folder, {"HYPERPOD_LOCAL_MANIFEST_DIGEST": "sha256:00"}) == "sha256:00"
