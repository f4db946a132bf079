"""Up, down, kills and stale records, as a person meets them in a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from include.errors import PipelineError
from include.local.environment import local_environment, process_environment
from include.local.faultcontrol import kinds
from include.local.ports import choose, listening
from include.local.processes import spawn
from include.local.state import ServiceState, StackState, read_state, supervised, this_process, write_state
from include.local.supervisor import LocalHyperPod, end_stack
from include.objects import PROJECT_ROOT
from tests.include.local.hyperpod.conftest import until


def command(state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "include.local", "--state", str(state), *arguments],
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)}, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip


def services(state: Path) -> dict[str, ServiceState]:
    return read_state(state).services


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    """State folder of a detached stack."""
    done = command(tmp_path, "up", "--detach")
    assert done.returncode == 0, done.stderr
    yield tmp_path
    end_stack(tmp_path)


@pytest.mark.local
def test_the_life_of_a_stack_in_a_shell(running: Path) -> None:
    again = command(running, "up")
    assert (again.returncode, "running already" in again.stdout) == (0, True)
    with pytest.raises(PipelineError, match="AlreadyRunning"):
        LocalHyperPod(running).up()
    told = json.loads(command(running, "status", "--json").stdout)
    assert {row["state"] for row in told["services"]} == {"ready"}

    added = command(running, "fault", "add", "image-pull", "--match", "x-*", "--times", "1").stdout.strip()
    command(running, "fault", "add", "throttle", "--service", "fsx")
    shown = command(running, "fault", "list").stdout
    assert added in shown
    assert "fsx:*" in shown
    assert command(running, "fault", "clear").stdout.strip() == "lifted 2"
    assert command(running, "fault", "clear", "absent").returncode == 1

    before = services(running)["operator"].pid
    os.kill(before, signal.SIGKILL)
    until("operator started again", lambda: services(running)["operator"].pid != before)
    assert command(running, "restart", "kube").returncode == 0

    recorded = read_state(running)
    ended = command(running, "down")
    assert ended.returncode == 0, ended.stderr
    assert all(gone(service.pid) for service in recorded.services.values())
    assert not any(listening(port) for port in recorded.ports.values())
    assert not list(Path("/tmp").glob(f"seaweedfs-*-{recorded.ports['s3-grpc']}.sock"))
    assert command(running, "status").returncode == 3
    assert command(running, "down").stdout.strip() == "nothing was running"


@pytest.mark.local
def test_what_a_killed_supervisor_leaves_is_found_and_ended(running: Path) -> None:
    recorded = read_state(running)
    os.kill(recorded.supervisor, signal.SIGKILL)
    until("unsupervised", lambda: not supervised(running))
    assert not gone(recorded.services["s3"].pid)
    with LocalHyperPod(running) as stack:
        assert all(gone(service.pid) for service in recorded.services.values())
        assert stack.ports == recorded.ports  # addresses that people pasted somewhere stay right
        assert stack.endpoints() == []
    assert stack.leftovers() == []


def test_a_reused_pid_is_never_killed(tmp_path: Path) -> None:
    registry = tmp_path / "processes.json"
    stranger = spawn("stranger", [sys.executable, "-c", "input()"], os.environ, tmp_path / "log", tmp_path / "other")
    sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
    innocent = subprocess.Popen(sleeper, start_new_session=True)
    try:
        registry.write_text(json.dumps({"s3": {"pid": innocent.pid, "created": 1.0}}))
        service = ServiceState(pid=innocent.pid, created=1.0, log="")
        state = StackState(supervisor=innocent.pid, supervisor_created=1.0, ports={}, services={"s3": service})
        write_state(tmp_path, state)
        assert end_stack(tmp_path) == []
        assert innocent.poll() is None
        with pytest.raises(PipelineError, match="NotRunning"):
            read_state(tmp_path)
    finally:
        innocent.kill()
        innocent.wait()
        if stranger.handle is not None:
            stranger.handle.wait(timeout=10)


def test_a_child_that_outlived_its_leader_is_ended(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys;"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid, flush=True)"
    )
    leader = spawn("leader", [sys.executable, "-c", code], os.environ, tmp_path / "log", tmp_path / "processes.json")
    assert leader.handle is not None
    leader.handle.wait(timeout=30)
    child = int((tmp_path / "log").read_text())
    assert end_stack(tmp_path) == ["leader"]
    until("child gone", lambda: gone(child))


def test_a_service_that_fails_is_named_and_nothing_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from include.local import services as module

    broken = replace(
        module.SERVICES["s3"], command=lambda _: [sys.executable, "-c", "raise SystemExit('disk is full')"]
    )
    monkeypatch.setitem(module.SERVICES, "s3", broken)
    stack = LocalHyperPod(tmp_path)
    with pytest.raises(PipelineError) as caught:
        stack.up(timeout=20)
    assert caught.value.reason == "ServiceFailed"
    assert "s3" in caught.value.message
    assert "disk is full" in "\n".join(caught.value.evidence)
    assert stack.leftovers() == []
    assert not supervised(tmp_path)


def test_ports_are_kept_when_free_and_replaced_when_taken() -> None:
    import socket

    first = choose(("a", "b"), {})
    assert choose(("a", "b"), first) == first
    with socket.create_server(("127.0.0.1", first["a"])):
        second = choose(("a", "b"), first)
    assert second["a"] != first["a"]
    assert second["b"] == first["b"]
    assert len(set(choose(tuple("abcdef"), {"a": first["b"], "b": first["b"]}).values())) == 6


def test_a_persons_own_aws_access_does_not_leak_in(tmp_path: Path) -> None:
    ports = {"s3": 1, "aws": 2, "kube": 3}
    base = {"AWS_PROFILE": "production", "AWS_SESSION_TOKEN": "secret", "AWS_ACCESS_KEY_ID": "AKIA", "HOME": "/h"}
    found = process_environment(tmp_path, ports, base)
    assert not {"AWS_PROFILE", "AWS_SESSION_TOKEN"} & set(found)
    assert found["AWS_ACCESS_KEY_ID"] != "AKIA"
    assert found["HOME"] == "/h"
    with pytest.raises(PipelineError, match="NotRunning"):
        local_environment(tmp_path)


def test_the_recorded_state_gives_the_environment(tmp_path: Path) -> None:
    pid, created = this_process()
    ports: dict[str, Any] = {"s3": 1, "aws": 2, "kube": 3}
    write_state(tmp_path, StackState(supervisor=pid, supervisor_created=created, ports=ports))
    assert local_environment(tmp_path)["AWS_ENDPOINT_URL"] == "http://127.0.0.1:2"


def test_every_kind_of_fault_has_one_name() -> None:
    assert len(kinds()) == len(set(kinds()))
