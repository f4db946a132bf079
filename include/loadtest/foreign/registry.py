"""The foreign engines by name."""

from __future__ import annotations

from include.errors import ConfigurationError
from include.loadtest.foreign.aiperf import AiPerf
from include.loadtest.foreign.base import ForeignEngine
from include.loadtest.foreign.guidellm import GuideLlm
from include.loadtest.foreign.inference_perf import InferencePerf
from include.loadtest.foreign.vllm_bench import VllmBench

ENGINES: dict[str, ForeignEngine] = {
    engine.name: engine for engine in (VllmBench(), GuideLlm(), AiPerf(), InferencePerf())
}


def engine(name: str) -> ForeignEngine:
    """Return an engine.

    :raises ConfigurationError: there is none of this name.
    """
    if name not in ENGINES:
        raise ConfigurationError(
            "UnknownEngine", f"there is no load engine {name}", fix=f"Choose one of {', '.join(sorted(ENGINES))}."
        )
    return ENGINES[name]
