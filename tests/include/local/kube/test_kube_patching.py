"""Patch and selector algebra, checked on random documents."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from include.local.kube.managed import from_fields, leaves, to_fields
from include.local.kube.patching import json_patch, merge_patch, strategic_patch
from include.local.kube.selectors import label_selector, matches_selector

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.text("ab/~", max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda deeper: st.lists(deeper, max_size=3) | st.dictionaries(st.text("ab/~", max_size=2), deeper, max_size=3),
)
OBJECTS = st.dictionaries(st.text("abc", min_size=1, max_size=2), VALUES, max_size=4)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


def difference(old: Any, new: Any) -> Any:
    """The merge patch from old to new, both without nulls."""
    patch = {key: None for key in old if key not in new}
    for key, value in new.items():
        if isinstance(value, dict) and isinstance(old.get(key), dict):
            patch[key] = difference(old[key], value)
        elif key not in old or old[key] != value or type(old[key]) is not type(value):
            patch[key] = value
    return patch


@given(OBJECTS, OBJECTS)
def test_merge_patch_reaches_its_goal_and_stays_there(old: Any, new: Any) -> None:
    old, new = without_nulls(old), without_nulls(new)
    before = copy.deepcopy(old)
    patch = difference(old, new)
    assert merge_patch(old, patch) == new
    assert merge_patch(new, patch) == new
    assert old == before


@given(OBJECTS)
def test_strategic_patch_without_schema_is_a_merge_patch(patch: Any) -> None:
    document = {"a": {"b": 1}, "c": [1, 2]}
    assert strategic_patch(document, patch, {}) == merge_patch(document, patch) or "None" in repr(patch)


@given(OBJECTS, st.text("abc~/", min_size=1, max_size=3), VALUES)
def test_json_patch_add_then_remove_is_nothing(document: Any, key: str, value: Any) -> None:
    pointer = "/" + key.replace("~", "~0").replace("/", "~1")
    added = json_patch(document, [{"op": "add", "path": pointer, "value": value}])
    assert added[key] == value
    assert json_patch(added, [{"op": "test", "path": pointer, "value": value}]) == added
    removed = json_patch(added, [{"op": "remove", "path": pointer}])
    assert removed == {name: item for name, item in document.items() if name != key}


@given(OBJECTS)
def test_managed_fields_survive_their_wire_form(document: Any) -> None:
    paths = set(leaves({"spec": document, "data": document}, {}))
    assert from_fields(to_fields(paths)) == paths


LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from(["", "x", "y"]), max_size=3)


@given(LABELS, st.sampled_from("abc"), st.sets(st.sampled_from(["x", "y"]), min_size=1))
def test_selectors_and_their_opposites_split_every_object(labels: dict[str, str], key: str, values: set[str]) -> None:
    listed = ",".join(sorted(values))
    pairs = [
        (f"{key} in ({listed})", f"{key} notin ({listed})"),
        (f"{key}", f"!{key}"),
        (f"{key}=x", f"{key}!=x"),
    ]
    for yes, no in pairs:
        assert label_selector(yes)(labels) != label_selector(no)(labels)
    term = {"key": key, "operator": "In", "values": sorted(values)}
    assert matches_selector({"matchExpressions": [term]}, labels) == label_selector(f"{key} in ({listed})")(labels)
