"""Cross-field rules of the custom resources that no schema has: the operator finds them when it reconciles."""

from __future__ import annotations

from include.local.controller.resources import Object


def problems(item: Object) -> list[str]:
    """Return what is wrong with a custom resource, as sentences. Pure."""
    spec = item["spec"]
    found = _common(spec)
    if item["kind"] == "JumpStartModel":
        if not spec["model"].get("acceptEula"):
            found.append("spec.model.acceptEula must be true to deploy this model")
        return found
    return found + _source(spec["modelSourceConfig"]) + _placement(spec)


def _common(spec: Object) -> list[str]:
    found = []
    if spec.get("dnsConfig") and not (spec.get("tlsConfig") or {}).get("customCertificateConfig"):
        found.append("spec.dnsConfig requires spec.tlsConfig.customCertificateConfig")
    routed = (spec.get("intelligentRoutingSpec") or {}).get("enabled")
    if routed and (spec.get("inferenceGateway") or {}).get("enabled"):
        found.append("spec.inferenceGateway and spec.intelligentRoutingSpec.enabled exclude each other")
    return found


def _placement(spec: Object) -> list[str]:
    given = [name for name in ("instanceType", "instanceTypes", "nodeAffinity") if spec.get(name)]
    if len(given) == 1:
        return []
    return [f"exactly one of spec.instanceType, instanceTypes, nodeAffinity is needed, found {given or 'none'}"]


def _source(source: Object) -> list[str]:
    kind = source["modelSourceType"]
    needed = {"s3": "s3Storage", "fsx": "fsxStorage", "huggingface": "huggingFaceModel"}.get(kind)
    if needed and not source.get(needed):
        return [f"spec.modelSourceConfig.{needed} is required for modelSourceType {kind}"]
    return []
