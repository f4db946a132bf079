"""Several Prometheus pages as one figure: counts add up, shares are averaged, counters are followed one by one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping

import msgspec

Points = list[tuple[int, float]]
# Shares and states: of eight GPUs at 50 %, the endpoint's is 50 %.
_MEANS = re.compile(r"(perc|token_usage|_util|utilization|ratio|_rate|_temp|_clock|_active)$", re.IGNORECASE)


class Observed(msgspec.Struct, frozen=True):
    """One sample of one page.

    :param round: of scraping; pages of one round belong together although each has its own time.
    :param at: Unix ns.
    """

    round: int
    at: int
    url: str
    name: str
    labels: str
    value: float


class Series:
    """Samples by metric and series, which is a page's URL with the labels."""

    def __init__(self, samples: Iterable[Observed]) -> None:
        self._values: dict[str, dict[tuple[str, str], dict[int, float]]] = {}
        self._times: dict[str, dict[int, int]] = {}
        for sample in samples:
            series = self._values.setdefault(sample.name, {}).setdefault((sample.url, sample.labels), {})
            series[sample.round] = sample.value
            self._times.setdefault(sample.url, {})[sample.round] = sample.at

    @property
    def names(self) -> list[str]:
        """Metrics that were seen."""
        return sorted(self._values)

    def of(self, name: str) -> Mapping[tuple[str, str], Mapping[int, float]]:
        """Return each series of a metric: its values by round."""
        return self._values.get(name, {})

    def gauge(self, name: str) -> Points:
        """Return a metric over all pages and labels, one value for each round, at the mean of its pages' times.

        A series that a round lacks, because its page was not answered, has its last value as long as it comes back.
        """
        series = self.of(name)
        last = {key: max(values) for key, values in series.items()}
        held: dict[tuple[str, str], float] = {}
        found: Points = []
        for number in sorted({number for values in series.values() for number in values}):
            held |= {key: values[number] for key, values in series.items() if number in values}
            held = {key: value for key, value in held.items() if last[key] >= number}
            times = [self._times[url][number] for url in {url for url, _ in held} if number in self._times[url]]
            total = sum(held.values())
            found.append((sum(times) // len(times), total / len(held) if _MEANS.search(name) else total))
        return found

    def growth(self, name: str) -> Iterator[Points]:
        """Yield for each series of a counter how much it has grown until when; a smaller value is a new beginning."""
        for (url, _), values in self.of(name).items():
            times, numbers = self._times[url], sorted(values)
            grown, before, found = 0.0, values[numbers[0]], []
            earlier = [number for number in times if number < numbers[0]]
            if earlier:  # the page was there, and had counted nothing under these labels
                before = 0.0
                found.append((times[max(earlier)], 0.0))
            for number in numbers:
                value = values[number]
                grown += value - before if value >= before else value
                before = value
                found.append((times[number], grown))
            yield found
