"""Processes that stand in for a container which a fault makes fail: what they log, and how they end."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

from include.local.faults import Fault, Rule

PROGRAM = (
    "import json,os,sys,time; s=json.loads(sys.argv[1]); [print(l, flush=True) for l in s['log']]; "
    "time.sleep(s['seconds']); os.kill(os.getpid(), -s['code']) if s['code'] < 0 else os._exit(s['code'])"
)
CUDA_OOM = (
    "INFO 11-23 10:00:01 model_runner.py:1110] Starting to load model /opt/ml/model...",
    "ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 1.96 GiB. GPU 0 has a total capacity of "
    "21.98 GiB of which 1.12 GiB is free.",
)
ENGINE_DEAD = (
    "ERROR core_client.py:546] Engine core proc EngineCore_0 died unexpectedly, shutting down client.",
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
    "root cause.",
)
DRIVER_TOO_OLD = (
    "RuntimeError: The NVIDIA driver on your system is too old (found version 12080). Please update your GPU driver.",
)
HF_DOWNLOAD = (
    "huggingface_hub.errors.RepositoryNotFoundError: 401 Client Error. Repository Not Found for url. If you are "
    "trying to access a private or gated repo, make sure you are authenticated.",
)
NO_KV_TRANSFER = "WARNING kv_transfer: Retrieved 0 of 512 tokens from the prefill instance"


@dataclass(frozen=True)
class Script:
    """What runs instead of the container.

    :param code: exit code, or minus the signal that ends it.
    :param reason: reason of the terminated state when it is not the usual one.
    """

    log: tuple[str, ...]
    code: int
    seconds: float = 0.0
    reason: str = ""

    def argv(self) -> list[str]:
        """Command line of the stand-in."""
        arguments = json.dumps({"log": self.log, "code": self.code, "seconds": self.seconds})
        return [sys.executable, "-I", "-S", "-c", PROGRAM, arguments]


SCRIPTED = (
    Fault.OOM, Fault.CRASH_LOOP, Fault.CUDA_OOM, Fault.ENGINE_DEAD, Fault.DRIVER_TOO_OLD,
)  # fmt: skip


def script_of(rule: Rule) -> Script:
    """Return the stand-in for a rule of one of the kinds in ``SCRIPTED``, or for the downloader."""
    seconds = rule.number("seconds", 0)
    if rule.kind == Fault.OOM:
        return Script(("loading weights",), -9, seconds, "OOMKilled")
    if rule.kind == Fault.CRASH_LOOP:
        return Script((rule.text("log", "fatal: the server cannot start"),), int(rule.number("exit_code", 1)), seconds)
    lines = {
        Fault.CUDA_OOM: CUDA_OOM,
        Fault.ENGINE_DEAD: ENGINE_DEAD,
        Fault.DRIVER_TOO_OLD: DRIVER_TOO_OLD,
        Fault.HF_DOWNLOAD_FAILED: HF_DOWNLOAD,
    }[rule.kind]
    return Script(lines, 1, seconds)
