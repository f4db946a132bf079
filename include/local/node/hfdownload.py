"""The ``hf-model-downloader`` init container: a repository at one commit into the model volume.

Reads ``HF_MODEL_ID``, ``HF_COMMIT_SHA`` and ``HF_TOKEN``; ``HF_ENDPOINT`` names another hub.
"""

from __future__ import annotations

import argparse
import os
import sys


def main() -> int:
    """Download; exit code 1 with the reason on standard output when it fails."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    parser = argparse.ArgumentParser(prog="python -m include.local.node.hfdownload", description=__doc__)
    parser.add_argument("--target", required=True)
    given = parser.parse_args()
    repository, commit = os.environ["HF_MODEL_ID"], os.environ.get("HF_COMMIT_SHA") or None
    try:
        folder = snapshot_download(repository, revision=commit, local_dir=given.target)
    except (HfHubHTTPError, OSError, ValueError) as error:
        sys.stdout.write(f"{type(error).__name__}: cannot download {repository}@{commit}: {error}\n")
        return 1
    sys.stdout.write(f"downloaded {repository}@{commit} to {folder}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
