# ruff: noqa: ARG002 - each client takes what some client needs
"""The load clients side by side: how each is started, and how its own figures are read back. All times in ms."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from include.catalog.specs import LoadSpec, PromptSpec, WorkloadSpec
from include.loadtest.engine.words import VOCABULARY
from include.loadtest.job import Endpoint, Job, Load, Prompts, encode_job
from include.loadtest.latencies import chunk_gaps, latencies
from include.loadtest.records import load, read_shard, shard_table, write_parquet
from include.loadtest.target import Target
from include.objects import PROJECT_ROOT

PEERS = PROJECT_ROOT / "bench" / "peers"
PROMPT_TOKENS = 32
VLLM = "vllm==0.33.0"
# What its bench needs of it, and what that imports.
VLLM_FILES = ("vllm/benchmarks/", *(f"vllm/utils/{name}_utils.py" for name in ("argparse", "gc", "import")))
VLLM_NEEDS = ["transformers==5.20.2", "aiohttp", "numpy", "pillow", "pybase64", "pyyaml", "regex", "tqdm"]
VLLM_WAIT_S = 300


@dataclass
class Figures:
    """What a client says: arrays in ms; empty where it does not say."""

    ttft: np.ndarray
    gaps: np.ndarray
    e2e: np.ndarray


class Client(Protocol):
    """One load client."""

    name: str

    def available(self) -> str:
        """Return why it cannot be run here, or nothing."""

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        """Return the command line and its standard input."""

    def figures(self, out: Path, stdout: bytes) -> Figures:
        """Read what it says about the run."""


class Ours:
    """The generator process as `run_load` starts it."""

    name = "ours"

    def __init__(self, ca_file: str | None = None) -> None:
        self._ca_file = ca_file

    def available(self) -> str:
        return ""

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        scheme, _, host = url.partition("://")
        port = int(host.rpartition(":")[2])
        endpoint = Endpoint(
            host="localhost", port=port, host_header=host, path="/v1/chat/completions", body="openai-chat",
            model="reference", tls=scheme == "https", ca_file=self._ca_file,
        )  # fmt: skip
        job = Job(
            endpoint=endpoint,
            prompts=[Prompts(input_tokens=PROMPT_TOKENS, output_tokens=tokens)],
            load=Load(mode="closed", concurrency=streams, requests=requests),
            out=str(out / "ours.spool"),
            warmup_requests=1,
            salt=os.urandom(4).hex(),
        )
        return [sys.executable, "-m", "include.loadtest", "run", "--job", "-"], encode_job(job)

    def figures(self, out: Path, stdout: bytes) -> Figures:
        path = write_parquet(shard_table(read_shard(out / "ours.spool")), out / "ours.parquet")
        measured = load(path).phase("measure")
        found = latencies(measured)
        return Figures(found.ttft_sent, chunk_gaps(measured), found.e2e_sent)


class Script:
    """A short client of `bench/peers` in the peers' environment."""

    def __init__(self, name: str, environment: Path) -> None:
        self.name = name
        self._python = environment / "bin" / "python"

    def available(self) -> str:
        return "" if self._python.exists() else f"{self._python.parent.parent.name} could not be made"

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        script = str(PEERS / f"{self.name}_client.py")
        return [str(self._python), script, url, str(streams), str(requests), str(tokens)], b""

    def figures(self, out: Path, stdout: bytes) -> Figures:
        line = next(line for line in reversed(stdout.decode(errors="replace").splitlines()) if '{"ttft"' in line)
        found = json.loads(line[line.index('{"ttft"') :])
        return Figures(*(np.array(found[key], dtype=float) * 1e3 for key in ("ttft", "gaps", "e2e")))


class AiPerf:
    """AIPerf with its defaults, metrics collection off."""

    name = "aiperf"

    def __init__(self, environment: Path, tokenizer: Path) -> None:
        self._program, self._tokenizer = environment / "bin" / "aiperf", tokenizer

    def available(self) -> str:
        return "" if self._program.exists() else "it could not be installed"

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        return [
            str(self._program), "profile", "-m", "reference", "--url", url, "--endpoint-type", "chat", "--streaming",
            "--tokenizer", str(self._tokenizer), "--concurrency", str(streams), "--request-count", str(requests),
            "--isl", str(PROMPT_TOKENS), "--osl", str(tokens), "--ui", "none", "--no-server-metrics",
            "--no-gpu-telemetry", "--artifact-dir", str(out / "aiperf"),
        ], b""  # fmt: skip

    def figures(self, out: Path, stdout: bytes) -> Figures:
        from include.loadtest.foreign.aiperf import AiPerf as Importer

        return _imported(Importer().collect(out / "aiperf"), out)


