"""Writes each finished request down, and keeps the few numbers that progress and the error stop need."""

from __future__ import annotations

from collections import Counter, deque
from typing import Any

from include.loadtest.engine.exchange import Exchange
from include.loadtest.spool import ROW, SpoolWriter

MEASURE = "measure"
ERROR_WINDOW = 100
ERROR_MINIMUM = 20
_RECENT = 101


class Recorder:
    """The one place that finished requests go to.

    :param stop_error_rate: share of failures among the last 100 requests (at least 20) that ends the run.
    """

    def __init__(self, spool: SpoolWriter, salt: str, stop_error_rate: float | None, keep_texts: int) -> None:
        self._spool = spool
        self._salt = salt
        self._limit = stop_error_rate
        self._outcomes: deque[bool] = deque(maxlen=ERROR_WINDOW)
        self._recent_ttft: deque[int] = deque(maxlen=_RECENT)
        self._keep_texts = keep_texts
        self.texts: list[tuple[str, int]] = []
        self.failures: Counter[str] = Counter()
        self.finished = 0
        self.chunks = 0
        self.written = 0

    @property
    def wants_text(self) -> bool:
        """True while answers are still kept for the tokenizer."""
        return self._keep_texts > 0

    def text_kept(self) -> None:
        """One more request keeps its answer."""
        self._keep_texts -= 1

    def add(self, exchange: Exchange) -> None:
        """Write the record."""
        self._spool.add(ROW, exchange.row(self._salt))
        self.written += 1
        if exchange.phase != MEASURE:
            return
        self.finished += 1
        self.chunks += len(exchange.marks)
        self._outcomes.append(exchange.ok)
        if not exchange.ok:
            self.failures[exchange.error_class] += 1
            return
        if exchange.first_token:
            self._recent_ttft.append(exchange.first_token - exchange.scheduled)
        if exchange.texts is not None and exchange.output_tokens >= 0 and len(self.texts) < 64:
            self.texts.append((exchange.text, exchange.output_tokens))

    @property
    def too_many_errors(self) -> bool:
        """True when the stated share of recent requests has failed."""
        seen = len(self._outcomes)
        if self._limit is None or seen < ERROR_MINIMUM:
            return False
        return (seen - sum(self._outcomes)) / seen > self._limit

    def progress(self) -> dict[str, Any]:
        """Return the numbers of a progress line; TTFT is the median of the last 101 requests, ms."""
        recent = sorted(self._recent_ttft)
        return {
            "finished": self.finished,
            "failed": sum(self.failures.values()),
            "failures": dict(self.failures),
            "chunks": self.chunks,
            "ttft_ms": round(recent[len(recent) // 2] / 1e6, 3) if recent else None,
        }
