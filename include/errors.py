"""The one exception family of the pipelines: a reason to count by, a sentence to read, a fix to try."""

from __future__ import annotations

from enum import StrEnum


class FailureClass(StrEnum):
    """What a failure means for a retry."""

    CONFIGURATION = "configuration"  # a person must change something: never retried
    INTEGRITY = "integrity"  # bytes or identity are not what was recorded: never retried
    RESULT = "result"  # it was measured and it is bad: that is the answer, never retried
    CAPACITY = "capacity"  # nothing is wrong, there is no room yet: wait, then retry
    TRANSIENT = "transient"  # a flake of a network or an API: retry
    INTERNAL = "internal"  # a defect of ours, or something nobody has classified: retry


NEVER_RETRIED = frozenset({FailureClass.CONFIGURATION, FailureClass.INTEGRITY, FailureClass.RESULT})


class PipelineError(Exception):
    """A failure that a person can act on.

    :param reason: CamelCase code, stable, for counting and matching (``ImagePullBackOff``).
    :param message: one sentence: what was observed, with the names and values involved.
    :param fix: one sentence: what to do about it.
    :param failure_class: decides whether a retry makes sense.
    :param evidence: raw lines (events, log tails, API answers) that support the message.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        fix: str = "",
        failure_class: FailureClass = FailureClass.INTERNAL,
        evidence: tuple[str, ...] = (),
    ) -> None:
        super().__init__(reason, message)
        self.reason = reason
        self.message = message
        self.fix = fix
        self.failure_class = FailureClass(failure_class)
        self.evidence = tuple(evidence)

    @property
    def retryable(self) -> bool:
        """False when running the same thing again cannot help."""
        return self.failure_class not in NEVER_RETRIED

    def __str__(self) -> str:
        fix = f" Fix: {self.fix}" if self.fix else ""
        return f"{self.reason}: {self.message}{fix}"

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.__dict__)


class ConfigurationError(PipelineError):
    """Bad input; carries every problem found, not only the first."""

    def __init__(self, reason: str, message: str, *, fix: str = "", evidence: tuple[str, ...] = ()) -> None:
        super().__init__(reason, message, fix=fix, failure_class=FailureClass.CONFIGURATION, evidence=evidence)


class IntegrityError(PipelineError):
    """Bytes or identities differ from what was recorded."""

    def __init__(self, reason: str, message: str, *, fix: str = "", evidence: tuple[str, ...] = ()) -> None:
        super().__init__(reason, message, fix=fix, failure_class=FailureClass.INTEGRITY, evidence=evidence)


def _rebuild(cls: type[PipelineError], state: dict[str, object]) -> PipelineError:
    error = cls.__new__(cls)
    Exception.__init__(error, state["reason"], state["message"])
    error.__dict__.update(state)
    return error
