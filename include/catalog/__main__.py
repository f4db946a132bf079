"""``python -m include.catalog``: check the catalog and list what is in it."""

from __future__ import annotations

import sys

from include.catalog.loader import load_catalog
from include.errors import ConfigurationError


def main() -> int:
    """Print the names in the catalog, or every problem in it; 1 when there is one."""
    try:
        catalog = load_catalog()
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
    sys.exit(main())
