"""The operator's CustomResourceDefinitions (v1 and v1alpha1, inference chart 2.2.2), without descriptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

PLURALS = {
    "InferenceEndpointConfig": "inferenceendpointconfigs",
    "JumpStartModel": "jumpstartmodels",
    "SageMakerEndpointRegistration": "sagemakerendpointregistrations",
}


@cache
def shipped(kind: str) -> Mapping[str, Any]:
    """Return the definition of ``kind`` that was current when this version was made."""
    text = files(__name__).joinpath(f"{PLURALS[kind]}.json").read_text(encoding="utf-8")
    loaded: dict[str, Any] = json.loads(text)
    return loaded


def schema_of(definition: Mapping[str, Any], version: str = "v1") -> dict[str, Any]:
    """Return the OpenAPI v3 schema of one version.

    :raises KeyError: when the definition does not serve it.
    """
    for item in definition["spec"]["versions"]:
        if item["name"] == version and item.get("served", True):
            schema: dict[str, Any] = item["schema"]["openAPIV3Schema"]
            return schema
    raise KeyError(version)