class GuideLlm:
    """GuideLLM with its defaults."""

    name = "guidellm"

    def __init__(self, environment: Path, tokenizer: Path) -> None:
        self._program, self._tokenizer = environment / "bin" / "guidellm", tokenizer

    def available(self) -> str:
        return "" if self._program.exists() else "it could not be installed"

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        return [
            str(self._program), "run", "--backend", f"kind=openai_http,target={url},model=reference",
            "--profile", f"kind=concurrent,streams={streams}",
            "--constraint", f"kind=max_requests,count={requests}",
            "--data", f"kind=synthetic_text,prompt_tokens={PROMPT_TOKENS},output_tokens={tokens}",
            "--tokenizer", f"kind=hf_auto,model={self._tokenizer}",
            "--output", f"kind=json,path={out / 'guidellm.json'}",
        ], b""  # fmt: skip

    def figures(self, out: Path, stdout: bytes) -> Figures:
        from include.loadtest.foreign.guidellm import GuideLlm as Importer

        return _imported(Importer().collect(out), out)


class InferencePerf:
    """inference-perf, driven as our importer drives it."""

    name = "inference-perf"

    def __init__(self, environment: Path, tokenizer: Path) -> None:
        self._program, self._tokenizer = environment / "bin" / "inference-perf", tokenizer

    def available(self) -> str:
        return "" if self._program.exists() else "it needs Python 3.12 or later, which is not here and cannot be had"

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        from include.loadtest.foreign.inference_perf import InferencePerf as Tool

        asked = _closed_loop(url, streams, requests, tokens)
        return [str(self._program), *Tool().argv(*asked, out / "inference-perf", str(self._tokenizer))[1:]], b""

    def figures(self, out: Path, stdout: bytes) -> Figures:
        from include.loadtest.foreign.inference_perf import InferencePerf as Importer

        return _imported(Importer().collect(out / "inference-perf"), out)


class VllmBench:
    """`vllm bench serve` (its Python client, the default) without vLLM's engine: `peers/vllm_bench_client.py`.

    Its start-up is less than with vLLM installed, which imports torch first.
    """

    name = "vllm-bench"

    def __init__(self, environment: Path, tokenizer: Path) -> None:
        self._python, self._tokenizer = environment / "bin" / "python", tokenizer

    def available(self) -> str:
        if not _vllm_files(self._python.parent.parent).exists():
            return f"vLLM's wheel could not be had: 0.3 GB, for Linux, waited for {VLLM_WAIT_S} s"
        return ""

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        from include.loadtest.foreign.vllm_bench import VllmBench as Tool

        given = Tool().argv(*_closed_loop(url, streams, requests, tokens), out, str(self._tokenizer))
        return [str(self._python), str(PEERS / "vllm_bench_client.py"), *given[given.index("serve") + 1 :]], b""

    def figures(self, out: Path, stdout: bytes) -> Figures:
        from include.loadtest.foreign.vllm_bench import VllmBench as Importer

        return _imported(Importer().collect(out), out)


class Wrk:
    """wrk, which parses nothing: the cost of the sockets alone; it has no notion of tokens or of a request count."""

    name = "wrk"

    def available(self) -> str:
        if shutil.which("wrk") is None and os.geteuid() == 0 and shutil.which("apt-get"):
            _try(["apt-get", "update", "-qq"])
            _try(["apt-get", "install", "-qq", "-y", "--no-install-recommends", "wrk"])
        return "" if shutil.which("wrk") else "wrk is not installed and this user may not: apt-get install wrk"

    def command(self, url: str, streams: int, requests: int, tokens: int, out: Path) -> tuple[list[str], bytes]:
        body = json.dumps({"stream": True, "max_tokens": tokens, "messages": [{"role": "user", "content": "w " * 32}]})
        script = out / "post.lua"
        script.write_text(
            f'wrk.method = "POST"\nwrk.body = [==[{body}]==]\nwrk.headers["content-type"] = "application/json"\n'
        )
        seconds = max(2, round(requests / streams * (0.01 + tokens * 0.002)))
        return ["wrk", "-t1", f"-c{streams}", f"-d{seconds}s", "-s", str(script), url + "/v1/chat/completions"], b""

    def figures(self, out: Path, stdout: bytes) -> Figures:
        empty = np.empty(0)
        return Figures(empty, empty, empty)

    @staticmethod
    def finished(stdout: bytes) -> int:
        """Return how many requests it says it made."""
        found = re.search(rb"(\d+) requests in", stdout)
        return int(found[1]) if found else 0


def _closed_loop(url: str, streams: int, requests: int, tokens: int) -> tuple[Target, WorkloadSpec, LoadSpec]:
    """Return what our drivers of other tools take for so many requests by so many users."""
    level = LoadSpec(mode="closed", concurrency=streams, requests=requests)
    prompts = (PromptSpec(input_tokens=PROMPT_TOKENS, output_tokens=tokens),)
    return Target(base_url=url, model="reference"), WorkloadSpec(name="w", prompts=prompts, loads=(level,)), level


