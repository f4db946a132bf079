"""Wait in the triggerer for a load Job, holding the endpoint's lease meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

if TYPE_CHECKING:
    from include.endpoint.clients import Clients
    from include.loadtest.podrun import JobState

POLL_SECONDS = 2.0
PATIENCE_SECONDS = 120.0


class LoadJobTrigger(BaseTrigger):
    """Fires once: when the Job has ended, its pods do not start, or its cluster cannot be asked any more.

    :param cluster: the cluster as JSON values; names connections, never credentials.
    :param job: name of the Job.
    :param lease: name of the endpoint's lease; ``holder`` has it, and ``lease_id`` names that holding.
    :param ready_seconds: how long the pods may take to start.
    :param managed: the Job is one of SageMaker's.
    """

    def __init__(
        self,
        cluster: dict[str, Any],
        namespace: str,
        job: str,
        lease: str,
        holder: str,
        lease_id: str,
        lease_seconds: float,
        ready_seconds: float,
        managed: bool = False,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.cluster = cluster
        self.namespace = namespace
        self.job = job
        self.lease = lease
        self.holder = holder
        self.lease_id = lease_id
        self.lease_seconds = lease_seconds
        self.ready_seconds = ready_seconds
        self.managed = managed

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and its arguments."""
        names = ("cluster", "namespace", "job", "lease", "holder", "lease_id", "lease_seconds", "ready_seconds")
        arguments = {name: getattr(self, name) for name in (*names, "managed")}
        return "hyperpod.triggers.benchmark.LoadJobTrigger", arguments

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Yield the one event: how the Job ended, and whether the lease was ours all the time."""
        from hyperpod.hooks.hyperpod import HyperPodHook
        from include.catalog.specs import ClusterSpec
        from include.endpoint.lease import EndpointLease
        from include.errors import PipelineError

        hook = HyperPodHook(ClusterSpec.model_validate(self.cluster))
        # Connections are read and the API is asked with blocking calls: never on the triggerer's loop.
        clients = await asyncio.to_thread(hook.clients)
        lease = EndpointLease(clients, self.namespace, self.lease, self.holder, self.lease_seconds)
        lease.hand_on()
        exclusive = True
        try:
            await asyncio.to_thread(lease.__enter__)
            exclusive = lease.continues(self.lease_id)
            state = await self._ended(clients)
            said: dict[str, Any] = {"phase": state.phase, "reason": state.reason, "message": state.message}
            said |= {"evidence": list(state.evidence)}
        except PipelineError as error:
            said = {"phase": "failed", "reason": error.reason, "message": error.message, "evidence": []}
        finally:
            await asyncio.to_thread(lease.__exit__, None, None, None)
        yield TriggerEvent(  # type: ignore[no-untyped-call]
            said | {"lease_id": lease.lease_id, "exclusive": exclusive and not lease.lost}
        )

    def _observe(self, clients: Clients) -> JobState:
        from include.loadtest.podrun import JobState, observe

        if not self.managed:
            return observe(clients.kube, self.namespace, self.job)
        found = clients.sagemaker.describe_ai_benchmark_job(AIBenchmarkJobName=self.job)
        status = found["AIBenchmarkJobStatus"]
        if status in ("InProgress", "Stopping"):
            return JobState("running", message=status)
        if status == "Completed":
            return JobState("complete")
        return JobState("failed", "BenchmarkJobFailed", f"{status}: {found.get('FailureReason', 'no reason given')}")

    async def _ended(self, clients: Clients) -> JobState:
        from botocore.exceptions import BotoCoreError, ClientError
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        from include.loadtest.podrun import JobState

        began, told, heard = time.monotonic(), "", time.monotonic()
        while True:
            try:
                state = await asyncio.to_thread(self._observe, clients)
                heard = time.monotonic()
            except (
                ApiException,
                HTTPError,
                OSError,
                BotoCoreError,
                ClientError,
            ) as error:  # the API is away; what it runs goes on
                if time.monotonic() - heard > PATIENCE_SECONDS:
                    return JobState("failed", "ClusterUnreachable", f"{type(error).__name__}: {error}")
                self.log.warning("Job %s cannot be read: %s", self.job, error)
                await asyncio.sleep(POLL_SECONDS)
                continue
            if (line := f"{state.phase} {state.message}".rstrip()) != told:
                self.log.info("load Job %s: %s", self.job, line)
                told = line
            if state.phase in ("complete", "failed"):
                return state
            if state.phase == "starting" and time.monotonic() - began > self.ready_seconds:
                return JobState("failed", "LoadPodsNotStarted", state.message)
            await asyncio.sleep(POLL_SECONDS)
