"""S3 prefixes as they are found: folder markers, odd keys, many keys, other regions, closed and paid-for buckets."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from include.catalog.weights import S3Source, WeightsSpec
from include.errors import ConfigurationError, PipelineError
from include.local import s3
from include.staging.api import resolve_revision, stage, verify
from include.staging.context import StagingContext
from include.staging.s3source import list_prefix
from include.staging.target import Target, bucket_and_prefix
from tests.include.staging.conftest import (
    MODELS_URI,
    Server,
    contents,
    make_model,
    model_of,
    safetensors,
    staged_contents,
)  # fmt: skip

pytestmark = pytest.mark.local
BUCKET = "hyperpod-models"
FAR, HERE = "eu-west-1", s3.REGION


def source_model(name: str, uri: str, **more: Any) -> WeightsSpec:
    return model_of(Path(), name, source={"type": "s3", "uri": uri, **more})


def upload(server: Server, folder: Path, prefix: str) -> None:
    for path, data in contents(folder).items():
        server.client.put_object(Bucket=BUCKET, Key=f"{prefix}/{path}", Body=data)


def test_markers_of_folders_are_no_files(server: Server, context: StagingContext, tmp_path: Path) -> None:
    make_model(tmp_path / "model", "unused", (2 << 20,), seed=7100)
    upload(server, tmp_path / "model", "marked")
    model = source_model("marked", f"s3://{BUCKET}/marked")
    before = resolve_revision(model, context)
    for marker in ("marked/", "marked/sub/", "marked/empty-folder/"):
        server.client.put_object(Bucket=BUCKET, Key=marker, Body=b"")
    assert resolve_revision(model, context) == before, "a folder that somebody made is no other content"
    stage(model, before, MODELS_URI, context, owner="test")
    assert staged_contents(server, "marked", before) == contents(tmp_path / "model")
    verify(MODELS_URI, "marked", before, context)


ODD = (
    "with space.txt",
    "a#b?c=d&e.txt",
    "plus+%2F.txt",
    "ü-日本.txt",
    "~[x]{y}*'(1)!.txt",
    "deep/er/still.txt",
    'q".txt',
)


def test_odd_keys_come_over_as_they_are(server: Server, context: StagingContext) -> None:
    wanted = {path: path.encode() for path in ODD}
    wanted |= {"model.safetensors": safetensors(1000, 1), "config.json": b"{}", "tokenizer.json": b"{}"}
    for path, data in wanted.items():
        server.client.put_object(Bucket=BUCKET, Key=f"odd #1?/{path}", Body=data)
    model = source_model("odd", f"s3://{BUCKET}/odd #1?/")
    revision = resolve_revision(model, context)
    stage(model, revision, MODELS_URI, context, owner="test")
    assert staged_contents(server, "odd", revision) == wanted
    verify(MODELS_URI, "odd", revision, context)


def test_a_listing_of_several_pages_is_whole(server: Server, context: StagingContext) -> None:
    from concurrent.futures import ThreadPoolExecutor

    keys = [f"paged/{number:04}.txt" for number in range(1100)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: server.client.put_object(Bucket=BUCKET, Key=key, Body=key.encode()), keys))
    source = S3Source(type="s3", uri=f"s3://{BUCKET}/paged")
    assert [f"paged/{file.path}" for file in list_prefix(source, context).files] == keys
    # An empty file makes it list by whole keys: nothing else may change.
    server.client.put_object(Bucket=BUCKET, Key="paged/empty", Body=b"")
    exact = list_prefix(source, context)
    assert [f"paged/{file.path}" for file in exact.files] == [*keys, "paged/empty"]


def test_a_bucket_and_its_prefix_are_no_url() -> None:
    assert bucket_and_prefix("s3://bucket/a#1/x?y") == ("bucket", "a#1/x?y")
    for wrong in ("s3://", "s3:///a", "http://bucket/a", "bucket/a", "s3://b#1/a"):
        with pytest.raises(ConfigurationError, match=re.escape(repr(wrong))):
            bucket_and_prefix(wrong)


@dataclass
class Regional:
    """moto, and what it leaves out of S3: buckets have a region, an owner who pays or not, and public ones."""

    application: Any
    regions: dict[str, str] = field(default_factory=dict)
    paid_by_us: set[str] = field(default_factory=set)
    closed: set[str] = field(default_factory=set)
    anonymous: list[bool] = field(default_factory=list)

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        bucket = environ["PATH_INFO"].split("/")[1]
        signed = environ.get("HTTP_AUTHORIZATION", "")
        self.anonymous.append(not signed)
        region, at = self.regions.get(bucket), re.search(r"Credential=[^/]+/\d+/([^/]+)/", signed)
        if region and at and at.group(1) != region:
            return self._refuse(start, "301 Moved Permanently", "PermanentRedirect", region)
        if bucket in self.closed or (bucket in self.paid_by_us and "HTTP_X_AMZ_REQUEST_PAYER" not in environ):
            return self._refuse(start, "403 Forbidden", "AccessDenied", region)
        return self.application(environ, start)

    @staticmethod
    def _refuse(start: Callable[..., Any], status: str, code: str, region: str | None) -> list[bytes]:
        headers = [("Content-Type", "application/xml")]
        # As S3 answers: the region, and no Location.
        start(status, [*headers, ("x-amz-bucket-region", region)] if region else headers)
        return [f"<Error><Code>{code}</Code><Message>planted</Message></Error>".encode()]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Regional, Any]]:
    """A server with a bucket here and one far away, and a client that may do everything."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    rules = Regional(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, rules, threaded=True)
    url = f"http://127.0.0.1:{server.server_port}"
    known = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": HERE,
             "AWS_DEFAULT_REGION": HERE, "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    for name, value in (known | {"AWS_ENDPOINT_URL_S3": url}).items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    clients = {region: boto3.client("s3", endpoint_url=url, region_name=region) for region in (FAR, HERE)}
    for bucket, region in (("far-away", FAR), ("near", HERE)):
        where: Any = {"LocationConstraint": region}
        clients[region].create_bucket(Bucket=bucket, CreateBucketConfiguration=where)
        rules.regions[bucket] = region
    yield rules, clients
    rules.closed.clear()
    rules.paid_by_us.clear()
    for bucket, region in (("far-away", FAR), ("near", HERE)):
        for item in clients[region].list_objects_v2(Bucket=bucket).get("Contents", ()):
            clients[region].delete_object(Bucket=bucket, Key=item["Key"])
        clients[region].delete_bucket(Bucket=bucket)
    server.shutdown()
    thread.join()


