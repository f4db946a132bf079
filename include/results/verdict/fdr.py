"""False discoveries among the many series of one night."""

from __future__ import annotations

from collections.abc import Sequence


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Return Benjamini–Hochberg q-values in the order given (Benjamini & Hochberg 1995).

    Rejecting all with q ≤ 0.1 keeps the expected share of false ones among them at or below 10 %, for independent
    series and for positively dependent ones, as metrics of one run are (Benjamini & Yekutieli 2001).
    """
    order = sorted(range(len(p_values)), key=lambda place: p_values[place])
    found = [1.0] * len(p_values)
    running = 1.0
    for rank in range(len(order), 0, -1):
        place = order[rank - 1]
        running = min(running, p_values[place] * len(order) / rank)
        found[place] = running
    return found
