"""What a cluster asks of its bucket, over real HTTP: key, tags, storage class, owner, region; and the licence."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from include.catalog.specs import BucketOptions, ModelSpec
from include.errors import ConfigurationError
from include.local import s3
from include.staging.api import resolve_revision, stage
from include.staging.collect import Staged, delete
from include.staging.context import Progress, StagingContext
from include.staging.gates import check_license, check_place
from include.staging.sources import Listing, list_source
from include.staging.target import Target
from tests.include.staging.conftest import make_model, model_of

OWNER, STRANGER = "123456789012", "999999999999"
KEY = "arn:aws:kms:us-west-2:123456789012:key/0123"
SIZES = (20 << 20, 3 << 20)
SHARDS = ("files/model-0.safetensors", "files/model-1.safetensors")


class AsOwnedBy:
    """moto, and what it leaves out: S3 refuses a request that expects another owner of the bucket."""

    owner = OWNER

    def __init__(self, application: Any, seen: list[str]) -> None:
        self._application = application
        self._seen = seen

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        expected = environ.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER")
        self._seen.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} owner={expected}")
        if expected not in (None, self.owner):
            start("403 Forbidden", [("Content-Type", "application/xml")])
            return [b"<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"]
        return self._application(environ, start)


@pytest.fixture
def requests_seen() -> list[str]:
    return []


@pytest.fixture
def moto(monkeypatch: pytest.MonkeyPatch, requests_seen: list[str]) -> Iterator[Any]:
    """A moto server in this process, and a client of it."""
    import boto3
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    known = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_REGION": s3.REGION,
             "AWS_DEFAULT_REGION": s3.REGION, "AWS_EC2_METADATA_DISABLED": "true"}  # fmt: skip
    application = AsOwnedBy(DomainDispatcherApplication(create_backend_app), requests_seen)
    server = make_server("127.0.0.1", 0, application, threaded=True)
    url = f"http://127.0.0.1:{server.server_port}"
    for name, value in (known | {"AWS_ENDPOINT_URL_S3": url}).items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for bucket, region in (("far", "eu-west-1"), ("models", s3.REGION)):
        client = boto3.client("s3", endpoint_url=url, region_name=region)
        client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": region})
    yield client
    for bucket in ("models", "far"):
        for item in client.list_objects_v2(Bucket=bucket).get("Contents", ()):
            client.delete_object(Bucket=bucket, Key=item["Key"])
        client.delete_bucket(Bucket=bucket)
    server.shutdown()
    thread.join()


def options(**more: Any) -> StagingContext:
    return StagingContext(region=s3.REGION, **more)


def staged_prefix(model: ModelSpec, context: StagingContext, uri: str = "s3://models/m", **more: Any) -> str:
    revision = resolve_revision(model, context)
    stage(model, revision, uri, context, owner="test", **more)
    return Target.open(uri, model.name, revision, context).prefix


def test_every_object_has_key_class_and_tags_however_it_came(moto: Any, tmp_path: Path) -> None:
    context = options(kms_key=KEY, storage_class="STANDARD_IA", tags={"team": "a+b=c/d", "cost centre": "42"})
    make_model(tmp_path / "model", "moved", SIZES)
    moved = staged_prefix(model_of(tmp_path / "model", "moved"), context)
    # The second one is copied inside the bucket, by digest.
    copied = staged_prefix(model_of(tmp_path / "model", "copied"), context)
    for prefix in (moved, copied):
        for shard in SHARDS:
            head = moto.head_object(Bucket="models", Key=f"{prefix}/{shard}")
            assert (head["ServerSideEncryption"], head["SSEKMSKeyId"]) == ("aws:kms", KEY)
            assert head["StorageClass"] == "STANDARD_IA"
            tags = moto.get_object_tagging(Bucket="models", Key=f"{prefix}/{shard}")["TagSet"]
            assert {tag["Key"]: tag["Value"] for tag in tags} == dict(context.tags)
        assert moto.head_object(Bucket="models", Key=f"{prefix}/manifest.json")["SSEKMSKeyId"] == KEY


def test_a_bucket_of_another_account_is_refused_before_a_byte_moves(
    moto: Any, tmp_path: Path, requests_seen: list[str]
) -> None:
    model = make_model(tmp_path / "model", "foreign", SIZES)
    with pytest.raises(ConfigurationError, match=STRANGER) as caught:
        staged_prefix(model, options(expected_bucket_owner=STRANGER))
    assert caught.value.reason == "BucketForbidden"
    assert not any(line.startswith(("PUT /models/", "POST /models/")) for line in requests_seen)
    staged_prefix(model, options(expected_bucket_owner=OWNER))
    # What is there already is not taken from a foreign bucket either.
    with pytest.raises(ConfigurationError, match=STRANGER):
        staged_prefix(model, options(expected_bucket_owner=STRANGER))


def test_a_bucket_that_changes_hands_gets_no_manifest_and_loses_nothing(
    moto: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, context = make_model(tmp_path / "model", "sold", SIZES), options(expected_bucket_owner=OWNER)

    def sold(_: Progress) -> None:
        monkeypatch.setattr(AsOwnedBy, "owner", STRANGER)

    with pytest.raises(ConfigurationError, match="s3://models/m") as caught:
        staged_prefix(model, context, progress=sold)
    assert caught.value.reason == "StoreForbidden"
    keys = [item["Key"] for item in moto.list_objects_v2(Bucket="models")["Contents"]]
    assert keys
    assert not [key for key in keys if key.endswith("manifest.json")]
    one = Staged(model.name, keys[0].split("/")[2], dt.datetime.now(dt.UTC), finished=True, size=1, objects=1)
    with pytest.raises(ConfigurationError, match="s3://models/m"):
        delete("s3://models/m", one, context)
    assert [item["Key"] for item in moto.list_objects_v2(Bucket="models")["Contents"]] == keys


def test_a_bucket_in_another_region_says_what_it_costs(moto: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "far", SIZES)
    said: list[str] = []
    staged_prefix(model, options(), "s3://models/m", notice=said.append)
    assert said == []
    context = options()
    revision = resolve_revision(model, context)
    target = Target.open("s3://far/m", model.name, revision, context)
    (sentence,) = check_place(target, list_source(model, context))
    assert "eu-west-1" in sentence
    assert s3.REGION in sentence
    assert "$" in sentence


def test_a_bucket_that_is_not_there_is_named(moto: Any, tmp_path: Path) -> None:
    model = make_model(tmp_path / "model", "nowhere", SIZES)
    with pytest.raises(ConfigurationError, match="absent-bucket"):
        staged_prefix(model, options(), "s3://absent-bucket/m")


def licensed(spec: str, stated: str) -> list[str]:
    model = ModelSpec.model_validate(
        {"name": "m", "source": {"type": "folder", "path": "x"}, "license": spec, "deployment": {}}
    )
    return list(check_license(model, Listing("r", {"type": "huggingface", "license": stated}, ())))


def test_a_source_with_another_licence_is_refused() -> None:
    assert licensed("apache-2.0", "Apache-2.0") == []
    assert licensed("apache-2.0", "") == []
    with pytest.raises(ConfigurationError, match=r"cc-by-nc-4\.0") as caught:
        licensed("apache-2.0", "cc-by-nc-4.0")
    assert caught.value.reason == "LicenseDiffers"
    assert "names none" in licensed("", "cc-by-nc-4.0")[0]
    assert "LICENSE" in licensed("qwen", "other")[0]


@given(st.sampled_from(["", "mit", "MIT", "apache-2.0"]), st.sampled_from(["", "mit", "other", "gpl-3.0"]))
def test_no_licence_but_the_catalogues_passes_in_silence(spec: str, stated: str) -> None:
    try:
        said = licensed(spec, stated)
    except ConfigurationError:
        assert spec
        assert stated not in ("", spec.casefold())
        return
    assert bool(said) == (stated not in ("", spec.casefold()))


@pytest.mark.parametrize(
    "options", [{"tags": {"team": "a&b"}}, {"owner": "12345"}, {"tags": {str(n): "v" for n in range(11)}}]
)
def test_options_that_s3_would_refuse_are_refused_when_the_catalog_is_read(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        BucketOptions.model_validate(options)
