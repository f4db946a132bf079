"""Rendered objects: strictly valid, golden, deterministic; documentation covers every field."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.catalog.loader import load_catalog
from include.endpoint.crds import PLURALS, schema_of, shipped
from include.endpoint.fields import NEWER, is_newer, option_for
from include.endpoint.lifecycle import accelerators, spec_digest
from include.endpoint.schema import check, paths_in
from tests.include.endpoint.builders import SMOKE, cluster, model, plan, run
from tests.include.endpoint.configurations import CONFIGURATIONS

GOLDEN = Path(__file__).parent / "golden"
DOCS = Path(__file__).parents[3] / "docs" / "spec-fields.md"
ROOT = Path(__file__).parents[3]


@cache
def rendered(name: str, *, benchmarking: bool = False) -> dict[str, Any]:
    where = cluster(queue_name="ml-localqueue", namespace="ml")
    spec = model("qwen3-8b", **CONFIGURATIONS[name])
    return plan(spec, where, workloads=(SMOKE,) if benchmarking else ()).custom_resource


def spec_schema(kind: str) -> dict[str, Any]:
    schema: dict[str, Any] = schema_of(shipped(kind))["properties"]["spec"]
    return schema


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_rendered_object_is_the_golden_one_and_strictly_valid(name: str) -> None:
    item = rendered(name)
    golden = GOLDEN / f"{name}.json"
    if not golden.exists():
        golden.parent.mkdir(exist_ok=True)
        golden.write_text(json.dumps(item, indent=1, sort_keys=True) + "\n")
        pytest.fail(f"{golden} did not exist; it was written: review it")
    assert item == json.loads(golden.read_text())
    if item["kind"] != "List":
        schema = spec_schema(item["kind"])
        problems = [p for p in check(item["spec"], schema) if not is_newer(p.field.removeprefix("spec."))]
        assert problems == []


def test_the_shipped_catalog_plans_on_its_clusters() -> None:
    catalog = load_catalog()
    for spec in catalog.models.values():
        where = "local" if (spec.deployment.image or "").startswith("hyperpod.local/") else "example-eks"
        made = plan(spec, catalog.cluster(where), prices=catalog.prices)
        assert made.custom_resource["metadata"]["labels"]["hyperpod-pipelines/owner"] == run().owner
        assert len(made.endpoint_name) <= 40


def test_a_benchmark_has_a_fixed_number_of_replicas() -> None:
    for name in ("autoscaled-from-zero", "s3-cache-and-routing", "disaggregated", "jumpstart-everything-shared"):
        assert "autoScalingSpec" not in json.dumps(rendered(name, benchmarking=True))
        assert "autoScalingSpec" in json.dumps(rendered(name))


def test_only_the_run_changes_the_name_and_the_plan_is_deterministic() -> None:
    first, again, other = plan(), plan(), plan(identity=run("manual__2"))
    assert first.digest == again.digest
    assert spec_digest(first) == spec_digest(again)
    assert first.endpoint_name != other.endpoint_name


def test_accelerators_counts_what_all_replicas_ask_for() -> None:
    assert accelerators(plan(model(**CONFIGURATIONS["s3-cache-and-routing"]), cluster(namespace="ml"))) == 2
    assert accelerators(plan(model(**CONFIGURATIONS["disaggregated"]))) == 2 * 4 + 8
    assert accelerators(plan(model(**CONFIGURATIONS["mig-and-affinity"]))) == 1


def test_secrets_never_enter_the_manifest() -> None:
    item = json.dumps(rendered("container-details"))
    assert '"secretKeyRef"' in item
    assert '"value": "s"' not in item


def leaves(schema: dict[str, Any], prefix: str = "", depth: int = 0) -> Iterator[str]:
    """Every field of a schema; core Kubernetes types below volumes, probes and containers count as one."""
    core = prefix.split(".")[-1] in (
        "volumes", "initContainers", "nodeAffinity", "livenessProbe", "readinessProbe", "startupProbe",
        "valueFrom", "resources", "claims",
    )  # fmt: skip
    if schema.get("type") == "array" and not core:
        yield from leaves(schema["items"], prefix, depth)
    elif "properties" in schema and not core:
        for name, item in schema["properties"].items():
            yield from leaves(item, f"{prefix}.{name}" if prefix else name, depth + 1)
    else:
        yield prefix


def present(value: Any, prefix: str = "") -> Iterator[str]:
    """Every path in a rendered spec, list indexes left out."""
    if prefix:
        yield prefix
    if isinstance(value, dict):
        for name, item in value.items():
            yield from present(item, f"{prefix}.{name}" if prefix else name)
    elif isinstance(value, list):
        for item in value:
            yield from present(item, prefix)


@pytest.mark.parametrize("kind", ["InferenceEndpointConfig", "JumpStartModel"])
def test_every_field_of_the_definition_has_an_option_and_is_rendered_by_a_configuration(kind: str) -> None:
    fields = set(leaves(spec_schema(kind)))
    assert not [field for field in fields if option_for(kind, field) is None]
    shown: set[str] = set()
    for name in CONFIGURATIONS:
        item = rendered(name)
        if item["kind"] == kind:
            shown |= set(present(item["spec"]))
    assert sorted(fields - shown) == []


def test_newer_fields_are_rendered_too() -> None:
    shown = set(present(rendered("newer-operator")["spec"]))
    assert set(NEWER) <= shown
    assert set(paths_in(rendered("newer-operator")["spec"], spec_schema("InferenceEndpointConfig"))) == set(NEWER)


@cache
def configuration_paths(name: str) -> frozenset[str]:
    return frozenset(present(rendered(name).get("spec", {})))


def configuration_with(kind: str, field: str) -> str:
    for name in CONFIGURATIONS:
        item = rendered(name)
        if item["kind"] == kind and field in configuration_paths(name):
            return name
    return "-"


def field_table() -> str:
    lines = [
        "# Fields of the custom resources",
        "",
        "How a person sets each field of the three definitions, and the configuration whose golden manifest renders it",
        "(`tests/include/endpoint/golden/<name>.json`). Options are below `deployment` in a model's YAML. A test",
        "compares this page with the definitions in `include/endpoint/crds`.",
    ]
    for kind in PLURALS:
        lines += ["", f"## {kind}", "", "| spec field | option | rendered by |", "|---|---|---|"]
        for field in sorted(leaves(spec_schema(kind))):
            option = option_for(kind, field)
            shown = configuration_with(kind, field) if kind != "SageMakerEndpointRegistration" else "-"
            lines.append(f"| `{field}` | {option} | {shown} |")
    lines += [
        "",
        "## Newer operators (v3.3, v3.4, gateway)",
        "",
        "| spec field | option | rendered by |",
        "|---|---|---|",
    ]
    lines += [f"| `{field}` | {option} | newer-operator |" for field, option in sorted(NEWER.items())]
    lines += [
        "",
        "Anything else goes into `extra_spec`, which preflight checks against the definition that the cluster serves.",
    ]
    return "\n".join(lines) + "\n"


def test_the_table_of_fields_is_up_to_date() -> None:
    expected = field_table()
    if not DOCS.exists():
        DOCS.parent.mkdir(exist_ok=True)
        DOCS.write_text(expected)
        pytest.fail(f"{DOCS} did not exist; it was written: review it")
    assert DOCS.read_text() == expected


NAMES = st.from_regex(re.compile(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?"), fullmatch=True)


@given(name=NAMES, run_id=st.text(min_size=1, max_size=80))
def test_any_legal_model_name_and_any_run_id_give_legal_names_and_labels(name: str, run_id: str) -> None:
    made = plan(model(name), cluster(namespace="ml"), identity=run(run_id))
    item = made.custom_resource
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", item["metadata"]["name"])
    assert len(item["metadata"]["name"]) <= 40
    owner = item["metadata"]["labels"]["hyperpod-pipelines/owner"]
    assert re.fullmatch(r"[a-z0-9-]{1,63}", owner)
