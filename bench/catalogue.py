"""The failure catalogue provoked on the local HyperPod: time to the verdict, and the sentence that a user sees."""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass, field
from typing import Any

from bench.endpoints import Workbench
from include.catalog.plan import ReleasePlan
from include.endpoint.model import EndpointRef
from include.endpoint.readiness import Limits, Readiness
from include.endpoint.teardown import teardown
from include.endpoint.watch import wait_until_ready
from include.errors import PipelineError

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
    :param passing: it may mend itself, so it is told and waited for; the time is that to the telling.
    """

    fault: str
    row: str
    params: dict[str, str] = field(default_factory=dict)
    needs: dict[str, Any] = field(default_factory=dict)
    passing: bool = False


REGISTERED = {"sagemaker_endpoint": True}
HUB = {
    "source": {"type": "huggingface", "repo": "acme/tiny"},
    "model_source": "huggingface",
    "huggingface": {},
}
PAIR = {"engine": "vllm", "disaggregation": {"prefill": {}, "decode": {}}}
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
    Case("no-kv-transfer", "kv-transfer", needs=PAIR),
)
# These hit every endpoint of the cluster.
ALONE = (Case("operator-down", "operator-down"), Case("node-lost", "node-replaced", {"back": "60"}, passing=True))


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
    return [*found, *[await _one(bench, case, f"alone{number}") for number, case in enumerate(ALONE)]]


async def _one(bench: Workbench, case: Case, name: str) -> Provoked:
    plan = bench.plan(name, **case.needs)
    corrupt = case.fault == "weights-corrupt"
    if not corrupt and case.fault != "none":
        await asyncio.to_thread(bench.faults.add_cluster, case.fault, f"*{name}-*", case.params, None)
    began = time.monotonic()
    ref = await asyncio.to_thread(bench.create, plan, corrupt=corrupt)
    last = Readiness("pending", "", "", "")
    waiting = wait_until_ready(ref, plan, bench.clients, timeout_seconds=GIVE_UP_S, limits=SHORT)
    async with contextlib.aclosing(waiting) as steps:
        async for step in steps:
            last = step
            if case.passing and step.row == case.row:
                break
    if case in ALONE:
        await asyncio.to_thread(bench.faults.clear)
    return Provoked(case, last, time.monotonic() - began)


@dataclass(frozen=True)
class Deletion:
    """What came of tearing down under a fault, and of trying again once it was over.

    :param said: the sentence that a user sees; empty when the teardown coped with the fault by itself.
    :param seconds: until the sentence, or until absence was proven.
    """

    fault: str
    said: str
    seconds: float
    absent_after: bool


DELETION_FAULTS = ("stuck-delete", "delete-failed", "orphan-on-delete", "operator-down")
DELETION_PATIENCE_S = 10


def provoke_deletions(bench: Workbench) -> list[Deletion]:
    """Tear down an endpoint that is registered with SageMaker under each fault of a deletion, then without it."""
    return [_deletion(bench, fault, f"d{number}") for number, fault in enumerate(DELETION_FAULTS)]


def _deletion(bench: Workbench, fault: str, name: str) -> Deletion:
    plan = bench.plan(name, **REGISTERED)
    ref = bench.create(plan)
    asyncio.run(_registered(bench, plan, ref))
    bench.faults.add_cluster(fault, f"*{name}-*", {}, None)
    began, said = time.monotonic(), ""
    try:
        teardown(ref, bench.clients, bench.intents, plan=plan, patience_s=DELETION_PATIENCE_S)
    except PipelineError as error:
        said = str(error)
    seconds = time.monotonic() - began
    bench.faults.clear()
    return Deletion(fault, said, seconds, teardown(ref, bench.clients, bench.intents, plan=plan).absent)


async def _registered(bench: Workbench, plan: ReleasePlan, ref: EndpointRef) -> None:
    waiting = wait_until_ready(ref, plan, bench.clients, timeout_seconds=GIVE_UP_S, limits=SHORT)
    async with contextlib.aclosing(waiting) as steps:
        async for step in steps:
            if step.phase == "first completion":
                return
