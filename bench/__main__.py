"""Measure ours beside its peers: ``make bench`` for everything, ``make bench AREA=staging`` for one area.

An area is a module of this package with a ``main(arguments)`` that writes ``var/bench/<area>.json``.
"""

from __future__ import annotations

import importlib
import json
import sys

from bench import common

AREAS = (
    "dags",
    "lifecycle",
    "loadtest",
    "results",
    "staging",
)


def main(arguments: list[str]) -> int:
    """Run the areas that are asked for; returns the number of areas that could not be measured."""
    asked = [name for given in arguments for name in given.replace(",", " ").split()] or list(AREAS)
    unknown = sorted(set(asked) - set(AREAS))
    if unknown:
        print(f"AREA={' '.join(unknown)}: no such area; there are {', '.join(AREAS)}", file=sys.stderr)
        return 2
    failed = 0
    for area in asked:
        print(f"== {area}", flush=True)
        if importlib.import_module(f"bench.{area}").main([]):
            failed += 1
            continue
        print(common.table(json.loads((common.OUT / f"{area}.json").read_text())), flush=True)
    return failed


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
