"""The fault matrix itself: complete, repeatable, and able to see a leak."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.census import FOREIGN, Bait
from tests.chaos.matrix import KILLS, STEPS, matrix, points


def test_the_default_matrix_has_every_process_at_every_step_twice() -> None:
    hit = Counter(str(one.point) for one in matrix(7, 2 * len(points())))
    assert all(hit[f"{step}/{target}"] == 2 for step in STEPS for target in KILLS)
    assert set(hit.values()) == {2}


@given(st.integers(), st.integers(2, 300))
def test_a_seed_gives_the_same_matrix_again_and_no_point_comes_once(seed: int, count: int) -> None:
    first = matrix(seed, count)
    assert first == matrix(seed, count)
    assert len(first) == count
    hit = sorted(Counter(one.point for one in first).values())
    assert hit[1:] == [] or min(hit[1:]) >= 2, "an odd count leaves at most one point alone"


def test_one_injection_is_refused() -> None:
    with pytest.raises(ValueError, match="N=1"):
        matrix(1, 1)


def test_a_leak_and_a_replaced_foreign_object_are_seen_and_moving_pods_are_not() -> None:
    bait = Bait({"Lease default/theirs": "1", "Pod default/theirs-a": "2"})
    now = {"Lease default/theirs": "9", f"Pod default/{FOREIGN}-b": "3", "sagemaker Model ours": "4"}
    assert bait.harmed(now) == ["Lease default/theirs"]
    assert bait.leaked(now) == ["sagemaker Model ours"]
