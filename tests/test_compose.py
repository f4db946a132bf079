"""docker-compose.yaml, which cannot be run everywhere: its structure, and that it agrees with the local settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from include.local.airflow import AirflowPorts, airflow_environment

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = ("airflow-apiserver", "airflow-scheduler", "airflow-dag-processor", "airflow-triggerer")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "docker-compose.yaml").read_text()))


def test_the_services_of_a_real_airflow_are_there(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {"postgres", "airflow-init", *COMPONENTS}
    for name in COMPONENTS:
        service = compose["services"][name]
        assert service["command"] == name.removeprefix("airflow-").replace("apiserver", "api-server")
        assert "healthcheck" in service, name
        assert service["depends_on"]["airflow-init"]["condition"] == "service_completed_successfully"


def test_every_container_has_the_same_secrets_and_none_is_written_down(compose: dict[str, Any]) -> None:
    for key in ("AIRFLOW__API_AUTH__JWT_SECRET", "AIRFLOW__CORE__FERNET_KEY", "AIRFLOW__API__SECRET_KEY"):
        values = {compose["services"][name]["environment"][key] for name in (*COMPONENTS, "airflow-init")}
        assert len(values) == 1
        assert values.pop().startswith("${"), key


def test_the_ui_is_bound_to_this_machine_only(compose: dict[str, Any]) -> None:
    ports = [port for service in compose["services"].values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:8080:8080"]


def test_pools_are_made_and_the_code_is_found(compose: dict[str, Any]) -> None:
    init = compose["services"]["airflow-init"]
    assert "pools import" in init["command"][-1]
    assert init["environment"]["PYTHONPATH"].split(":") == ["/opt/airflow", "/opt/airflow/plugins"]


def test_settings_that_avoid_known_traps_agree_with_the_local_ones(compose: dict[str, Any], tmp_path: Path) -> None:
    local = airflow_environment(tmp_path, AirflowPorts(1, 2, 3))
    there = compose["services"]["airflow-scheduler"]["environment"]
    for key in ("AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL", "AIRFLOW__CORE__EXECUTOR", "AIRFLOW__CORE__LOAD_EXAMPLES"):
        assert there[key] == local[key], key
