"""Command line of the load engine: ``python -m include.loadtest run|search|report|compare|collect``."""

from __future__ import annotations

import sys
from time import monotonic_ns

STARTED_NS = monotonic_ns()


def main(arguments: list[str]) -> int:
    """Run a command; a generator process takes the short way that imports next to nothing."""
    if arguments == ["run", "--job", "-"]:
        from include.loadtest.engine.main import main as generate

        return generate(STARTED_NS)
    from include.loadtest.cli import main as command

    return command(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
