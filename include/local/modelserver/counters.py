"""What the server itself saw, as Prometheus text; the benchmark compares it with the client's side."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

TTFT_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


@dataclass
class Histogram:
    """A Prometheus histogram of seconds."""

    name: str
    help: str
    counts: list[int] = field(default_factory=lambda: [0] * (len(TTFT_BUCKETS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one value."""
        self.counts[bisect_left(TTFT_BUCKETS, seconds)] += 1
        self.total += seconds

    def text(self) -> str:
        """Prometheus exposition, cumulative buckets."""
        lines, below = [f"# HELP {self.name} {self.help}", f"# TYPE {self.name} histogram"], 0
        for bound, count in zip((*map(str, TTFT_BUCKETS), "+Inf"), self.counts, strict=True):
            below += count
            lines.append(f'{self.name}_bucket{{le="{bound}"}} {below}')
        lines += [f"{self.name}_sum {self.total:.6f}", f"{self.name}_count {below}"]
        return "\n".join(lines) + "\n"


@dataclass
class Counters:
    """Counters of generation requests.

    :param invocations: requests that asked for a generation, refused and broken ones included.
    :param errors: of these, the ones answered with 4xx or 5xx or cut by the engine.
    :param cancelled: of these, the ones whose client went away.
    """

    invocations: int = 0
    errors: int = 0
    cancelled: int = 0
    concurrent: int = 0
    ttft: Histogram = field(
        default_factory=lambda: Histogram(
            "model_time_to_first_token_seconds", "Seconds from a streamed request to the first bytes of its reply."
        )
    )

    def text(self) -> str:
        """Prometheus exposition."""
        rows = (
            ("model_invocations_total", "counter", "Generation requests received.", self.invocations),
            ("model_errors_total", "counter", "Generation requests that failed.", self.errors),
            ("model_cancelled_total", "counter", "Generation requests whose client left.", self.cancelled),
            ("model_concurrent_requests", "gauge", "Generation requests under way.", self.concurrent),
        )
        lines = [f"# HELP {name} {text}\n# TYPE {name} {kind}\n{name} {value}\n" for name, kind, text, value in rows]
        return "".join(lines) + self.ttft.text()
