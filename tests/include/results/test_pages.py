"""The pages' parts: nothing is markup by accident, knees are found, ticks are round."""

from __future__ import annotations

import html
import re

from hypothesis import given, settings
from hypothesis import strategies as st

from include.results.pages.chart import spread, ticks
from include.results.pages.curve import knee
from include.results.pages.html import el, link, table

hostile = st.text(st.sampled_from("<>&\"'= a/\n;"), max_size=30)


@settings(max_examples=100, deadline=None)
@given(hostile, hostile)
def test_text_and_attributes_are_never_markup(text: str, value: str) -> None:
    made = el("p", text, title=value)
    found = re.fullmatch(r'<p title="([^"<>]*)">([^<>]*)</p>', made, re.DOTALL)
    assert found is not None
    assert (html.unescape(found[1]), html.unescape(found[2])) == (value, text)
    assert table(text or "t", ["a"], [[text]]).count("<td") == 0
    assert re.fullmatch(r'<a href="run\?path=[^"<>]*">[^<>]*</a>', link(text, "run", path=value or "x")) is not None


def test_the_knee_of_a_public_curve() -> None:
    """Llama-3.3-70B on one OCI node: beyond 128 streams throughput falls while TTFT triples."""
    points = [(58.0, 50.0), (425.0, 70.0), (1297.0, 160.0), (2315.0, 1290.0), (1977.0, 4090.0)]
    assert knee(points) in (2, 3)
    assert knee(points[:2]) is None
    assert knee([(float(n), float(n)) for n in range(5)]) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6).map(lambda value: round(value, 3)), min_size=1, max_size=9))
def test_axes_hold_all_values_and_ticks_stay_on_them(values: list[float]) -> None:
    low, high = spread(values)
    assert low <= min(values) <= max(values) <= high
    assert all(low - 1e-6 <= tick <= high + (high - low) for tick in ticks(low, high))
    assert len(ticks(low, high)) <= 12
