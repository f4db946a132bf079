"""A plan between two: some factors of one run's plan in another's, for finding out which of them is guilty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from include.catalog.plan import ReleasePlan
from include.catalog.specs import ModelSpec
from include.errors import ConfigurationError

WEIGHTS = "weights"
# Fields that only make sense together are one factor; every other field of the deployment is one of its own.
GROUPS: Mapping[str, tuple[str, ...]] = {
    "image": ("engine", "image", "command", "working_dir"),
    "arguments": ("args", "max_model_len", "served_model_name"),
    "placement": ("instance_type", "instance_types", "node_affinity", "resources", "resource_claims"),
    "replicas": ("replicas", "autoscaling", "router_autoscaling"),
    "caching": ("kv_cache", "routing"),
    "volume": ("model_source", "model_location", "volume", "fsx", "huggingface", "prefetch", "model_cache"),
}
_GROUP_OF = {field: group for group, fields in GROUPS.items() for field in fields}


def factors(good: ReleasePlan, bad: ReleasePlan) -> dict[str, tuple[str, str]]:
    """Return what differs between two plans of one model: factor → (in the good one, in the bad one), as text."""
    found: dict[str, tuple[str, str]] = {}
    if (good.model.source, good.revision) != (bad.model.source, bad.revision):
        found[WEIGHTS] = (good.revision, bad.revision)
    before, after = good.model.deployment, bad.model.deployment
    for field in type(before).model_fields:
        old, new = getattr(before, field), getattr(after, field)
        if old == new:
            continue
        factor = _GROUP_OF.get(field, field)
        earlier = found.get(factor)
        texts = f"{field}={old}", f"{field}={new}"
        found[factor] = (f"{earlier[0]}, {texts[0]}", f"{earlier[1]}, {texts[1]}") if earlier else texts
    return found


def mixed(good: ReleasePlan, bad: ReleasePlan, chosen: Iterable[str]) -> tuple[ModelSpec, str]:
    """Return model and revision of the good plan with the chosen factors of the bad one.

    :raises ConfigurationError: for a factor that does not differ.
    """
    wanted, known = set(chosen), factors(good, bad)
    if unknown := sorted(wanted - known.keys()):
        raise ConfigurationError(
            "FactorUnknown",
            f"mix = {', '.join(unknown)}: no such difference between the two plans",
            fix=f"there are: {', '.join(known) or 'none'}",
        )
    origin = bad if WEIGHTS in wanted else good
    deployment = bad.model.deployment
    fields = [name for name in type(deployment).model_fields if _GROUP_OF.get(name, name) in wanted]
    changed = good.model.deployment.model_copy(update={name: getattr(deployment, name) for name in fields})
    model = good.model.model_copy(update={"source": origin.model.source, "deployment": changed})
    return ModelSpec.model_validate(model.model_dump()), origin.revision
