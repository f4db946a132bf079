"""The catalog's loader: every problem at once, each with file, field, value and fix."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from include.catalog.__main__ import main
from include.catalog.loader import load_catalog
from include.errors import ConfigurationError

MODEL: dict[str, Any] = {
    "name": "tiny",
    "source": {"type": "folder", "path": "weights"},
    "deployment": {"image": "repo/image:1", "instance_type": "ml.g5.2xlarge"},
}
CLUSTER: dict[str, Any] = {"name": "here", "models_uri": "s3://b/models", "results_uri": "var/results"}
WORKLOAD: dict[str, Any] = {"name": "smoke", "loads": [{"mode": "closed", "concurrency": 1, "requests": 4}]}


def write(root: Path, **files: Any) -> Path:
    base = {"models/tiny": MODEL, "clusters/here": CLUSTER, "workloads/smoke": WORKLOAD}
    for name, content in (base | {k.replace("__", "/"): v for k, v in files.items()}).items():
        path = root / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return root


def problems(root: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load_catalog(root)
    return caught.value.evidence


def test_the_shipped_catalog_loads_and_names_its_parts() -> None:
    catalog = load_catalog()
    assert {"smollm2-135m"} <= set(catalog.models)
    assert {"local"} <= set(catalog.clusters)
    assert {"smoke", "chat", "rag", "shared-prefix"} <= set(catalog.workloads)


def test_all_problems_of_all_files_are_reported_together(tmp_path: Path) -> None:
    root = write(
        tmp_path,
        models__tiny={**MODEL, "sorce": 1, "deployment": {"port": 99999}},
        clusters__here={"name": "here", "models_uri": "s3://b/models"},
        workloads__smoke="loads: [",
    )
    found = problems(root)
    assert len(found) == 4
    text = "\n".join(found)
    assert "models/tiny.yaml: sorce = 1: no such field, did you mean 'source'" in text
    assert "models/tiny.yaml: deployment.port = 99999" in text
    assert "clusters/here.yaml: results_uri = absent: this field is required" in text
    assert "workloads/smoke.yaml: line 1" in text or "workloads/smoke.yaml: line 2" in text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("name: tiny\nname: tiny\n", "'name' is written twice"),
        ("- a\n- b\n", "write a mapping of field: value"),
        ("", "write a mapping of field: value"),
        ("name: !!python/object:os.system {}\n", "could not determine a constructor"),
    ],
)
def test_files_that_are_not_a_plain_mapping_are_refused(tmp_path: Path, content: str, said: str) -> None:
    (found,) = problems(write(tmp_path, models__tiny=content))
    assert said in found


def test_a_file_named_unlike_its_object_is_refused(tmp_path: Path) -> None:
    (found,) = problems(write(tmp_path, models__other=MODEL))
    assert "rename the file to tiny.yaml" in found


def test_nightly_cells_must_name_what_exists(tmp_path: Path) -> None:
    nightly = {"cells": [{"model": "tinny", "workloads": ["smoke", "chat"], "cluster": "here"}]}
    found = problems(write(tmp_path, nightly=nightly))
    assert [line.split(":")[1].split("=")[0].strip() for line in found] == [
        "cells[0].model",
        "cells[0].workloads",
    ]
    assert "did you mean 'tiny'" in found[0]


def test_an_unknown_name_lists_the_known_ones(tmp_path: Path) -> None:
    catalog = load_catalog(write(tmp_path))
    with pytest.raises(ConfigurationError, match=r"UnknownModel.*known: tiny"):
        catalog.model("none")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=200))
def test_any_bytes_end_in_a_catalog_or_a_configuration_error(tmp_path: Path, data: bytes) -> None:
    root = write(tmp_path)
    (root / "models" / "tiny.yaml").write_bytes(data)
    with pytest.raises(ConfigurationError):
        load_catalog(root)


@pytest.mark.parametrize(
    "content", ["name: tiny\nrevision: 2026-99-99\n", "? [a]\n: 1\n", "[" * 3000], ids=["date", "key", "deep"]
)
def test_yaml_that_its_parser_chokes_on_is_a_problem_of_the_file(tmp_path: Path, content: str) -> None:
    (found,) = problems(write(tmp_path, models__tiny=content))
    assert found.startswith("models/tiny.yaml: ")


def test_a_day_that_is_in_no_calendar_is_refused(tmp_path: Path) -> None:
    cell = {"model": "tiny", "workloads": ["smoke"], "cluster": "here"}
    price = {"instance_type": "ml.g5.2xlarge", "hourly_usd": "1", "since": "2026-02-30"}
    root = write(
        tmp_path,
        nightly={"cells": [cell | {"quarantine": {"until": "2026-13-01", "reason": "waits"}}]},
        prices={"id": "book", "prices": [price]},
    )
    quarantine, since = problems(root)
    assert "nightly.yaml: cells[0].quarantine.until = '2026-13-01'" in quarantine
    assert "prices.yaml: prices[0].since = '2026-02-30'" in since


def test_the_command_checks_a_catalog_anywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(write(tmp_path))]) == 0
    assert "tiny" in capsys.readouterr().out
    assert main([str(write(tmp_path, models__tiny="name: [\n"))]) == 1
    assert "models/tiny.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "nowhere")])
