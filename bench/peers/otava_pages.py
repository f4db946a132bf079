"""Count, for each series on stdin, the nights on which Apache Otava reports a new, worse change point."""

import json
import sys

from otava.analysis import compute_change_points
from otava.series import AnalysisOptions


def pages(values, nights):
    """A change point is new when none was reported within two places of it the night before."""
    options, known, count = AnalysisOptions(), None, 0
    for night in nights:
        usable = [value for value in values[: night + 1] if value is not None]
        found, _ = compute_change_points(usable, options.window_len, options.max_pvalue, options.min_magnitude)
        worse = [point.index for point in found if point.stats.mean_2 > point.stats.mean_1]
        if known is not None:
            count += any(all(abs(index - old) > 2 for old in known) for index in worse)
        known = [point.index for point in found]
    return count


json.dump([pages(job["values"], job["nights"]) for job in json.load(sys.stdin)], sys.stdout)
