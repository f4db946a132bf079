"""Airflow on a laptop: the settings that avoid 3.3.2's traps, and its four processes.

The one place for these settings: the demo, ``make up`` and the tests use them, and a test holds
docker-compose.yaml to them.
"""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from include.local.processes import Managed, end_group, spawn
from include.objects import PROJECT_ROOT

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class AirflowPorts:
    """TCP ports of one Airflow: UI and API, and the two log servers."""

    api: int
    worker_log: int
    trigger_log: int

    @classmethod
    def free(cls, preferred_api: int = 8080) -> AirflowPorts:
        """Return ports that are free now; the API gets ``preferred_api`` when that is free."""
        return cls(_free_port(preferred_api), _free_port(), _free_port())


def airflow_environment(home: Path, ports: AirflowPorts, *, root: Path = PROJECT_ROOT) -> dict[str, str]:
    """Return Airflow's settings as environment variables.

    MIN_HEARTBEAT_INTERVAL: with its default of 5 s, tasks fail whose trigger fires within 5 s of deferring
    (apache/airflow#72716). The heartbeat time-out decides how soon the task of a killed worker is retried.
    """
    return {
        "AIRFLOW_HOME": str(home),
        "PYTHONPATH": f"{root}{os.pathsep}{root / 'plugins'}",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "AIRFLOW__CORE__DAGS_FOLDER": str(root / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(root / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "True",
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{LOOPBACK}:{ports.api}/execution/",
        "AIRFLOW__API__HOST": LOOPBACK,
        "AIRFLOW__API__PORT": str(ports.api),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": f"http://{LOOPBACK}:{ports.api}",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
        "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "10",
        "AIRFLOW__DAG_PROCESSOR__MIN_FILE_PROCESS_INTERVAL": "60",
        "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(ports.worker_log),
        "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(ports.trigger_log),
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "30",
        "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
        "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
        "AIRFLOW__TRIGGERER__JOB_HEARTBEAT_SEC": "2",
        "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
        "AIRFLOW__API_AUTH__JWT_SECRET": _secret(home, "jwt"),
        "AIRFLOW__API__SECRET_KEY": _secret(home, "api"),
        "AIRFLOW__CORE__FERNET_KEY": "",
        "_AIRFLOW__SKIP_DATABASE_EXECUTOR_COMPATIBILITY_CHECK": "1",
        "NO_PROXY": f"{LOOPBACK},localhost",
    }


@dataclass
class LocalAirflow:
    """Airflow's api-server, scheduler, dag-processor and triggerer on 127.0.0.1.

    :param home: AIRFLOW_HOME: database, logs, one log per component.
    :param environment: further variables (connections to the local HyperPod).
    """

    home: Path
    environment: Mapping[str, str]
    ports: AirflowPorts = field(default_factory=AirflowPorts.free)
    processes: dict[str, Managed] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Base URL of the UI and the API."""
        return f"http://{LOOPBACK}:{self.ports.api}"

    @property
    def env(self) -> dict[str, str]:
        """Environment of every component."""
        return {**os.environ, **airflow_environment(self.home, self.ports), **self.environment}

    def start(self) -> None:
        """Prepare the database (from a cached copy when there is one) and start all components."""
        self.prepare()
        for name in COMPONENTS:
            self.start_component(name)

    def start_component(self, name: str) -> None:
        """Start one component in its own process group."""
        command = [sys.executable, "-m", "airflow", name]
        self.processes[name] = spawn(name, command, self.env, self.home / f"{name}.log", self._registry)

    def restart_dead(self) -> list[str]:
        """Start components again that have died, without what they had started; return their names."""
        dead = [name for name, process in self.processes.items() if process.poll() is not None]
        for name in dead:
            # As with a container that restarts: nothing that the dead one started lives on.
            end_group(self.processes[name], grace=0)
            self.start_component(name)
        return dead

    def wait_healthy(self, timeout: float = 120) -> float:
        """Wait until the API says that all components are healthy; return the seconds it took.

        :raises TimeoutError: naming what is not healthy, with the end of its log.
        """
        started = time.monotonic()
        missing = set(COMPONENTS)
        while time.monotonic() - started < timeout:
            missing = self._unhealthy()
            if not missing:
                return time.monotonic() - started
            self.restart_dead()
            time.sleep(0.25)
        logs = "\n".join(f"--- {name}: {_tail(self.home / f'{name}.log')}" for name in sorted(missing))
        raise TimeoutError(f"Airflow not healthy after {timeout:.0f} s: {', '.join(sorted(missing))}\n{logs}")

    def stop(self) -> None:
        """End every component with all its children; returns when they are gone."""
        for process in self.processes.values():
            end_group(process, grace=4)
        self.processes.clear()
        self._registry.unlink(missing_ok=True)

    def _unhealthy(self) -> set[str]:
        try:
            answer = requests.get(f"{self.url}/api/v2/monitor/health", timeout=2).json()
        except (requests.RequestException, ValueError):
            return set(COMPONENTS)
        names = {"scheduler": "scheduler", "dag_processor": "dag-processor", "triggerer": "triggerer"}
        return {label for key, label in names.items() if answer.get(key, {}).get("status") != "healthy"}

    @property
    def _registry(self) -> Path:
        return self.home / "processes.json"

    def prepare(self) -> None:
        """Make the database ready: migrated once per Airflow version, then copied."""
        self.home.mkdir(parents=True, exist_ok=True)
        database = self.home / "airflow.db"
        template = PROJECT_ROOT / "var" / "cache" / f"airflow-{_airflow_version()}.db"
        if not database.exists() and template.exists():
            shutil.copyfile(template, database)
        if not database.exists():
            self._run("db", "migrate")
            self._run("pools", "import", str(PROJECT_ROOT / "config" / "pools.json"))
            template.parent.mkdir(parents=True, exist_ok=True)
            partial = template.with_suffix(".partial")
            shutil.copyfile(database, partial)
            partial.replace(template)

    def _run(self, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "airflow", *arguments],
            env=self.env,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"airflow {' '.join(arguments)} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


class AirflowApi:
    """The few calls of Airflow's REST API that the demo and the tests need."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.session = requests.Session()

    def login(self) -> None:
        """Fetch a token (all-admins mode needs no password)."""
        token = self.session.get(f"{self.url}/auth/token", timeout=20).json()["access_token"]
        self.session.headers["Authorization"] = f"Bearer {token}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Call ``/api/v2<path>``; return the JSON answer.

        :raises RuntimeError: with Airflow's own words when the answer is not 2xx.
        """
        answer = self.session.request(method, f"{self.url}/api/v2{path}", json=body, timeout=30)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: {answer.status_code} {answer.text[:600]}")
        return answer.json() if answer.content else None

    def wait_for_dag(self, dag_id: str, timeout: float = 90) -> None:
        """Wait until the DAG has been parsed and serialised."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            answer = self.session.get(f"{self.url}/api/v2/dags/{dag_id}", timeout=20)
            if answer.ok:
                return
            time.sleep(0.3)
        errors = self.call("GET", "/importErrors").get("import_errors", [])
        raise TimeoutError(f"Dag {dag_id} did not appear in {timeout:.0f} s; import errors: {errors}")

    def trigger(self, dag_id: str, conf: Mapping[str, Any], run_id: str | None = None) -> str:
        """Unpause and trigger a DAG; return the run id."""
        self.call("PATCH", f"/dags/{dag_id}", {"is_paused": False})
        body: dict[str, Any] = {"conf": dict(conf), "logical_date": None}
        if run_id:
            body["dag_run_id"] = run_id
        return str(self.call("POST", f"/dags/{dag_id}/dagRuns", body)["dag_run_id"])

    def run_state(self, dag_id: str, run_id: str) -> str:
        """State of a run: queued, running, success or failed."""
        return str(self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}")["state"])

    def task_instances(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        """All task instances of a run."""
        answer = self.call("GET", f"/dags/{dag_id}/dagRuns/{run_id}/taskInstances?limit=500")
        return list(answer["task_instances"])


def _free_port(preferred: int = 0) -> int:
    for port in (preferred, 0):
        with socket.socket() as probe:
            try:
                probe.bind((LOOPBACK, port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    raise OSError("no free TCP port on 127.0.0.1")


def _secret(home: Path, name: str) -> str:
    path = home / f".{name}-secret"
    if not path.exists():
        home.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(secrets.token_urlsafe(32))
    return path.read_text()


def _airflow_version() -> str:
    from importlib.metadata import version

    return version("apache-airflow")


def _tail(path: Path, lines: int = 12) -> str:
    return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else "(no log)"