def put(clients: dict[str, Any], bucket: str, region: str, files: dict[str, bytes]) -> None:
    for path, data in files.items():
        clients[region].put_object(Bucket=bucket, Key=f"weights/{path}", Body=data)


def whole(tmp_path: Path) -> dict[str, bytes]:
    make_model(tmp_path / "model", "unused", (2 << 20,), seed=7200)
    return contents(tmp_path / "model")


def test_a_source_and_a_target_elsewhere_work_and_say_what_they_cost(
    aws: tuple[Regional, dict[str, Any]], tmp_path: Path
) -> None:
    _, clients = aws
    files = whole(tmp_path)
    put(clients, "far-away", FAR, files)
    model = source_model("moved", "s3://far-away/weights")
    context, said = StagingContext(region=HERE), list[str]()
    revision = resolve_revision(model, context)
    stage(model, revision, "s3://near/m", context, owner="test", notice=said.append)
    assert [line for line in said if FAR in line and HERE in line and "$" in line], said
    folder, said = model_of(tmp_path / "model", "moved"), []
    context = StagingContext(region=HERE)
    revision = resolve_revision(folder, context)
    for again in (False, True):
        staged = stage(folder, revision, "s3://far-away/m", context, owner="test", notice=said.append)
        assert staged.reused is again
        # As another process, which knows nothing of the bucket.
        context = StagingContext(region=HERE)
    assert [line for line in said if "every load" in line and FAR in line], said
    verify("s3://far-away/m", "moved", revision, context)
    stage(folder, revision, "s3://far-away/m", StagingContext(region=HERE), owner="test", repair=True)


