"""Run another project's load engine from its own environment, and take its output into our records."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from include.catalog.specs import LoadEngine, LoadSpec, WorkloadSpec
from include.errors import ConfigurationError, FailureClass, PipelineError
from include.loadtest.foreign.base import Asked, refuse
from include.loadtest.foreign.registry import engine
from include.loadtest.foreign.watch import Watch
from include.loadtest.target import Target
from include.objects import PROJECT_ROOT

if TYPE_CHECKING:
    import pyarrow as pa

LOG = "engine.log"
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "HF_HOME", "HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "NO_PROXY")


def run_foreign(
    name: str, target: Target, workload: WorkloadSpec, load: LoadSpec, install: LoadEngine, *, out_dir: Path
) -> pa.Table:
    """Run one load level; return its records.

    :param install: its ``venv`` has the engine; without one it is on the search path.
    :param out_dir: takes the engine's own output and log.
    :raises ConfigurationError: the engine is not there, would run another load than this one, or cannot be given the
        target's headers.
    :raises PipelineError: it failed or took too long; evidence is the end of its log.
    :raises IntegrityError: its output is not what that engine writes.
    """
    tool = engine(name)
    if (target.protocol or workload.protocol) not in tool.capabilities.protocols:
        raise ConfigurationError(
            "ProtocolNotForThisEngine",
            f"{name} speaks {' and '.join(tool.capabilities.protocols)}, not {target.protocol or workload.protocol}",
            fix="Reach the endpoint another way (the cluster's invocation), or use our own engine.",
        )
    refuse(name, workload, load, tool.capabilities)
    output = out_dir / name
    output.mkdir(parents=True, exist_ok=True)
    command = tool.argv(target, workload, load, output, _place(install.tokenizer) or target.model)
    if install.venv:
        command[0] = str(Path(_place(install.venv)) / "bin" / command[0])
    with (output / LOG).open("wb") as log:
        code, beats = _run(command, _environment(target, install, name), output, log.fileno(), install.timeout_seconds)
    if code != 0:
        said = "ran out of time" if code is None else f"ended with code {code}"
        raise PipelineError(
            "ForeignEngineFailed",
            f"{name} {said}",
            fix="Read the end of its log; check its version and the endpoint.",
            failure_class=FailureClass.TRANSIENT,
            evidence=tuple((output / LOG).read_text(errors="replace").splitlines()[-20:]),
        )
    anchor = time.time_ns() - time.monotonic_ns()
    return tool.collect(output, Asked(workload=workload, load=load, anchor_ns=anchor, beats=tuple(beats)))


def _place(text: str) -> str:
    """Return a folder of the checkout by its full path; a name that is no folder stays a name."""
    return str(PROJECT_ROOT / text) if text and (PROJECT_ROOT / text).is_dir() else text


def _run(
    command: list[str], environment: dict[str, str], folder: Path, log: int, timeout_s: float
) -> tuple[int | None, list[dict[str, Any]]]:
    """Return the exit code, ``None`` when time ran out, and how busy it was; what the engine started goes with it."""
    try:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=folder,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise ConfigurationError(
            "EngineNotInstalled", f"{command[0]}: {error.strerror}", fix="Correct load_engines in the cluster's file."
        ) from error
    try:
        with Watch(process.pid) as watch:
            return process.wait(timeout_s), watch.beats
    except subprocess.TimeoutExpired:
        return None, []
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()


def _environment(target: Target, install: LoadEngine, name: str) -> dict[str, str]:
    """Return what the engine sees: a bearer token goes by ``OPENAI_API_KEY``, never by the command line."""
    found = {key: os.environ[key] for key in _KEPT if key in os.environ}
    if install.venv:
        found["PATH"] = f"{Path(_place(install.venv)) / 'bin'}{os.pathsep}{found.get('PATH', '')}"
    found["OPENAI_API_KEY"] = "none"
    for header, value in target.headers.items():
        kind, _, token = value.partition(" ")
        if header.lower() != "authorization" or kind.lower() != "bearer":
            raise ConfigurationError(
                "HeaderNotForThisEngine",
                f"{name} cannot be given the header {header}",
                fix="Reach the endpoint another way (the cluster's invocation), or use our own engine.",
            )
        found["OPENAI_API_KEY"] = token
    if target.ca_file:
        found |= {"SSL_CERT_FILE": target.ca_file, "REQUESTS_CA_BUNDLE": target.ca_file}
    return found
