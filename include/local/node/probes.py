"""Container probes: HTTP, TCP and exec, with the kubelet's thresholds."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

from include.local.controller.resources import Object

FIRST_PERIOD_SECONDS = 0.25


@dataclass(frozen=True)
class Outcome:
    """One answer of a probe; ``message`` says why it failed."""

    ok: bool
    message: str = ""


@dataclass(frozen=True)
class Probe:
    """A probe of one container.

    :param ports: container ports to host ports.
    :param names: port names to container ports.
    """

    spec: Object
    ports: Mapping[int, int]
    names: Mapping[str, int]

    @property
    def period(self) -> float:
        """Seconds between two probes."""
        return float(self.spec.get("periodSeconds") or 10)

    @property
    def initial_delay(self) -> float:
        """Seconds from the start of the container to the first probe."""
        return float(self.spec.get("initialDelaySeconds") or 0)

    @property
    def failure_threshold(self) -> int:
        """Failures in a row that count."""
        return int(self.spec.get("failureThreshold") or 3)

    @property
    def success_threshold(self) -> int:
        """Successes in a row that count."""
        return int(self.spec.get("successThreshold") or 1)

    @property
    def timeout(self) -> float:
        """Seconds after which an unanswered probe has failed."""
        return float(self.spec.get("timeoutSeconds") or 1)

    def host_port(self, port: int | str) -> int:
        """Host port of a container port, given by number or name."""
        number = self.names[port] if isinstance(port, str) and port in self.names else int(port)
        return self.ports.get(number, number)

    async def once(self, session: aiohttp.ClientSession, env: Mapping[str, str]) -> Outcome:
        """Probe now."""
        try:
            async with asyncio.timeout(self.timeout):
                return await self._ask(session, env)
        except TimeoutError:
            return Outcome(False, f"probe did not answer within {self.timeout:g}s (context deadline exceeded)")
        except (aiohttp.ClientError, OSError) as error:
            return Outcome(False, f"{error}")

    async def _ask(self, session: aiohttp.ClientSession, env: Mapping[str, str]) -> Outcome:
        if self.spec.get("httpGet"):
            return await self._http(session, self.spec["httpGet"])
        if self.spec.get("tcpSocket"):
            port = self.host_port(self.spec["tcpSocket"]["port"])
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return Outcome(True)
        if self.spec.get("exec"):
            return await self._exec(self.spec["exec"]["command"], env)
        return Outcome(False, "unsupported probe: neither httpGet, tcpSocket nor exec")

    async def _http(self, session: aiohttp.ClientSession, get: Object) -> Outcome:
        scheme = (get.get("scheme") or "HTTP").lower()
        path = get.get("path") or "/"
        url = f"{scheme}://127.0.0.1:{self.host_port(get['port'])}/{path.lstrip('/')}"
        headers = {header["name"]: header["value"] for header in get.get("httpHeaders") or []}
        async with session.get(url, headers=headers, ssl=False, allow_redirects=False) as response:
            if 200 <= response.status < 400:
                return Outcome(True)
            return Outcome(False, f"HTTP probe failed with statuscode: {response.status}")

    async def _exec(self, command: list[str], env: Mapping[str, str]) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=dict(env),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return Outcome(process.returncode == 0, output.decode(errors="replace").strip()[:256])
