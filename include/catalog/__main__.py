"""``python -m include.catalog``: check the catalog and list what is in it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from include.catalog.loader import load_catalog
from include.errors import ConfigurationError


def main(arguments: Sequence[str]) -> int:
    """Print the names in the catalog, or every problem in it; 1 when there is one."""
    parser = argparse.ArgumentParser(prog="python -m include.catalog", description=__doc__)
    parser.add_argument(
        "folder", nargs="?", type=Path, help="with models/, clusters/, workloads/; default: the shipped"
    )
    given = parser.parse_args(arguments)
    if given.folder is not None and not given.folder.is_dir():
        parser.error(f"{given.folder} is not a folder")
    try:
        catalog = load_catalog(given.folder)
    except ConfigurationError as error:
        print(error, file=sys.stderr)
        return 1
    for what in ("models", "clusters", "workloads"):
        print(f"{what}:")
        for name, spec in getattr(catalog, what).items():
            print(f"  {name:<24} {spec.description}")
    print(f"nightly cells: {len(catalog.nightly.cells)}, prices: {len(catalog.prices.prices)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
