"""The small object-store interface: how long credentials are kept, and what its addresses are."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from include.errors import ConfigurationError
from include.objects import Objects, s3_options


def test_credentials_are_asked_for_again_before_they_run_out() -> None:
    import boto3
    from botocore.credentials import RefreshableCredentials

    now = dt.datetime.now(dt.UTC)
    # What botocore still hands out without a refresh.
    expiry = now + dt.timedelta(minutes=10, seconds=30)
    session: Any = boto3.Session(region_name="us-west-2")
    session._session._credentials = RefreshableCredentials(
        "key", "secret", "token", expiry, dict, "test", advisory_timeout=0
    )
    provider = s3_options(session=session)["credential_provider"]
    assert provider()["expires_at"] <= expiry, "the store's client would go on with credentials that are over"


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    for name in ("a#1", "b?c", "with space"):
        for uri in (str(tmp_path / name), f"file://{tmp_path / name}"):
            objects = Objects.open(uri)
            objects.put("x", b"1")
            assert (tmp_path / name / "x").read_bytes() == b"1"
            (tmp_path / name / "x").unlink()


def test_a_prefix_may_have_any_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    native: Any = Objects.open("s3://bucket/a#1/x?y", region="us-west-2").native
    assert native.prefix == "a#1/x?y"


@pytest.mark.parametrize("uri", ["gs://bucket/a", "s3://", "s3:///a", "http://host/a"])
def test_what_is_no_store_is_named(uri: str) -> None:
    with pytest.raises(ConfigurationError, match=uri):
        Objects.open(uri)