def _imported(table: Any, out: Path) -> Figures:
    records = load(write_parquet(table, out / "imported.parquet"))
    found = latencies(records)
    return Figures(found.ttft_sent, chunk_gaps(records), found.e2e_sent)


def make_environments(wanted: set[str]) -> dict[str, Path]:
    """Install the peers, each family in its own environment beside the checkout's; nothing is done twice."""
    uv = [sys.executable, "-m", "uv"]
    light, vllm = PROJECT_ROOT / ".venv-bench-load", PROJECT_ROOT / ".venv-bench-vllm"
    families: list[tuple[Path, set[str], list[str]]] = [
        (
            light,
            {"aiohttp", "httpx", "locust", "llmeter"},
            ["aiohttp", "httpx", "uvloop", "orjson", "locust==2.47.0", "llmeter==0.2.0", "openai"],
        ),
        (vllm, {"vllm-bench"}, VLLM_NEEDS),
        (PROJECT_ROOT / ".venv-bench-aiperf", {"aiperf"}, ["aiperf==0.13.0"]),
        (PROJECT_ROOT / ".venv-bench-inference-perf", {"inference-perf"}, ["inference-perf==0.7.0"]),
    ]
    for folder, tools, packages in families:
        if tools & wanted and not (folder / "bin" / "python").exists():
            python = newer_python() if "inference-perf" in tools else sys.executable
            _try([*uv, "venv", "-q", "--python", python, str(folder)])
            # compiled, as pip does: else a peer compiles itself at every start where Python may not write bytecode
            install = [*uv, "pip", "install", "-q", "--compile-bytecode", "--python", str(folder / "bin" / "python")]
            _try([*install, *packages])
    guidellm = PROJECT_ROOT / ".venv-bench-guidellm"
    if "guidellm" in wanted:
        _install_guidellm(guidellm)
    if "vllm-bench" in wanted and vllm.exists() and not _vllm_files(vllm).exists():
        _take_vllm_bench(vllm)
    return {
        "load": light,
        "guidellm": guidellm,
        **{folder.name.removeprefix(".venv-bench-"): folder for folder, _, _ in families[1:]},
    }


def newer_python() -> str:
    """Return a Python of 3.12 or later that is on the machine, else the version for uv to fetch."""
    found = [path for name in ("python3.12", "python3.13") if (path := shutil.which(name))]
    found += sorted(str(path) for path in Path.home().glob(".pyenv/versions/3.1[23]*/bin/python"))
    for path in found:
        asked = subprocess.run([path, "-c", "import sys; sys.exit(sys.version_info < (3, 12))"], capture_output=True)
        if asked.returncode == 0:
            return path
    return "3.12"


def _install_guidellm(guidellm: Path) -> None:
    if not (guidellm / "bin" / "guidellm").exists():
        _try([sys.executable, "-m", "venv", str(guidellm)])
        pip = [str(guidellm / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        # torch first: guidellm would otherwise take a CUDA build of several GB where a CPU one can be had
        _try([*pip, "torch==2.13.0"])
        _try([*pip, "guidellm==0.8.1"])


def _take_vllm_bench(folder: Path) -> None:
    """Take from vLLM's wheel the Python files of its benchmarks; torch and the rest of vLLM stay out."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-cache-dir", "--no-deps", "--only-binary=:all:"]
        _try(["env", f"TMPDIR={scratch}", *pip, "-d", scratch, VLLM], timeout=VLLM_WAIT_S)
        for wheel in Path(scratch).glob("vllm-*.whl"):
            with zipfile.ZipFile(wheel) as content:
                content.extractall(scratch, [name for name in content.namelist() if name.startswith(VLLM_FILES)])
            (Path(scratch) / "vllm").rename(_vllm_files(folder))
            _try([str(folder / "bin" / "python"), "-m", "compileall", "-q", str(_vllm_files(folder))])


def _vllm_files(folder: Path) -> Path:
    version = sys.version_info
    return folder / "lib" / f"python{version.major}.{version.minor}" / "site-packages" / "vllm"


def _try(command: list[str], timeout: float = 900) -> None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        print(f"  {' '.join(command[-3:])}: took longer than {timeout:.0f} s")
        return
    if done.returncode:
        print(f"  {' '.join(command[-3:])}: {done.stderr.decode(errors='replace').strip()[-200:]}")


def make_tokenizer(pythons: Sequence[Path], folder: Path) -> Path:
    """Train a small tokenizer on our vocabulary, for the peers that insist on one, with the first of these that can."""
    for python in pythons:
        if not (folder / "tokenizer.json").exists() and python.exists():
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "words.txt").write_text(" ".join(VOCABULARY))
            _try([str(python), str(PEERS / "make_tokenizer.py"), str(folder)])
    return folder
