"""Synthetic text: so many words, each one token, begun by a salt that no other request or run has.

The first word has no blank before it, and many a word is one token only after a blank: it is always the same plain one.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from hashlib import blake2b

LEAD = "the"
SALT_WORDS = 6
CORPUS_WORDS = 16_384


class Corpus:
    """A fixed random sequence of words; a text is a slice of it, so that even a long one costs a copy.

    :param vocabulary: words that are one token each, without white space.
    :param seed: the same seed gives the same corpus.
    """

    def __init__(self, vocabulary: Sequence[str], seed: int) -> None:
        self._vocabulary = vocabulary
        self._words = random.Random(seed).choices(vocabulary, k=CORPUS_WORDS)

    def text(self, words: int, key: str) -> str:
        """Return ``words`` words; different keys differ within the first seven words, equal keys are equal."""
        salt = self._salt(key)
        if words == 1:
            return salt[0]
        parts = [LEAD, *salt]
        if words <= len(parts):
            return " ".join(parts[:words])
        left = words - len(parts)
        start = int.from_bytes(blake2b(key.encode(), digest_size=8).digest()) % CORPUS_WORDS
        while left > 0:
            piece = self._words[start : start + left]
            parts = parts + piece
            left -= len(piece)
            start = 0
        return " ".join(parts)

    def _salt(self, key: str) -> list[str]:
        number = int.from_bytes(blake2b(key.encode(), digest_size=16, person=b"salt").digest())
        base = len(self._vocabulary)
        salt = []
        for _ in range(SALT_WORDS):
            number, place = divmod(number, base)
            salt.append(self._vocabulary[place])
        return salt
