"""Strict custom resources: what a real API server would refuse, default, prune."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from include.local.kube.definitions import bundled
from include.local.kube.schema.notation import Notation
from include.local.kube.schema.prune import fill_defaults, prune
from include.local.kube.schema.validate import validate
from tests.include.local.kube.api import CONFIGS, INFERENCE, MERGE, Api, endpoint

SCHEMAS = {
    item["spec"]["names"]["kind"]: item["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for item in bundled()
}


def test_defaults_are_filled_in(api: Api) -> None:
    made = api.ok("POST", CONFIGS, endpoint("defaults", autoScalingSpec={"cloudWatchTrigger": {}}))
    spec = made["spec"]
    assert (spec["replicas"], spec["maxDeployTimeInSeconds"], spec["invocationEndpoint"]) == (1, 3600, "invocations")
    assert spec["worker"]["modelInvocationPort"]["name"] == "http"
    assert spec["worker"]["modelVolumeMount"]["mountPath"] == "/opt/ml/model"
    assert spec["modelSourceConfig"]["prefetchEnabled"] is False
    assert spec["autoScalingSpec"]["maxReplicaCount"] == 5
    assert spec["autoScalingSpec"]["cloudWatchTrigger"]["metricStat"] == "Average"
    assert "status" not in made
    assert "kvCacheSpec" not in spec


def test_unknown_field_is_refused_pruned_with_a_warning_or_silently(api: Api) -> None:
    body = endpoint("unknown", replcas=3)
    body["spec"]["worker"]["imagee"] = "x"
    strict = api.send("POST", CONFIGS, body, fieldValidation="Strict")
    assert strict.status_code == 400
    assert strict.json()["reason"] == "BadRequest"
    assert 'strict decoding error: unknown field "spec.replcas"' in strict.json()["message"]
    assert 'unknown field "spec.worker.imagee"' in strict.json()["message"]
    warned = api.send("POST", CONFIGS, body, fieldValidation="Warn", dryRun="All")
    assert warned.status_code == 201
    assert r'299 - "unknown field \"spec.replcas\""' in warned.headers["Warning"]
    assert "replcas" not in warned.json()["spec"]
    silent = api.send("POST", CONFIGS, body, fieldValidation="Ignore")
    assert silent.status_code == 201
    assert "Warning" not in silent.headers
    assert "imagee" not in silent.json()["spec"]["worker"]


def test_all_violations_are_reported_at_once(api: Api) -> None:
    body = endpoint("Bad_Name", replicas="three", instanceType="g5.xlarge", endpointName="x" * 64)
    body["spec"]["modelSourceConfig"]["modelSourceType"] = "ftp"
    body["spec"]["worker"]["modelInvocationPort"]["containerPort"] = 70000
    body["spec"]["worker"]["environmentVariables"] = [{"name": "A"}, {"name": "A"}]
    body["spec"]["worker"]["resources"]["limits"] = {"cpu": "1 core"}
    del body["spec"]["modelName"]
    answer = api.send("POST", CONFIGS, body)
    assert answer.status_code == 422
    causes = {item["field"]: item["reason"] for item in answer.json()["details"]["causes"]}
    assert causes == {
        "metadata.name": "FieldValueInvalid",
        "spec.replicas": "FieldValueTypeInvalid",
        "spec.instanceType": "FieldValueInvalid",
        "spec.endpointName": causes["spec.endpointName"],
        "spec.modelSourceConfig.modelSourceType": "FieldValueNotSupported",
        "spec.worker.modelInvocationPort.containerPort": "FieldValueInvalid",
        "spec.worker.environmentVariables[1]": "FieldValueDuplicate",
        "spec.worker.resources.limits.cpu": "FieldValueInvalid",
        "spec.modelName": "FieldValueRequired",
    }
    assert answer.json()["reason"] == "Invalid"
    assert "is invalid: [" in answer.json()["message"]


@pytest.mark.parametrize("quantity", [1, "1", "500m", "16Gi", "1e3", "0.5"])
def test_quantities_are_numbers_or_strings(api: Api, quantity: Any) -> None:
    body = endpoint("quantity")
    body["spec"]["worker"]["resources"] = {"requests": {"cpu": quantity}}
    assert api.send("POST", CONFIGS, body, dryRun="All").status_code == 201


def test_status_has_its_own_schema_and_endpoint(api: Api) -> None:
    api.ok("POST", CONFIGS, {**endpoint("status"), "status": {"state": "DeploymentComplete"}})
    path = f"{CONFIGS}/status"
    assert "status" not in api.get(path)
    wrong = api.send("PATCH", f"{path}/status", {"status": {"state": "Done"}}, kind=MERGE)
    assert wrong.status_code == 422
    assert wrong.json()["details"]["causes"][0]["field"] == "status.state"
    body = {"status": {"state": "DeploymentPending"}, "spec": {"replicas": 7}}
    changed = api.ok("PATCH", f"{path}/status", body, kind=MERGE)
    assert (changed["spec"]["replicas"], changed["metadata"]["generation"]) == (1, 1)
    ignored = api.ok("PATCH", path, {"status": {"state": "DeploymentFailed"}, "spec": {"replicas": 2}}, kind=MERGE)
    assert ignored["status"]["state"] == "DeploymentPending"
    assert (ignored["spec"]["replicas"], ignored["metadata"]["generation"]) == (2, 2)


def test_scale_reads_and_writes_replicas(api: Api) -> None:
    api.ok("POST", CONFIGS, endpoint("scaled"))
    scale = api.get(f"{CONFIGS}/scaled/scale")
    assert (scale["kind"], scale["apiVersion"], scale["spec"]["replicas"]) == ("Scale", "autoscaling/v1", 1)
    scale["spec"]["replicas"] = 4
    assert api.ok("PUT", f"{CONFIGS}/scaled/scale", scale)["spec"]["replicas"] == 4
    assert api.get(f"{CONFIGS}/scaled")["spec"]["replicas"] == 4
    assert api.send("PUT", f"{CONFIGS}/scaled/scale", scale).status_code == 409
    assert api.send("GET", f"{INFERENCE}/sagemakerendpointregistrations/none/scale").status_code == 404


def test_jumpstart_eula_defaults_to_not_accepted(api: Api) -> None:
    body = {
        "apiVersion": "inference.sagemaker.aws.amazon.com/v1",
        "kind": "JumpStartModel",
        "metadata": {"name": "jumpstart"},
        "spec": {"model": {"modelId": "m-1"}, "server": {"instanceType": "ml.g5.xlarge"}},
    }
    assert api.ok("POST", f"{INFERENCE}/jumpstartmodels", body)["spec"]["model"]["acceptEula"] is False


def test_kind_and_version_must_match_the_path(api: Api) -> None:
    body = endpoint("kind")
    assert api.send("POST", CONFIGS, {**body, "kind": "JumpStartModel"}).status_code == 400
    assert api.send("POST", CONFIGS, {**body, "apiVersion": "v1"}).status_code == 400
    del body["kind"]
    assert api.send("POST", CONFIGS, body).status_code == 400


def test_a_user_can_add_a_kind(api: Api) -> None:
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "toys.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": {"kind": "Toy", "plural": "toys", "shortNames": ["ty"]},
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "properties": {
                                "spec": {
                                    "type": "object",
                                    "required": ["size"],
                                    "properties": {"size": {"type": "integer", "minimum": 1}},
                                }
                            },
                        }
                    },
                }
            ],
        },
    }
    path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    toys = "/apis/example.com/v1/namespaces/default/toys"
    assert api.send("GET", toys).status_code == 404
    wrong = copy.deepcopy(definition)
    wrong["metadata"]["name"] = "toy.example.com"
    assert api.send("POST", path, wrong).status_code == 422
    made = api.ok("POST", path, definition)
    assert {item["type"] for item in made["status"]["conditions"]} == {"NamesAccepted", "Established"}
    toy = {"apiVersion": "example.com/v1", "kind": "Toy", "metadata": {"name": "t"}, "spec": {"size": 0}}
    assert api.send("POST", toys, toy).status_code == 422
    api.ok("POST", toys, {**toy, "spec": {"size": 2}})
    api.ok("DELETE", f"{path}/toys.example.com")
    api.gone(f"{path}/toys.example.com")
    assert api.send("GET", toys).status_code == 404


def _paths(schema: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    found = []
    for name, child in schema.get("properties", {}).items():
        found.append((*prefix, name))
        found += _paths(child, (*prefix, name))
    return found


@given(st.data())
def test_a_misspelt_field_is_found_anywhere(data: st.DataObject) -> None:
    schema = SCHEMAS[data.draw(st.sampled_from(["InferenceEndpointConfig", "JumpStartModel"]))]
    path = data.draw(st.sampled_from([path for path in _paths(schema) if path[0] == "spec"]))
    value: Any = {"zzz": 1}
    for name in reversed(path):
        value = {name: value}
    node = schema
    for name in path:
        node = node["properties"][name]
    removed = prune(value, schema)
    takes_any_key = "type" not in node or "additionalProperties" in node
    assert removed == ([] if takes_any_key else [".".join((*path, "zzz"))])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_any_json_is_judged_without_an_exception(value: Any) -> None:
    schema = SCHEMAS["InferenceEndpointConfig"]
    prune({"spec": copy.deepcopy(value)}, schema)
    fill_defaults({"spec": copy.deepcopy(value)}, schema)
    causes = validate({"spec": value}, schema)
    assert causes, "no random value is a valid endpoint"


def test_notation_refuses_an_unknown_type() -> None:
    with pytest.raises(ValueError, match="Probee"):
        Notation({}).expand({"probe": "Probee"})
