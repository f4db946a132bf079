"""Make synthetic lengths exact: find, by the server's own tokenizer, words that are one token each."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from include.loadtest.engine.texts import LEAD

Count = Callable[[str], Awaitable[int | None]]
SAMPLE = 4


class Calibration(msgspec.Struct, frozen=True):
    """What is known of the lengths of synthetic prompts.

    :param source: ``/tokenize`` of the server, or ``none``: one word is then taken for one token, unverified.
    :param overhead: tokens that the tokenizer adds to a text of single-token words (a BOS).
    :param checked: whole prompts that were counted; ``off`` of them had another length than asked.
    """

    source: str
    words: int
    overhead: int = 0
    checked: int = 0
    off: int = 0

    @property
    def exact(self) -> bool:
        """True when every prompt that was counted had the length asked for."""
        return self.source != "none" and self.checked > 0 and self.off == 0


async def single_token_words(words: Sequence[str], count: Count) -> tuple[list[str], int] | None:
    """Return the words that are one token each after a blank, and the tokenizer's constant overhead.

    Halves a list that is not all single tokens, so a vocabulary of 900 costs a few calls. ``None`` when the server
    has no tokenizer to ask.
    """
    overhead = await _overhead(count)
    if overhead is None:
        return None
    kept: list[str] = []
    pending = [list(words)]
    while pending:
        batch = pending.pop()
        tokens = await count(f"{LEAD} {' '.join(batch)}")
        if tokens is None:
            return None
        if tokens - overhead == len(batch) + 1:
            kept += batch
        elif len(batch) > 1:
            middle = len(batch) // 2
            pending += [batch[middle:], batch[:middle]]
    return kept, overhead


async def _overhead(count: Count) -> int | None:
    """Tokens beyond one per word for the plainest text: the count of ``the`` twice as often grows by as many."""
    first = await count(" ".join([LEAD] * 4))
    second = await count(" ".join([LEAD] * 8)) if first is not None else None
    if first is None or second is None or second - first != 4:
        return None
    return first - 4


async def check(texts: Sequence[tuple[str, int]], overhead: int, count: Count) -> tuple[int, int]:
    """Count a sample of whole texts; return how many were counted and how many have another length."""
    step = max(1, math.ceil(len(texts) / SAMPLE))
    checked = off = 0
    for text, tokens in texts[::step]:
        found = await count(text)
        if found is not None:
            checked += 1
            off += found - overhead != tokens
    return checked, off
