"""One request from its due time to its end: what the wire code fills in and the recorder writes down."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from include.loadtest.spool import Row

if TYPE_CHECKING:
    from include.loadtest.engine.prompts import Ask

ERROR_TEXT = 200


class Exchange:
    """A request in flight. Times are monotonic ns, 0 = not yet."""

    __slots__ = (
        "ask", "bytes_in", "cached_tokens", "connect_ns", "done", "end", "error", "error_class",
        "finish_reason", "first_byte", "first_token", "idle_ns", "input_tokens", "marks", "output_tokens", "phase",
        "ready", "resent", "reused", "scheduled", "sent", "status", "texts", "tool_calls",
    )  # fmt: skip

    def __init__(self, ask: Ask, scheduled: int, phase: str) -> None:
        self.ask = ask
        self.phase = phase
        self.scheduled = scheduled
        self.ready = 0
        self.sent = 0
        self.first_byte = 0
        self.first_token = 0
        self.end = 0
        self.marks = array("q")
        self.input_tokens = -1
        self.output_tokens = -1
        self.cached_tokens = -1
        self.status = 0
        self.error_class = ""
        self.error = ""
        self.finish_reason = ""
        self.bytes_in = 0
        self.connect_ns = 0
        self.idle_ns = 0
        self.reused = False
        self.resent = 0
        self.done = False
        self.texts: list[str] | None = [] if ask.keep_text else None
        self.tool_calls: list[object] | None = None

    def fail(self, error_class: str, error: str = "") -> None:
        """Note the first thing that went wrong; later ones follow from it."""
        if not self.error_class:
            self.error_class = error_class
            self.error = error[:ERROR_TEXT]

    @property
    def ok(self) -> bool:
        """True when the answer arrived whole."""
        return not self.error_class

    def request_id(self, salt: str) -> str:
        """Return the id that the request carries as ``x-request-id``: ``<salt>-<phase><index>[.<turn>]``."""
        ask = self.ask
        name = f"{salt}-{self.phase[0]}{ask.index}"
        return f"{name}.{ask.turn}" if ask.turn else name

    @property
    def text(self) -> str:
        """The answer, when it is kept."""
        return "".join(self.texts or ())

    def row(self, salt: str) -> Row:
        """Return the record."""
        ask, marks = self.ask, self.marks
        return Row(
            self.request_id(salt), ask.index, self.phase, ask.session, ask.turn, ask.group, ask.prompt,
            self.scheduled, self.ready, self.sent, self.first_byte, self.first_token, marks[-1] if marks else 0,
            self.end, marks.tobytes(), self.input_tokens, self.output_tokens, self.cached_tokens, ask.input_tokens,
            ask.output_tokens, self.status, self.error_class, self.error, self.finish_reason, self.bytes_in,
            self.connect_ns, self.reused, self.resent,
        )  # fmt: skip
