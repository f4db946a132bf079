"""What boto3 and its CRT variant do for the staging bench: ``upload``, ``download``, ``copy``, ``snapshot-upload``.

``upload-crt`` and ``download-crt`` use the CRT. A process of its own, so that its CPU and memory are only its own.
"""

from __future__ import annotations

import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3
from boto3.s3.transfer import TransferConfig

BUCKET = "bench"
FILES_AT_ONCE = 4
SMALL_AT_ONCE = 16


def client() -> Any:
    """A client of the server that the environment names."""
    from botocore.config import Config

    return boto3.client("s3", config=Config(max_pool_connections=50))


def files_in(folder: Path) -> list[Path]:
    """The files of a folder."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def upload(folder: Path, prefix: str) -> None:
    """Upload with the classic transfer manager at its defaults, a few files at once."""
    s3, paths = client(), files_in(folder)
    with ThreadPoolExecutor(SMALL_AT_ONCE if len(paths) > 100 else FILES_AT_ONCE) as pool:
        list(pool.map(lambda path: s3.upload_file(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}"), paths))


def upload_crt(folder: Path, prefix: str) -> None:
    """Upload with the CRT transfer manager; boto3's own way to it ignores endpoints (boto3 #4839)."""
    with crt_manager() as manager:
        waiting = [
            manager.upload(str(path), BUCKET, f"{prefix}/{path.relative_to(folder)}") for path in files_in(folder)
        ]
        for future in waiting:
            future.result()


def crt_manager() -> Any:
    """The CRT transfer manager of the server that the environment names."""
    import botocore.session
    from s3transfer.crt import (
        BotocoreCRTCredentialsWrapper,
        BotocoreCRTRequestSerializer,
        CRTTransferManager,
        create_s3_crt_client,
    )

    session, endpoint = botocore.session.Session(), os.environ["AWS_ENDPOINT_URL_S3"]
    credentials = BotocoreCRTCredentialsWrapper(session.get_credentials()).to_crt_credentials_provider()
    region = os.environ["AWS_REGION"]
    crt = create_s3_crt_client(region, credentials, use_ssl=True, verify=os.environ["AWS_CA_BUNDLE"])
    serializer = BotocoreCRTRequestSerializer(session, {"region_name": region, "endpoint_url": endpoint})
    return CRTTransferManager(crt, serializer)


def download_crt(prefix: str, folder: Path) -> None:
    """Download everything below a prefix with the CRT transfer manager."""
    pages = client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    folder.mkdir(parents=True, exist_ok=True)
    with crt_manager() as manager:
        waiting = [
            manager.download(BUCKET, item["Key"], str(folder / item["Key"].removeprefix(f"{prefix}/")))
            for item in pages["Contents"]
        ]
        for future in waiting:
            future.result()


def download(prefix: str, folder: Path) -> None:
    """Download everything below a prefix."""
    s3 = client()
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")["Contents"]]

    def one(key: str) -> None:
        path = folder / key.removeprefix(f"{prefix}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(BUCKET, key, str(path))

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(one, keys))


def copy(source: str, target: str) -> None:
    """Copy a prefix inside the server."""
    s3 = client()
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=BUCKET, Prefix=f"{source}/")["Contents"]]
    large = TransferConfig(multipart_chunksize=256 << 20)

    def one(key: str) -> None:
        s3.copy({"Bucket": BUCKET, "Key": key}, BUCKET, f"{target}/{key.removeprefix(source)}", Config=large)

    with ThreadPoolExecutor(FILES_AT_ONCE) as pool:
        list(pool.map(one, keys))


def snapshot(repo: str, folder: str) -> None:
    """Download a repository of the Hub."""
    from huggingface_hub import snapshot_download

    snapshot_download(repo, local_dir=folder, token=False)


def main(arguments: list[str]) -> int:
    """Run one action."""
    action, first, second = arguments
    if action == "upload":
        upload(Path(first), second)
    elif action == "upload-crt":
        upload_crt(Path(first), second)
    elif action == "download":
        download(first, Path(second))
    elif action == "download-crt":
        download_crt(first, Path(second))
    elif action == "copy":
        copy(first, second)
    elif action == "snapshot":
        snapshot(first, second)
    elif action == "snapshot-upload":
        with tempfile.TemporaryDirectory(dir=os.environ.get("BENCH_SCRATCH")) as folder:
            snapshot(first, folder)
            upload(Path(folder), second)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
