"""Runs the probes of one running container, and the faults that strike once it is ready."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING

from include.local.controller.resources import Object
from include.local.faults import Fault
from include.local.node.kubelet import Kubelet
from include.local.node.probes import FIRST_PERIOD_SECONDS, Outcome, Probe

if TYPE_CHECKING:
    from include.local.node.containers import Container


class Prober:
    """Startup first, then liveness and readiness side by side; ends when it is cancelled."""

    def __init__(self, kubelet: Kubelet, pod: Callable[[], Object], container: Container) -> None:
        self._kubelet = kubelet
        self._pod = pod
        self._container = container
        self._struck = False

    async def run(self) -> None:
        """Probe until cancelled."""
        startup = self._container.probe("startupProbe")
        if startup is not None:
            await self._startup(startup)
        self._container.set_started()
        await asyncio.gather(self._readiness(), self._liveness())

    async def _startup(self, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay)
        failures = 0
        while True:
            outcome = await self._ask(probe)
            if outcome.ok:
                return
            failures += 1
            await self._unhealthy("Startup", outcome)
            if failures >= probe.failure_threshold:
                await self._container.restart("startup probe")
            await asyncio.sleep(probe.period)

    async def _readiness(self) -> None:
        probe = self._container.probe("readinessProbe")
        if probe is None:
            self._container.set_ready(ready=True)
            await self._strike()
            return
        await asyncio.sleep(probe.initial_delay)
        failures = successes = told = 0
        while True:
            outcome = await self._ask(probe, readiness=True)
            successes, failures = (successes + 1, 0) if outcome.ok else (0, failures + 1)
            if successes >= probe.success_threshold:
                self._container.set_ready(ready=True)
                await self._strike()
            elif failures >= probe.failure_threshold:
                self._container.set_ready(ready=False)
            # Before the first success the kubelet here asks more often, so that a local start is not dominated
            # by the probe's period; it tells the same number of events.
            waiting = not self._container.record.ready
            if not outcome.ok and (told := told + 1) % max(1, int(probe.period / FIRST_PERIOD_SECONDS)) == 1:
                await self._unhealthy("Readiness", outcome)
            await asyncio.sleep(min(probe.period, FIRST_PERIOD_SECONDS) if waiting else probe.period)

    async def _liveness(self) -> None:
        probe = self._container.probe("livenessProbe")
        if probe is None:
            return
        await asyncio.sleep(probe.initial_delay)
        failures = 0
        while True:
            await asyncio.sleep(probe.period)
            outcome = await self._ask(probe)
            failures = 0 if outcome.ok else failures + 1
            if not outcome.ok:
                await self._unhealthy("Liveness", outcome)
            if failures >= probe.failure_threshold:
                await self._container.restart("liveness probe")
                failures = 0

    async def _ask(self, probe: Probe, *, readiness: bool = False) -> Outcome:
        if readiness and await self._kubelet.fault(Fault.NOT_READY, self._pod()):
            return Outcome(False, "HTTP probe failed with statuscode: 503")
        return await probe.once(self._kubelet.http, self._container.env)

    async def _unhealthy(self, kind: str, outcome: Outcome) -> None:
        text = f"{kind} probe failed: {outcome.message}"
        await self._kubelet.recorder.warning(self._pod(), "Unhealthy", text, self._container.field)

    async def _strike(self) -> None:
        """Let the faults act that wait for a ready container; once per start."""
        if self._struck:
            return
        self._struck = True
        crash = await self._kubelet.fault(Fault.CRASH_AFTER_READY, self._pod())
        if crash is not None and self._container.record.restart_count < crash.number("crashes", 1):
            await asyncio.sleep(crash.number("seconds", 0))
            self._container.kill_now(signal.SIGSEGV)
        hang = await self._kubelet.fault(Fault.HANG, self._pod())
        if hang is not None:
            await asyncio.sleep(hang.number("seconds", 0))
            self._container.kill_now(signal.SIGSTOP)
        lost = await self._kubelet.fault(Fault.NODE_LOST, self._pod())
        if lost is not None:
            await asyncio.sleep(lost.number("seconds", 0))
            await self._kubelet.lose(lost.number("back", 60))
