"""KV cache and routing: the documented limits of engines and paths."""

from __future__ import annotations

from collections.abc import Iterator

from include.endpoint.problems import Problem, problem
from include.endpoint.render.context import RenderContext

HASH_SEED = "PYTHONHASHSEED"


def engine_supports_cache(context: RenderContext) -> Iterator[Problem]:
    """The tiered KV cache and kvaware routing work with vLLM only."""
    deployment = context.model.deployment
    if deployment.kind == "JumpStartModel" or deployment.engine == "vllm":
        return
    if deployment.kv_cache is not None and (deployment.kv_cache.l1 or deployment.kv_cache.l2):
        yield problem("deployment.engine", deployment.engine, "the managed KV cache needs vllm; remove kv_cache")
    if deployment.routing == "kvaware":
        yield problem("deployment.engine", deployment.engine, "kvaware routing needs vllm; use prefixaware")
    if deployment.disaggregation is not None:
        yield problem("deployment.engine", deployment.engine, "disaggregated prefill and decode need vllm")


def second_tier(context: RenderContext) -> Iterator[Problem]:
    """Redis is yours and has an address; tiered storage is the cluster's and has none."""
    cache = context.model.deployment.kv_cache
    if cache is None:
        return
    if cache.l2 == "redis" and not cache.l2_url:
        yield problem("deployment.kv_cache.l2_url", "absent", "set redis://host:port")
    if cache.l2 != "redis" and cache.l2_url:
        yield problem("deployment.kv_cache.l2_url", cache.l2_url, "only redis has an address; remove it")
    if cache.config_file and (cache.l2 or cache.l2_url):
        yield problem("deployment.kv_cache.config_file", cache.config_file, "replaces l2; keep one of the two")


def kvaware_path(context: RenderContext) -> Iterator[Problem]:
    """The kvaware strategy cannot read chat requests."""
    deployment = context.model.deployment
    path = deployment.invocation_path
    if deployment.routing == "kvaware" and ("chat" in path or not path.endswith("completions")):
        yield problem("deployment.invocation_path", path, "kvaware reads completions only: use v1/completions")


def same_hash_seed(context: RenderContext) -> Iterator[Problem]:
    """Replicas that share cached blocks must hash them alike."""
    deployment = context.model.deployment
    cache = deployment.kv_cache
    shared = deployment.routing == "kvaware" or (cache is not None and cache.l2 is not None)
    seed = deployment.env.get(HASH_SEED)
    if shared and deployment.kind == "InferenceEndpointConfig" and not (isinstance(seed, str) and seed.isdigit()):
        yield problem(f"deployment.env.{HASH_SEED}", seed or "absent", 'set the same number for all: "123"')


def router_scaling(context: RenderContext) -> Iterator[Problem]:
    """Only a router that exists can be scaled."""
    deployment = context.model.deployment
    if deployment.router_autoscaling is not None and deployment.routing is None:
        yield problem("deployment.router_autoscaling", "present", "set routing, or remove it")


def gateway_or_router(context: RenderContext) -> Iterator[Problem]:
    """The managed gateway replaces the intelligent router."""
    deployment = context.model.deployment
    gateway = deployment.inference_gateway
    if gateway is not None and gateway.enabled and deployment.routing is not None:
        yield problem("deployment.routing", deployment.routing, "excludes inference_gateway; remove one of the two")


RULES = (engine_supports_cache, second_tier, kvaware_path, same_hash_seed, router_scaling, gateway_or_router)
