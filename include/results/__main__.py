"""Command line of the results: ``python -m include.results show|compare|verdict|confirm|import|export|cost``."""

from __future__ import annotations

import sys

from include.results.cli import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