def test_a_wrong_region_of_a_source_is_named(aws: tuple[Regional, dict[str, Any]], tmp_path: Path) -> None:
    _, clients = aws
    put(clients, "far-away", FAR, {"a": b"x"})
    with pytest.raises(ConfigurationError, match=rf"source\.region = 'ap-south-1'.*{FAR}") as caught:
        resolve_revision(source_model("m", "s3://far-away/weights", region="ap-south-1"), StagingContext(region=HERE))
    assert caught.value.reason == "RegionWrong"
    model = source_model("m", "s3://far-away/weights", region=FAR)
    assert resolve_revision(model, StagingContext(region=HERE))


@pytest.mark.parametrize("key", ["a//b", "model.safetensors/config.json", "tab\there"])
def test_a_key_that_cannot_be_a_file_is_named(aws: tuple[Regional, dict[str, Any]], tmp_path: Path, key: str) -> None:
    _, clients = aws
    put(clients, "near", HERE, {"model.safetensors": safetensors(100, 1), "config.json": b"{}", key: b"x"})
    with pytest.raises(ConfigurationError, match="KeyUnusable") as caught:
        resolve_revision(source_model("m", "s3://near/weights"), StagingContext(region=HERE))
    assert repr(key)[1:-1].split("/")[0] in caught.value.message


def test_public_and_paid_for_buckets_are_asked_as_the_source_says(
    aws: tuple[Regional, dict[str, Any]], tmp_path: Path
) -> None:
    rules, clients = aws
    files = whole(tmp_path)
    put(clients, "near", HERE, files)
    rules.paid_by_us.add("near")
    context = StagingContext(region=HERE)
    with pytest.raises(ConfigurationError, match="s3://near/weights") as caught:
        resolve_revision(source_model("m", "s3://near/weights"), context)
    assert caught.value.reason == "StoreForbidden"
    paid = list_prefix(S3Source(type="s3", uri="s3://near/weights", requester_pays=True), context)
    assert {file.path: b"".join(file.open()) for file in paid.files} == files
    rules.paid_by_us.clear()
    for path in files:
        clients[HERE].put_object_acl(Bucket="near", Key=f"weights/{path}", ACL="public-read")
    clients[HERE].put_bucket_acl(Bucket="near", ACL="public-read")
    rules.anonymous.clear()
    public = list_prefix(S3Source(type="s3", uri="s3://near/weights", anonymous=True), context)
    assert {file.path: b"".join(file.open()) for file in public.files} == files
    assert all(rules.anonymous)


def test_a_source_that_is_closed_or_missing_is_named(aws: tuple[Regional, dict[str, Any]]) -> None:
    rules, _ = aws
    rules.closed.add("near")
    for uri in ("s3://near/weights", "s3://never-made/weights"):
        with pytest.raises(ConfigurationError, match=uri):
            resolve_revision(source_model("m", uri), StagingContext(region=HERE))


def test_a_store_that_fails_for_a_while_is_asked_again_by_a_retry(
    aws: tuple[Regional, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")
    target = Target.open("s3://near/m", "m", "1", StagingContext(region=HERE))
    from obstore.store import S3Store

    quick = {"max_retries": 0, "retry_timeout": dt.timedelta(seconds=1)}
    store: Any = S3Store("near", region=HERE, endpoint="http://127.0.0.1:9", retry_config=quick,
                         client_options={"allow_http": True})  # fmt: skip
    target.objects = type(target.objects)(target.objects.uri, store)
    with pytest.raises(PipelineError, match="s3://near/m") as caught:
        target.manifest()
    assert (caught.value.reason, caught.value.retryable) == ("StoreUnavailable", True)
