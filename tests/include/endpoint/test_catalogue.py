"""Every row of the failure catalogue provoked on a real local HyperPod: the cause, in a sentence with a fix."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from bench.catalogue import ALONE, CASES, Provoked, provoke
from bench.endpoints import workbench


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Provoked]:
    with workbench(Path(tmp_path_factory.mktemp("catalogue"))) as bench:
        return {f"{one.case.fault} {one.case.row}": one for one in asyncio.run(provoke(bench))}


@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", [f"{case.fault} {case.row}" for case in (*CASES, *ALONE)])
def test_the_cause_is_named_with_a_fix(found: dict[str, Provoked], case: str) -> None:
    one = found[case]
    verdict = one.verdict
    assert (verdict.state, verdict.row) == ("pending" if one.case.passing else "failed", one.case.row), verdict
    assert verdict.message
    assert verdict.fix
    assert "\n" not in verdict.line
