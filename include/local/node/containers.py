"""One container of a pod: pull, start, probe, restart with back-off, stop; survives the agent's restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from include.local.controller.api import ApiError
from include.local.controller.clock import stamp
from include.local.controller.resources import Object
from include.local.faults import Fault
from include.local.node import images, scripted, shim
from include.local.node.environment import ConfigError
from include.local.node.kubelet import Kubelet
from include.local.node.prober import Prober
from include.local.node.probes import Probe
from include.local.node.process import ContainerProcess, ExitRecord, attempts
from include.local.node.status import ContainerRecord

POLL_SECONDS = 0.05
ALIVE_CHECK_SECONDS = 1.0
UNKNOWN_EXIT = 137


@dataclass(frozen=True)
class Launch:
    """How to start a container: argv, environment, working folder."""

    argv: list[str]
    env: dict[str, str]
    cwd: Path


Prepare = Callable[[Object, images.Image], Coroutine[Any, Any, Launch]]


class Container:
    """Runs one container until it need not be started again.

    :param policy: restart policy: Always, OnFailure or Never.
    :param prepare: builds the launch; raises ConfigError when something that it refers to is absent.
    """

    def __init__(
        self,
        kubelet: Kubelet,
        pod: Callable[[], Object],
        spec: Object,
        folder: Path,
        policy: str,
        prepare: Prepare,
        changed: Callable[[], None],
        ports: dict[int, int],
    ) -> None:
        self.spec = spec
        self.record = ContainerRecord(spec["name"], spec["image"])
        self.env: dict[str, str] = {}
        self._kubelet = kubelet
        self._pod = pod
        self._folder = folder
        self._policy = policy
        self._prepare = prepare
        self._changed = changed
        self._ports = ports
        self._process: ContainerProcess | None = None
        self._stopped = asyncio.Event()
        self._failures = 0
        self._load()

    @property
    def field(self) -> str:
        """Field path, as the kubelet's events name a container."""
        return f"spec.containers{{{self.spec['name']}}}"

    async def run(self) -> int:
        """Run to the end that counts; return its exit code."""
        code: int | None = None
        if self._process is not None:
            code = await self._watch(self._process)
        while not self._stopped.is_set() and (code is None or self._restarts(code)):
            if code is not None:
                await self._back_off()
                self.record.restart_count += 1
            image = await self._pull()
            if self._stopped.is_set():
                break
            self._process = await self._start(image)
            code = await self._watch(self._process)
        return code if code is not None else UNKNOWN_EXIT

    async def stop(self, grace: float) -> None:
        """End the process: SIGTERM, SIGKILL after ``grace`` seconds; gone on return."""
        self._stopped.set()
        process = self._process
        if process is None or process.exit() is not None:
            return
        await asyncio.to_thread(process.wait_for_record)
        process.terminate()
        deadline = time.monotonic() + grace
        while process.exit() is None and process.alive():
            if time.monotonic() > deadline:
                process.kill()
            await asyncio.sleep(POLL_SECONDS)
        self._note_exit(process.exit() or ExitRecord(UNKNOWN_EXIT, stamp(), stamp()))

    async def restart(self, reason: str) -> None:
        """Kill the process because a probe failed; it is started again by its policy."""
        await self._kubelet.recorder.normal(
            self._pod(), "Killing", f"Container {self.spec['name']} failed {reason}, will be restarted", self.field
        )
        if self._process is not None:
            self._process.terminate()
            await asyncio.sleep(min(2.0, float(self._pod()["spec"].get("terminationGracePeriodSeconds") or 2)))
            self._process.kill()

    def set_ready(self, *, ready: bool) -> None:
        """Note the readiness probe's answer."""
        if self.record.ready != ready:
            self.record.ready = ready
            self._changed()

    def set_started(self) -> None:
        """Note that the startup probe has passed."""
        self.record.started = True
        self._changed()

    def probe(self, kind: str) -> Probe | None:
        """Return a probe of the spec (``readinessProbe``, …), if there is one."""
        if not self.spec.get(kind):
            return None
        names = {port["name"]: int(port["containerPort"]) for port in self.spec.get("ports") or [] if port.get("name")}
        return Probe(self.spec[kind], self._ports, names)

    def waiting(self, reason: str, message: str = "") -> None:
        """Show why the container does not run."""
        state: Object = {"reason": reason} | ({"message": message} if message else {})
        if self.record.state != {"waiting": state}:
            self.record.state = {"waiting": state}
            self.record.ready = self.record.started = False
            self._changed()

    @property
    def process(self) -> ContainerProcess | None:
        """The latest attempt."""
        return self._process

    def _load(self) -> None:
        """Find out from disk what an earlier agent did with this container."""
        begun = attempts(self._folder)
        if not begun:
            return
        self._process = begun[-1]
        self.record.restart_count = begun[-1].attempt
        notes = self._read_notes()
        self.record.image_id = str(notes.get("image_id", ""))
        if len(begun) > 1:
            before = begun[-2].exit()
            if before is not None:
                self.record.last_state = {"terminated": self._terminated(before, "")}

    def _restarts(self, code: int) -> bool:
        return self._policy == "Always" or (self._policy == "OnFailure" and code != 0)

    async def _back_off(self) -> None:
        self._failures += 1
        ended = self.record.state.get("terminated") or {}
        self.record.last_state = {"terminated": ended} if ended else self.record.last_state
        if self._failures == 1 or self._stopped.is_set():
            return
        config = self._kubelet.config
        seconds = min(config.back_off_seconds * 2.0 ** (self._failures - 2), config.back_off_limit_seconds)
        meta = self._pod()["metadata"]
        text = f"restarting failed container={self.spec['name']} pod={meta['name']}_{meta['namespace']}({meta['uid']})"
        self.waiting("CrashLoopBackOff", f"back-off {seconds:g}s {text}")
        await self._kubelet.recorder.warning(self._pod(), "BackOff", f"Back-off {text}", self.field)
        await self._sleep(seconds)

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopped.wait(), seconds)

    async def _pull(self) -> images.Image:
        """Return the image; keeps trying with a back-off while there is none."""
        reference, failures = self.spec["image"], 0
        recorder, pod = self._kubelet.recorder, self._pod()
        while True:
            if self._stopped.is_set():
                raise asyncio.CancelledError
            started = time.monotonic()
            try:
                image = await self._resolve(reference)
            except images.ImageNotFoundError as error:
                failures += 1
                await self._pull_failed(reference, str(error), failures)
                continue
            if reference in self._kubelet.pulled and self.spec.get("imagePullPolicy") != "Always":
                text = f'Container image "{reference}" already present on machine'
            else:
                took = time.monotonic() - started
                text = (
                    f'Successfully pulled image "{reference}" in {took:.3f}s ({took:.3f}s including waiting). '
                    f"Image size: {image.size} bytes."
                )
            await recorder.normal(pod, "Pulled", text, self.field)
            self._kubelet.pulled.add(reference)
            return image

    async def _resolve(self, reference: str) -> images.Image:
        if reference not in self._kubelet.pulled:
            await self._kubelet.recorder.normal(self._pod(), "Pulling", f'Pulling image "{reference}"', self.field)
        broken = await self._kubelet.fault(Fault.IMAGE_PULL, self._pod())
        if broken is not None:
            default = f'failed to resolve reference "{reference}": pull access denied, repository does not exist'
            raise images.ImageNotFoundError(broken.text("message", default))
        slow = await self._kubelet.fault(Fault.SLOW_IMAGE_PULL, self._pod())
        if slow is not None and self.record.restart_count == 0:
            self._kubelet.pulled.discard(reference)
            await self._sleep(slow.number("seconds", 30))
        return images.resolve(reference)

    async def _pull_failed(self, reference: str, message: str, failures: int) -> None:
        recorder, pod, config = self._kubelet.recorder, self._pod(), self._kubelet.config
        text = f'Failed to pull image "{reference}": {message}'
        self.waiting("ErrImagePull", message)
        await recorder.warning(pod, "Failed", text, self.field)
        await recorder.warning(pod, "Failed", "Error: ErrImagePull", self.field)
        await self._sleep(0.5)
        self.waiting("ImagePullBackOff", f'Back-off pulling image "{reference}": ErrImagePull: {message}')
        await recorder.normal(pod, "BackOff", f'Back-off pulling image "{reference}"', self.field)
        await recorder.warning(pod, "Failed", "Error: ImagePullBackOff", self.field)
        await self._sleep(min(config.back_off_seconds * 2.0 ** (failures - 1), config.back_off_limit_seconds))

    async def _start(self, image: images.Image) -> ContainerProcess:
        while True:
            if self._stopped.is_set():
                raise asyncio.CancelledError
            try:
                launch = await self._prepare(self.spec, image)
                script = await self._script()
            except (ConfigError, ApiError) as error:
                self.waiting("CreateContainerConfigError", str(error))
                await self._kubelet.recorder.warning(self._pod(), "Failed", f"Error: {error}", self.field)
                await self._sleep(self._kubelet.config.back_off_seconds)
                continue
            break
        process = ContainerProcess(self._folder, self.record.restart_count)
        self.env = launch.env
        self.record.image_id = await self._image_id(image)
        self._write_notes(image_id=self.record.image_id, reason=script.reason if script else "")
        argv = script.argv() if script else launch.argv
        process.start(argv, launch.env, launch.cwd, self._kubelet.heartbeat)
        recorder, name = self._kubelet.recorder, self.spec["name"]
        await recorder.normal(self._pod(), "Created", f"Created container: {name}", self.field)
        await asyncio.to_thread(process.wait_for_record)
        await recorder.normal(self._pod(), "Started", f"Started container {name}", self.field)
        if await self._kubelet.fault(Fault.NO_KV_TRANSFER, self._pod()):
            # The shim appends to the same file, so a line of ours stands among the container's own.
            with process.log.open("ab") as log:
                log.write(f"{shim.stamp()} stdout F {scripted.NO_KV_TRANSFER}\n".encode())
        return process

    async def _script(self) -> scripted.Script | None:
        wrong = await self._kubelet.fault(Fault.CONFIG_ERROR, self._pod())
        if wrong is not None:
            raise ConfigError(wrong.text("message", 'secret "hf-token" not found'))
        if self.spec["name"] == "hf-model-downloader":
            rule = await self._kubelet.fault(Fault.HF_DOWNLOAD_FAILED, self._pod())
            return scripted.script_of(rule) if rule else None
        for kind in scripted.SCRIPTED:
            rule = await self._kubelet.fault(kind, self._pod())
            if rule is not None:
                return scripted.script_of(rule)
        return None

    async def _image_id(self, image: images.Image) -> str:
        if await self._kubelet.fault(Fault.WRONG_IMAGE_DIGEST, self._pod()):
            return f"{image.repository}@sha256:{'0' * 64}"
        return image.image_id

    async def _watch(self, process: ContainerProcess) -> int:
        """Wait for the end of an attempt (also of one that an earlier agent started); return its exit code."""
        await asyncio.to_thread(process.wait_for_record)
        found = process.record() or {}
        self.record.state = {"running": {"startedAt": _seconds(str(found.get("started", stamp())))}}
        self.record.container_id = f"local://{found.get('pid', 0)}-{process.attempt}"
        self.record.started = self.probe("startupProbe") is None
        self.record.ready = self.record.started and self.probe("readinessProbe") is None
        self._changed()
        prober = asyncio.create_task(Prober(self._kubelet, self._pod, self).run())
        try:
            ended = await self._wait(process)
        finally:
            prober.cancel()
            await asyncio.gather(prober, return_exceptions=True)
        self._note_exit(ended)
        return ended.code

    async def _wait(self, process: ContainerProcess) -> ExitRecord:
        checked = 0.0
        while True:
            ended = process.exit()
            if ended is not None:
                return ended
            if time.monotonic() - checked > ALIVE_CHECK_SECONDS:
                checked = time.monotonic()
                if not process.alive() and process.exit() is None:
                    return ExitRecord(UNKNOWN_EXIT, stamp(), stamp())
            await asyncio.sleep(POLL_SECONDS)

    def _note_exit(self, ended: ExitRecord) -> None:
        self.record.ready = self.record.started = False
        self.record.state = {"terminated": self._terminated(ended, str(self._read_notes().get("reason", "")))}
        self._changed()

    def _terminated(self, ended: ExitRecord, reason: str) -> Object:
        usual = "Completed" if ended.code == 0 else "Error"
        found: Object = {
            "exitCode": ended.code,
            "reason": reason if reason and ended.code else usual,
            "startedAt": _seconds(ended.started),
            "finishedAt": _seconds(ended.finished),
            "containerID": self.record.container_id,
        }
        if ended.code and self.spec.get("terminationMessagePolicy") == "FallbackToLogsOnError" and self._process:
            found["message"] = self._process.log.read_text(errors="replace")[-2048:]
        return found

    def _notes(self) -> Path:
        return self._folder / "notes.json"

    def _read_notes(self) -> dict[str, Any]:
        path = self._notes()
        return dict(json.loads(path.read_text())) if path.exists() else {}

    def _write_notes(self, **notes: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._notes().write_text(json.dumps(notes))

    def kill_now(self, number: int = signal.SIGKILL) -> None:
        """Send a signal to the process group, as something outside would."""
        if self._process is not None:
            self._process.send(number)


def _seconds(text: str) -> str:
    return text[:19] + "Z"
