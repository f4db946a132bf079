"""The failure catalogue provoked on the local HyperPod: time to the verdict, and the sentence that a user sees."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from bench.endpoints import Workbench
from include.endpoint.readiness import Limits, Readiness
from include.endpoint.watch import wait_until_ready

# The patience of production (minutes to hours) would only make the table slow: what is terminal at once is so here too.
SHORT = Limits(
    operator_silence_s=8, unschedulable_s=8, queue_s=8, image_pull_s=8, mount_s=8, config_s=3, restarts=2,
    registration_s=40, targets_s=30, first_completion_s=35,
)  # fmt: skip
GIVE_UP_S = 120


@dataclass(frozen=True)
class Case:
    """One fault, and the row of the catalogue that must name it.

    :param needs: fields of the deployment and of the plan.
    """

    fault: str
    row: str
    params: dict[str, str] = field(default_factory=dict)
    needs: dict[str, Any] = field(default_factory=dict)


REGISTERED = {"sagemaker_endpoint": True}
HUB = {
    "source": {"type": "huggingface", "repo": "acme/tiny"},
    "model_source": "huggingface",
    "huggingface": {},
}
CASES = (
    Case("image-pull", "image-pull"),
    Case("unschedulable", "unschedulable"),
    Case("too-many-pods", "pod-slots"),
    Case("ip-exhausted", "pod-slots"),
    Case("mount-failed", "mount"),
    Case("weights-corrupt", "weights-corrupt"),
    Case("config-error", "container-config"),
    Case("oom", "oom"),
    Case("crash-loop", "crash-loop"),
    Case("cuda-oom", "cuda-oom"),
    Case("engine-dead", "engine-dead"),
    Case("driver-too-old", "driver-too-old"),
    Case("hf-download-failed", "hub-download", needs=HUB),
    Case("kueue-not-admitted", "queue", needs={"queue": "team-a"}),
    Case("deployment-failed", "deployment-failed"),
    Case("deploy-timeout", "deadline"),
    Case("irsa-denied", "web-identity", needs=REGISTERED),
    Case("tls-bucket-not-writable", "tls-bucket", needs=REGISTERED),
    Case("stuck-registration", "registration-stuck", needs=REGISTERED),
    Case("registration-failed", "execution-role", needs=REGISTERED),
    Case("registration-failed", "registration-failed", {"message": "Internal failure"}, REGISTERED),
    Case("cert-download-timeout", "ca-download", needs=REGISTERED),
    Case("none", "no-answer"),
)
# This one hits every endpoint of the cluster.
ALONE = Case("operator-down", "operator-down")


@dataclass(frozen=True)
class Provoked:
    """What came of one case.

    :param seconds: from the creation of the endpoint to the verdict.
    """

    case: Case
    verdict: Readiness
    seconds: float


async def provoke(bench: Workbench) -> list[Provoked]:
    """Create one endpoint for each case and wait for every verdict: first those that can share a cluster, at once."""
    found = await asyncio.gather(*(_one(bench, case, f"c{number}") for number, case in enumerate(CASES)))
    return [*found, await _one(bench, ALONE, "alone")]


async def _one(bench: Workbench, case: Case, name: str) -> Provoked:
    plan = bench.plan(name, **case.needs)
    corrupt = case.fault == "weights-corrupt"
    if not corrupt and case.fault != "none":
        await asyncio.to_thread(bench.faults.add_cluster, case.fault, f"{name}-*", case.params, None)
    began = time.monotonic()
    ref = await asyncio.to_thread(bench.create, plan, corrupt=corrupt)
    last = Readiness("pending", "", "", "")
    async for step in wait_until_ready(ref, plan, bench.clients, timeout_seconds=GIVE_UP_S, limits=SHORT):
        last = step
    return Provoked(case, last, time.monotonic() - began)
