"""What cannot be served or is unsafe to load is refused by name, from heads alone, before a byte moves."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.catalog.specs import ModelSpec
from include.errors import ConfigurationError, IntegrityError
from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.local.weights import smollm2
from include.staging.checks import check_formats
from include.staging.context import StagingContext
from include.staging.gguf import check_gguf
from include.staging.safetensors import tensors_of
from include.staging.sources import Listing, SourceFile, list_source
from tests.include.staging.conftest import make_model, model_of, safetensors

COMPANIONS = {"config.json": b"{}", "tokenizer.json": b"{}"}


def file_of(path: str, data: bytes) -> SourceFile:
    return SourceFile(path, len(data), None, lambda: iter([data[:100], data[100:]]))


def check(files: dict[str, bytes], **fields: Any) -> tuple[str, ...]:
    model = ModelSpec.model_validate(
        {"name": "m", "source": {"type": "folder", "path": "x"}, "deployment": {}} | fields
    )
    return check_formats(model, Listing("r", {}, tuple(file_of(path, data) for path, data in files.items())))


def shard(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def tensor(begin: int, end: int, dtype: str = "F16", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - begin) // 2] if shape is None else shape, "data_offsets": [begin, end]}


def index(**weight_map: str) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": weight_map}).encode()


def text(value: bytes) -> bytes:
    return struct.pack("<Q", len(value)) + value


def gguf(
    *, tensors: int = 1, kind: int = 0, shape: tuple[int, ...] = (8, 4), offset: int = 0, data: int = 128,
    version: int = 3, alignment: int = 32,
) -> bytes:  # fmt: skip
    """A GGUF file with three metadata values, one of them a list of words."""
    words = [b"the", b"of"]
    values = [
        text(b"general.architecture") + struct.pack("<I", 8) + text(b"llama"),
        text(b"general.alignment") + struct.pack("<II", 4, alignment),
        text(b"tokens") + struct.pack("<IIQ", 9, 8, len(words)) + b"".join(map(text, words)),
        text(b"scores") + struct.pack("<IIQ", 9, 6, 2) + struct.pack("<ff", 1, 2),
    ]
    head = b"GGUF" + struct.pack("<IQQ", version, tensors, len(values)) + b"".join(values)
    for number in range(min(tensors, 3)):
        head += text(b"t%d" % number) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape)
        head += struct.pack("<IQ", kind, offset)
    return head + bytes(-len(head) % 32) + bytes(data)


SOUND = shard({"__metadata__": {"format": "pt"}, "a": tensor(0, 8), "b": tensor(8, 12)}, bytes(12))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (SOUND[:-1], "SafetensorsTruncated"),
        (SOUND + b"x", "SafetensorsTruncated"),
        (SOUND[:40], "SafetensorsTruncated"),
        (b"", "SafetensorsTruncated"),
        (b"1234", "SafetensorsTruncated"),
        (shard({}, length=1 << 40), "SafetensorsTruncated"),
        (shard(b"not json"), "SafetensorsInvalid"),
        (shard([1, 2]), "SafetensorsInvalid"),
        (shard({"a": 1}), "SafetensorsInvalid"),
        (shard({"a": {"dtype": "F16", "shape": [4]}}, bytes(8)), "SafetensorsInvalid"),
        (shard({"a": tensor(0, 8), "b": tensor(10, 12)}, bytes(12)), "SafetensorsInvalid"),
        (shard({"a": tensor(0, 8), "b": tensor(4, 12)}, bytes(12)), "SafetensorsInvalid"),
        (shard({"a": tensor(0, 8, shape=[5])}, bytes(8)), "SafetensorsInvalid"),
        (shard({"a": tensor(0, 8, "F64")}, bytes(8)), "SafetensorsInvalid"),
        (shard({"a": tensor(0, 8, shape=[-2, -2])}, bytes(8)), "SafetensorsInvalid"),
        (shard({"a": tensor(0, 8, shape=["4"])}, bytes(8)), "SafetensorsInvalid"),  # type: ignore[list-item]
    ],
)
def test_a_safetensors_file_that_is_damaged_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=r"deep/model\.safetensors") as caught:
        check(COMPANIONS | {"deep/model.safetensors": data})
    assert caught.value.reason == reason


def test_sound_files_pass_whatever_types_they_hold() -> None:
    types = {
        "a": tensor(0, 3, "F6_E2M3", [4]), "b": tensor(3, 4, "F4", [2]), "scalar": tensor(4, 8, "F32", []),
        "empty": tensor(8, 8, "BF16", [0, 7]), "later": tensor(8, 9, "F1_NEW", [77]),
    }  # fmt: skip
    assert check(COMPANIONS | {"model.safetensors": shard(types, bytes(9))}) == ()
    assert tensors_of(file_of("m", SOUND)) == {"a", "b"}


@given(st.binary(max_size=200), st.booleans())
def test_no_bytes_end_in_anything_but_a_named_refusal(data: bytes, is_gguf: bool) -> None:
    for content in (data, b"GGUF\3\0\0\0" + data, shard(data), shard(b'{"a":' + data + b"}")):
        try:
            check_gguf(file_of("f", content)) if is_gguf else tensors_of(file_of("f", content))
        except IntegrityError as error:
            assert "f: " in error.message  # noqa: PT017


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GGUF", "GgufTruncated"),
        (b"GGML" + gguf()[4:], "NotGguf"),
        (gguf()[:60], "GgufTruncated"),
        (gguf()[:-1], "GgufTruncated"),
        (gguf(data=127), "GgufTruncated"),
        (gguf(tensors=4), "GgufTruncated"),
        (gguf(kind=2, shape=(32, 300)), "GgufTruncated"),
        (gguf(kind=2, shape=(31, 2)), "GgufInvalid"),
        (gguf(offset=8, data=400), "GgufInvalid"),
        (gguf(version=1), "GgufInvalid"),
        (gguf(version=3 << 24), "GgufInvalid"),
        (gguf(alignment=0), "GgufInvalid"),
        (gguf(shape=(1,) * 9), "GgufInvalid"),
    ],
)
def test_a_gguf_file_that_is_damaged_is_named(data: bytes, reason: str) -> None:
    with pytest.raises(IntegrityError, match=r"deep/model\.GGUF") as caught:
        check({"deep/model.GGUF": data})
    assert caught.value.reason == reason


@pytest.mark.parametrize("more", [{}, {"kind": 2, "shape": (32, 7), "data": 126}, {"kind": 99}, {"version": 2}])
def test_a_sound_gguf_file_needs_nothing_beside_it(more: dict[str, Any]) -> None:
    assert check({"model.gguf": gguf(**more)}) == ()


def test_a_gguf_head_that_is_longer_than_one_read_is_read_to_its_end() -> None:
    long = gguf().replace(text(b"llama"), text(b"x" * (5 << 20)))
    assert check({"model.gguf": long + bytes(32)}) == ()
    with pytest.raises(IntegrityError, match="ends at byte"):
        check({"model.gguf": long[: 3 << 20]})


@pytest.mark.local
def test_the_real_weights_of_the_local_cluster_end_where_their_head_says() -> None:
    path = smollm2()
    data = path.read_bytes()
    check_gguf(file_of(path.name, data))
    with pytest.raises(IntegrityError, match="its tensors end at"):
        check_gguf(file_of(path.name, data[:-1]))


ONE, OTHER = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
A, B = shard({"a": tensor(0, 8)}, bytes(8)), shard({"b": tensor(0, 8)}, bytes(8))
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("files", "reason", "named"),
    [
        ({ONE: A, INDEX: index(a=ONE)}, "ShardMissing", OTHER),
        ({"x.safetensors": A, INDEX: index(a="x.safetensors", b="y.safetensors")}, "ShardMissing", "y.safetensors"),
        # The other folder's tensor of that name does not make up for it.
        ({ONE: A, OTHER: A, INDEX: index(a=ONE, b=OTHER), "o/x.safetensors": B}, "TensorMissing", OTHER),
        ({"o/x.safetensors": A, f"o/{INDEX}": index(a="x"), "x": b""}, "ShardMissing", "o/x"),
        ({"x.safetensors": A, INDEX: b"{"}, "IndexInvalid", INDEX),
        ({"x.safetensors": A, INDEX: b"{}"}, "IndexInvalid", INDEX),
        ({"x.safetensors": A, INDEX: b'{"weight_map": [1]}'}, "IndexInvalid", INDEX),
        ({"m-00001-of-00002.gguf": gguf()}, "ShardMissing", "m-00002-of-00002.gguf"),
    ],
)
def test_what_an_index_or_a_number_promises_and_is_not_there_is_named(
    files: dict[str, bytes], reason: str, named: str
) -> None:
    with pytest.raises(IntegrityError) as caught:
        check(COMPANIONS | files)
    assert caught.value.reason == reason
    assert named in caught.value.message


def test_sets_of_shards_pass_in_any_folder() -> None:
    several = {ONE: A, OTHER: B, INDEX: index(a=ONE, b=OTHER)}
    assert check(COMPANIONS | several) == ()
    assert check(COMPANIONS | {f"o/{path}": data for path, data in several.items()} | several) == ()


@pytest.mark.parametrize(
    ("files", "lacks"),
    [
        ({"tokenizer.json": b""}, "config"),
        ({"config.json": b""}, "tokenizer"),
        ({"other/config.json": b"", "tokenizer.model": b""}, "config"),
    ],
)
def test_safetensors_without_what_serving_reads_are_refused_unless_that_is_meant(
    files: dict[str, bytes], lacks: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"without a {lacks}") as caught:
        check(files | {"model.safetensors": SOUND})
    assert caught.value.reason == "ModelIncomplete"
    assert "weights_only" in caught.value.fix
    (said,) = check(files | {"model.safetensors": SOUND}, weights_only=True)
    assert lacks in said


@pytest.mark.parametrize(
    "path", ["x.PKL", "y.joblib", "z.npy", "z.npz", "a.dill", "pytorch_model.bin", "b.Pt", "c.ckpt", "d.pth"]
)
def test_whatever_may_run_code_when_loaded_is_refused_beside_safetensors_too(path: str) -> None:
    files = COMPANIONS | {"model.safetensors": SOUND, path: b"\x80\x04."}
    with pytest.raises(ConfigurationError, match=path) as caught:
        check(files)
    assert caught.value.reason == "PickleRefused"
    assert check(files, allow_pickle=True) == ()


def test_a_source_without_weights_is_named() -> None:
    with pytest.raises(ConfigurationError) as caught:
        check(COMPANIONS)
    assert caught.value.reason == "NoWeights"


def test_heads_come_from_a_hub_by_one_small_request_each(tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    make_model(folder, "unused", (20 << 20, 9 << 20), seed=6500)
    with HubServer([Repository("org/model", folder)]) as hub:
        model = model_of(folder, "m", source={"type": "huggingface", "repo": "org/model"})
        listing = list_source(model, StagingContext(hf_endpoint=hub.url))
        assert check_formats(model, listing) == ()
        assert hub.sent["model-0.safetensors"] == hub.sent["model-1.safetensors"] == 256 << 10
        signed = [path for method, path, _ in hub.log if method == "GET" and path.startswith("/signed/")]
        assert len(signed) == 2
        first = listing.files[1]
        assert first.head(8) == safetensors(20 << 20, 650000)[:8]
        assert hub.sent[first.path] == (256 << 10) + 8
