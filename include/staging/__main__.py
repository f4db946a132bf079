"""Command line of staging: ``python -m include.staging stage|verify|list|explore|fetch|warm|deliver|collect``."""

from __future__ import annotations

import sys

if __name__ == "__main__":
    from include.staging.cli import main

    sys.exit(main(sys.argv[1:]))
