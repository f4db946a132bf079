"""Command line of staging: ``python -m include.staging stage|verify|list|explore|fetch|warm|deliver|collect``."""

from __future__ import annotations

import gc
import os
import sys

if __name__ == "__main__":
    # None is used; looking for them reads the metadata of every installed package.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    # Most of what a short command makes are modules, which are no garbage.
    gc.set_threshold(50_000)
    from include.staging.cli import main

    sys.exit(main(sys.argv[1:]))
