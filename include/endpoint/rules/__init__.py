"""Rules between fields, which no schema on the server checks: they are enforced here, before any call.

Each rule is a function from a render context to the problems it found. Sources: the operator's documentation
and release notes; a rule that was only inferred says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from include.endpoint.problems import Problem
from include.endpoint.render.context import RenderContext
from include.endpoint.rules import (
    caching,
    capture,
    container,
    identity,
    kinds,
    network,
    placement,
    scaling,
    source,
)

Rule = Callable[[RenderContext], Iterable[Problem]]

RULES: tuple[Rule, ...] = (
    *identity.RULES,
    *kinds.RULES,
    *placement.RULES,
    *source.RULES,
    *container.RULES,
    *caching.RULES,
    *scaling.RULES,
    *network.RULES,
    *capture.RULES,
)


def check_rules(context: RenderContext) -> Iterator[Problem]:
    """Yield every violated rule."""
    for rule in RULES:
        yield from rule(context)
