"""What is injected where: every target at every step, in an order and with delays that a seed decides."""

from __future__ import annotations

import random
from dataclasses import dataclass

# Between the intent and the proof of absence; each begins when its first trace is in the run's journal.
STEPS = ("announced", "applied", "waiting", "validating", "benchmarking", "recording", "deleting")
KILLS = ("worker", "triggerer", "scheduler", "api-server", "operator", "kube")
REFUSALS = (
    ("kube-500", "announced"), ("kube-409", "announced"), ("kube-lost-answer", "announced"), ("kube-429", "waiting"),
    ("kube-expired-watch", "waiting"), ("kube-timeout", "waiting"), ("kube-reset", "deleting"),
    ("kube-expired-credentials", "deleting"), ("kube-lost-answer", "deleting"), ("aws-timeout", "waiting"),
    ("aws-throttle", "waiting"), ("aws-500", "deleting"), ("aws-reset", "deleting"), ("aws-lost-answer", "deleting"),
    ("aws-expired-token", "deleting"), ("operator-orphans", "deleting"),
)  # fmt: skip
LONGEST_DELAY_S = 1.2


@dataclass(frozen=True)
class Point:
    """A target and the step at which it is hit."""

    target: str
    step: str

    def __str__(self) -> str:
        return f"{self.step}/{self.target}"


@dataclass(frozen=True)
class Injection:
    """One fault to inject.

    :param delay_s: seconds after the step's beginning, so that repeats of a point hit different instructions.
    """

    point: Point
    delay_s: float

    @property
    def is_kill(self) -> bool:
        """True for SIGKILL of a process; else an API that refuses."""
        return self.point.target in KILLS


def points() -> list[Point]:
    """Return every point."""
    kills = [Point(target, step) for step in STEPS for target in KILLS]
    return kills + [Point(target, step) for target, step in REFUSALS]


def matrix(seed: int, count: int) -> list[Injection]:
    """Return ``count`` injections: whole pairs of points, every point twice before any comes a third time.

    A count that is too small for all points takes a sample of them, still twice each.

    :raises ValueError: for a count below 2.
    """
    if count < 2:
        raise ValueError(f"N={count}: at least 2, so that a point can be hit twice")
    draw = random.Random(seed)
    every = points()
    draw.shuffle(every)
    chosen = [point for point in every for _ in range(2)][:count]
    while len(chosen) < count:
        chosen.append(draw.choice(every))
    draw.shuffle(chosen)
    return [Injection(point, draw.uniform(0, LONGEST_DELAY_S)) for point in chosen]


ORDER_OF = {step: place for place, step in enumerate(STEPS)}
