"""What goes wrong at the local hub: which requests, how often."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatch


class HubFaultKind(StrEnum):
    """What can be provoked."""

    STATUS = "status"  # answers with HTTP ``status`` (429 with Retry-After)
    CUT = "cut"  # the connection ends after ``after`` bytes of the body
    CORRUPT = "corrupt"  # one bit of the body is wrong
    EMPTY = "empty"  # the right headers, and no bytes
    EXPIRED = "expired"  # a signed address of large files is no longer taken: 403


@dataclass
class HubFault:
    """One rule.

    :param path: glob on the request's path.
    :param times: requests that it hits; ``None``: all.
    """

    kind: HubFaultKind
    path: str = "*"
    times: int | None = 1
    status: int = 503
    after: int = 0


@dataclass
class HubFaults:
    """The rules in force."""

    rules: list[HubFault] = field(default_factory=list)

    def take(self, path: str, *kinds: HubFaultKind) -> HubFault | None:
        """Return the first rule that hits this request, and count it."""
        for rule in self.rules:
            if rule.kind in kinds and rule.times != 0 and fnmatch(path, rule.path):
                if rule.times is not None:
                    rule.times -= 1
                return rule
        return None
