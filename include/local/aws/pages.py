"""Paging as AWS's lists do it: a default page size and an opaque token."""

from __future__ import annotations

import base64
from typing import Any

from include.local.aws.errors import AwsError


def page(
    items: list[dict[str, Any]], parameters: dict[str, Any], *, default: int, largest: int = 100
) -> tuple[list[dict[str, Any]], str | None]:
    """Return one page and the token of the next, ``None`` at the end.

    :param parameters: ``MaxResults`` and ``NextToken`` as the client sent them.
    :raises AwsError: ValidationException for a size or a token that is not ours.
    """
    size = int(parameters.get("MaxResults") or default)
    if not 1 <= size <= largest:
        raise AwsError("ValidationException", f"MaxResults = {size}: must be between 1 and {largest}")
    start = _start(parameters.get("NextToken"))
    following = start + size
    token = base64.b64encode(str(following).encode()).decode() if following < len(items) else None
    return items[start:following], token


def _start(token: str | None) -> int:
    if not token:
        return 0
    try:
        return int(base64.b64decode(token, validate=True))
    except ValueError as error:
        raise AwsError("ValidationException", "NextToken is not valid") from error
