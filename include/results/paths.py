"""Names in the store that no input can turn into another place."""

from __future__ import annotations

import hashlib
import re

_UNSAFE = re.compile(r"[^A-Za-z0-9_.=+-]")


def safe_segment(text: str) -> str:
    """Return ``text`` as one path segment; a changed one carries a digest, so that two texts stay two segments."""
    kept = _UNSAFE.sub("_", text)[:80].strip(".")
    if kept == text:
        return kept
    return f"{kept or 'x'}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
