"""The notifier that needs no account: the task's log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from airflow.sdk import BaseNotifier

if TYPE_CHECKING:
    from airflow.sdk import Context


class LogNotifier(BaseNotifier):
    """Write an alert into the log.

    :param message: what to write (templated).
    """

    template_fields: Sequence[str] = ("message",)

    def __init__(self, message: str = "{{ alert }}") -> None:
        super().__init__()
        self.message = message

    def notify(self, context: Context) -> None:  # noqa: ARG002 (the interface's)
        """Write it."""
        self.log.warning("%s", self.message)
