"""Airflow's real api-server with the plugin over a generated store, and Chromium."""

from __future__ import annotations

import datetime as dt
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from playwright.sync_api import Browser, sync_playwright

from include.local.airflow import AirflowPorts, airflow_environment
from include.results.index import Index
from include.results.series import load_series
from tests.browser import story

# A user without a role has no permission.
USERS = {"reader": "viewer", "stranger": ""}
PASSWORD = "browser-test"


@dataclass(frozen=True)
class Site:
    """Where the pages are and how to log in."""

    url: str
    folder: Path
    series: str

    def token(self, user: str) -> str:
        """Return a login token."""
        answer = requests.post(f"{self.url}/auth/token", json={"username": user, "password": PASSWORD}, timeout=30)
        answer.raise_for_status()
        return str(answer.json()["access_token"])


def _series(folder: Path) -> str:
    store = story.write(folder)
    (found,) = [one.id for one in load_series(Index(store), model="llama") if one.identity["load"] == "c=4"]
    story.confirm(store, found)
    story.endpoints(store, dt.datetime.now(dt.UTC))
    return found


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The api-server, up; with a user who may read and one who may not."""
    folder = tmp_path_factory.mktemp("site")
    series, ports = _series(folder), AirflowPorts.free(0)
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps(dict.fromkeys(USERS, PASSWORD)))
    environment = {
        **os.environ,
        **airflow_environment(folder, ports),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "HYPERPOD_RESULTS_URI": str(folder / "store"),
    }
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], env=environment, check=True, capture_output=True)
    log = (folder / "api-server.log").open("wb")
    process = subprocess.Popen(
        [sys.executable, "-m", "airflow", "api-server"], env=environment, stdout=log, stderr=log, start_new_session=True
    )
    try:
        url = f"http://127.0.0.1:{ports.api}"
        _await(url, process, folder / "api-server.log")
        yield Site(url, folder, series)
    finally:
        os.killpg(process.pid, 15)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
        log.close()


def _await(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 180
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/api/v2/version", timeout=5).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.3)
    raise RuntimeError(f"the api-server is not up: {log.read_text()[-3000:]}")


# Playwright keeps an event loop running in this thread as long as it lives: no longer than its own tests.
@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium: the system's, else Playwright's own; without either this fails, it never skips."""
    system = shutil.which("chromium")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=system, args=["--no-sandbox"])
        yield launched
        launched.close()
