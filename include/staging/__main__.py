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

    code = main(sys.argv[1:])
    # The end of the process frees what is left; looking for cycles in it first took a tenth of a short command's time.
    gc.freeze()
    sys.exit(code)
