"""What a store or a Hub refuses, at each step: one sentence with field, value and fix, never a traceback."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from include.catalog.specs import BucketOptions
from include.errors import ConfigurationError, FailureClass, IntegrityError, PipelineError
from include.local import s3
from include.local.hub.faults import HubFault, HubFaultKind
from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.staging.api import resolve_revision, stage
from include.staging.cli import main
from include.staging.context import Progress, StagingContext
from include.staging.hub import without_queries
from include.staging.manifest import Manifest
from include.staging.mover import move
from include.staging.moving import move_all
from include.staging.progress import Meter
from include.staging.reuse import Reusable
from include.staging.sources import SourceFile
from include.staging.target import Target
from tests.include.staging.conftest import MODELS_URI, Server, contents, make_model, model_of, staged_contents

pytestmark = pytest.mark.local
SHARD = "model-0.safetensors"
BUCKET = "hyperpod-models"


@dataclass
class Refusing:
    """A server that answers as S3 does: rules are tried in turn, what none refuses moto does.

    :param rules: status, code and message for a request, or ``None``.
    """

    application: Any
    rules: list[Callable[[dict[str, Any]], tuple[str, str, str] | None]] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        for rule in self.rules:
            if refused := rule(environ):
                status, code, message = refused
                # A body that is not read would be taken for the next request.
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start(status, [("Content-Type", "application/xml")])
                return [f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()]
        return self.application(environ, start)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Refusing]:
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    refusing = Refusing(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, refusing, threaded=True)
    url = f"http://127.0.0.1:{server.server_port}"
    known = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": s3.REGION,
             "AWS_DEFAULT_REGION": s3.REGION, "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    for name, value in (known | {"AWS_ENDPOINT_URL_S3": url}).items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    client = boto3.client("s3", endpoint_url=url)
    client.create_bucket(Bucket="store", CreateBucketConfiguration={"LocationConstraint": s3.REGION})
    yield refusing
    refusing.rules.clear()
    for item in client.list_objects_v2(Bucket="store").get("Contents", ()):
        client.delete_object(Bucket="store", Key=item["Key"])
    client.delete_bucket(Bucket="store")
    server.shutdown()
    thread.join()


def denied(method: str, path: str) -> Callable[[dict[str, Any]], tuple[str, str, str] | None]:
    def rule(environ: dict[str, Any]) -> tuple[str, str, str] | None:
        if environ["REQUEST_METHOD"] == method and re.search(path, environ["PATH_INFO"]):
            return "403 Forbidden", "AccessDenied", "Access Denied"
        return None

    return rule


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", r"manifest\.json$"), ("PUT", r"staging\.lock$"), ("PUT", "config"), ("PUT", r"manifest\.json$"),
     ("GET", r"^/store/?$"), ("POST", SHARD), ("HEAD", SHARD)],
)  # fmt: skip
def test_a_denied_request_at_any_step_names_the_store(
    store: Refusing, tmp_path: Path, capsys: pytest.CaptureFixture[str], method: str, path: str
) -> None:
    make_model(tmp_path / "model", "denied", (20 << 20,))
    store.rules.append(denied(method, path))
    code = main(["stage", "denied", "--models-uri", "s3://store/m", "--source", str(tmp_path / "model")])
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert re.match(r"(StoreForbidden|BucketForbidden): models_uri", said), said
    assert "store" in said
    assert "Fix: " in said


@pytest.mark.parametrize(
    ("code", "message", "named"),
    [
        ("InvalidStorageClass", "The storage class you specified is not valid", "models_bucket.storage_class"),
        ("KMS.NotFoundException", "Key 'arn:x' does not exist", "models_bucket.kms_key = 'arn:x'"),
        ("AccessDenied", "not authorized to perform: kms:GenerateDataKey", "models_bucket.kms_key = 'arn:x'"),
        ("InvalidTag", "The TagValue you have provided is invalid", "models_bucket.tags"),
    ],
)
def test_what_is_said_of_each_object_is_named_and_not_tried_again(
    store: Refusing, tmp_path: Path, code: str, message: str, named: str
) -> None:
    model = make_model(tmp_path / "model", "refused", (20 << 20,))
    context = StagingContext(region=s3.REGION, kms_key="arn:x", tags={"a": "b"}, storage_class="STANDARD_IA")
    revision = resolve_revision(model, context)

    def rule(environ: dict[str, Any]) -> tuple[str, str, str] | None:
        creates = environ["REQUEST_METHOD"] in ("PUT", "POST") and "/files/" in environ["PATH_INFO"]
        return ("400 Bad Request", code, message) if creates else None

    store.rules.append(rule)
    with pytest.raises(ConfigurationError, match=re.escape(named)):
        stage(model, revision, "s3://store/m", context, owner="test")


def test_a_policy_that_wants_tags_is_met_by_the_lock_and_the_manifest_too(store: Refusing, tmp_path: Path) -> None:
    def rule(environ: dict[str, Any]) -> tuple[str, str, str] | None:
        creates = environ["REQUEST_METHOD"] == "PUT" and "partNumber" not in environ["QUERY_STRING"]
        creates |= environ["REQUEST_METHOD"] == "POST" and environ["QUERY_STRING"].startswith("uploads")
        tagged = environ.get("HTTP_X_AMZ_TAGGING") == "team=ml"
        return ("403 Forbidden", "AccessDenied", "Access Denied") if creates and not tagged else None

    model = make_model(tmp_path / "model", "tagged", (20 << 20,))
    context = StagingContext(region=s3.REGION, tags={"team": "ml"})
    store.rules.append(rule)
    stage(model, resolve_revision(model, context), "s3://store/m", context, owner="test")


@pytest.mark.parametrize("storage_class", ["GLACIER", "DEEP_ARCHIVE", "STANDART"])
def test_a_class_that_no_endpoint_could_read_is_refused_in_the_catalog(storage_class: str) -> None:
    with pytest.raises(ValidationError, match="storage_class"):
        BucketOptions.model_validate({"storage_class": storage_class})


def test_a_folder_that_cannot_be_written_is_one_sentence(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_model(tmp_path / "model", "unwritable", (1 << 20,))
    place = ["--models-uri", MODELS_URI]
    assert main(["stage", "unwritable", *place, "--source", str(tmp_path / "model")]) == 0
    revision = server.keys("models/unwritable/")[0].split("/")[2]
    (tmp_path / "file").write_text("no folder")
    capsys.readouterr()
    assert main(["fetch", "unwritable", revision, *place, "--to", str(tmp_path / "file" / "x")]) == 2
    assert str(tmp_path / "file") in capsys.readouterr().err


def test_the_first_failure_stops_the_large_files(server: Server, context: StagingContext) -> None:
    small_failed, passed = threading.Event(), 0

    def small() -> Iterator[bytes]:
        yield b"not what the digest says"
        small_failed.set()

    def large() -> Iterator[bytes]:
        nonlocal passed
        for _ in range(4096):
            passed += 1
            yield bytes(1 << 20)
            assert small_failed.wait(60)

    files = [
        SourceFile("large.bin", 4096 << 20, None, large),
        SourceFile("small.bin", len(b"not what the digest says"), "0" * 64, small),
    ]
    target = Target.open(MODELS_URI, "stopped-all", "1", context)
    with pytest.raises(IntegrityError, match=r"small\.bin"):
        move_all(files, target, Reusable(), lambda: None, Meter(1, None))
    assert passed < 4096, "hours of a file that nobody will publish"
    assert server.keys("models/stopped-all/") == []


@pytest.mark.parametrize("same", [True, False])
def test_a_manifest_that_another_wrote_meanwhile_must_be_of_what_is_there(
    server: Server, context: StagingContext, tmp_path: Path, same: bool
) -> None:
    name = f"overtaken-{same}".lower()
    model = make_model(tmp_path / "model", name, (2 << 20,), seed=8000 + same)
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="another")
    stored = Target.open(MODELS_URI, name, revision, context).require_manifest()
    for key in server.keys(f"models/{name}/"):
        server.client.delete_object(Bucket=BUCKET, Key=key)
    files = stored.files if same else tuple(file.model_copy(update={"etag": "another"}) for file in stored.files)
    theirs: Manifest = stored.model_copy(update={"files": files})
    written: list[Progress] = []

    def at_the_end(progress: Progress) -> None:
        written.append(progress)
        key = f"models/{name}/{revision}/manifest.json"
        server.client.put_object(Bucket=BUCKET, Key=key, Body=theirs.to_bytes())

    if same:
        staged = stage(model, revision, MODELS_URI, context, owner="test", progress=at_the_end)
        assert (staged.manifest_digest, len(written)) == (theirs.digest, 1)
        return
    with pytest.raises(IntegrityError, match="StagedFileChanged"):
        stage(model, revision, MODELS_URI, context, owner="test", progress=at_the_end)


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[tuple[HubServer, Path]]:
    folder = tmp_path / "repository"
    make_model(folder, "unused", (20 << 20, 3 << 20), seed=time.monotonic_ns() % 100_000)
    with HubServer([Repository("org/model", folder)]) as server:
        yield server, folder


def from_hub(hub: HubServer, name: str) -> Any:
    model = model_of(Path(), name, source={"type": "huggingface", "repo": "org/model"})
    context = StagingContext(region=s3.REGION, hf_endpoint=hub.url)
    return stage(model, resolve_revision(model, context), MODELS_URI, context, owner="test")


@pytest.mark.parametrize(
    "fault",
    [
        HubFault(HubFaultKind.CORRUPT, "sub/tokenizer.json", times=1),
        HubFault(HubFaultKind.EXPIRED, SHARD, times=1),
        HubFault(HubFaultKind.EMPTY, SHARD, times=1),
        HubFault(HubFaultKind.STATUS, "/signed/*", times=1, status=403),
    ],
)
def test_what_goes_wrong_once_with_a_file_costs_that_file_only(
    server: Server, hub: tuple[HubServer, Path], fault: HubFault
) -> None:
    hub[0].faults.rules.append(fault)
    name = f"once-{fault.kind.value}-{fault.status}"
    staged = from_hub(hub[0], name)
    assert fault.times == 0
    assert staged.moved_bytes == staged.total_bytes
    assert staged_contents(server, name, staged.revision) == contents(hub[1])
    assert server.uploads() == []


def test_a_large_file_that_was_damaged_on_its_way_is_read_once_more(server: Server, context: StagingContext) -> None:
    data = bytes(range(256)) * (80 << 10)
    reads = [data[:-1] + b"X", data[:-9], data]
    wanted = hashlib.sha256(data).hexdigest()
    for tries, done in ((1, False), (2, True)):
        left = iter(reads[-tries:])
        file = SourceFile("weights.bin", len(data), wanted, lambda left=left: iter([next(left)]))  # type: ignore[misc]
        passed: list[int] = []
        target = Target.open(MODELS_URI, f"again-{tries}", "1", context)
        if not done:
            file = dataclasses.replace(file, sha256="0" * 64, open=lambda: iter([data]))
            with pytest.raises(IntegrityError, match="read twice"):
                move(file, target, passed.append)
            continue
        assert move(file, target, passed.append).sha256 == wanted
        assert sum(passed) == len(data), "bytes that passed twice are moved once"
    assert server.uploads() == []


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_withdrawn_in_mid_transfer_is_said_and_not_tried_again(
    server: Server, hub: tuple[HubServer, Path], status: int
) -> None:
    rules = [
        HubFault(HubFaultKind.STATUS, f"*/resolve/*/{SHARD}", times=None, status=status),
        HubFault(HubFaultKind.EXPIRED, SHARD, times=None),
    ]
    hub[0].faults.rules.extend(rules)
    with pytest.raises(ConfigurationError, match=SHARD) as caught:
        from_hub(hub[0], f"withdrawn-{status}")
    assert caught.value.reason == "SourceForbidden"
    assert server.uploads() == []


@pytest.mark.parametrize("kind", [HubFaultKind.EMPTY, HubFaultKind.EXPIRED])
def test_a_hub_that_never_sends_bytes_is_given_up(
    server: Server, hub: tuple[HubServer, Path], monkeypatch: pytest.MonkeyPatch, kind: HubFaultKind
) -> None:
    monkeypatch.setattr("include.staging.hub.LONGEST_PAUSE", 0.01)
    hub[0].faults.rules.append(HubFault(kind, SHARD, times=None))
    with pytest.raises(PipelineError, match=SHARD) as caught:
        from_hub(hub[0], f"never-{kind.value}")
    assert caught.value.failure_class is FailureClass.TRANSIENT


def test_a_signed_address_is_never_said(
    server: Server, hub: tuple[HubServer, Path], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The client's own error holds the address; neither the message nor what a log prints of it may."""
    import traceback

    from include.staging.hub import Remote

    monkeypatch.setattr("include.staging.hub.LONGEST_PAUSE", 0.01)
    model = model_of(Path(), "signed", source={"type": "huggingface", "repo": "org/model"})
    context = StagingContext(region=s3.REGION, hf_endpoint=hub[0].url)
    remote = Remote(context, "org/model", resolve_revision(model, context), SHARD, 20 << 20)
    nobody = "http://127.0.0.1:9/file?X-Amz-Credential=key&X-Amz-Signature=opens-the-file"
    monkeypatch.setattr(Remote, "_locate", lambda self: nobody)
    with caplog.at_level(logging.INFO), pytest.raises(PipelineError) as caught:
        remote.part(0, 100)
    printed = "".join(traceback.format_exception(caught.value)) + str(caught.value) + caplog.text
    assert "/file?…" in printed
    assert "opens-the-file" not in printed
    assert caught.value.__context__ is None
    assert without_queries("for url: /a/b?x=1&y=(2) (Caused by x)") == "for url: /a/b?…) (Caused by x)"
