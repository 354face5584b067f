"""Errors of the domain; each becomes one gRPC status at the edge.

The tree::

DomainError
├── InvalidArgument      a field is wrong; names it
├── Unauthenticated      no credential, or one that does not count
│   └── TokenRefused     a CI system's identity token; has detail for the log
├── PermissionDenied     nothing allows it
├── ResourceExhausted    too much in too short a time
├── NotFound
├── AlreadyExists
├── FailedPrecondition   right request, wrong state
├── OutOfRange
└── Unavailable          try again
    ├── KeysChangedError   of signing, which then chooses again
    └── CounterTakenError  of signing, which then takes the next
"""

from __future__ import annotations

from pathlib import PurePath

_FRAMES = 3


class DomainError(Exception):
    """What went wrong and what to do, in a sentence fit for the caller.

    Args:
        message: No key, token or path of the server in it.
        reason: UPPER_SNAKE_CASE, for programs (google.rpc.ErrorInfo.reason).
        field: The request's field concerned, if one is.
    """

    def __init__(self, message: str, *, reason: str, field: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.field = field


class InvalidArgument(DomainError):  # noqa: N818 - named as the status it becomes
    """A field of the request is wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}", reason="INVALID_FIELD", field=field)


class Unauthenticated(DomainError):  # noqa: N818 - named as the status it becomes
    """The caller is nobody known."""


class TokenRefused(Unauthenticated):
    """An identity token was refused.

    Args:
        message: Short, for the caller.
        reason: UPPER_SNAKE_CASE.
        detail: For the log alone: what was found.
    """

    def __init__(self, message: str, *, reason: str, detail: str = "") -> None:
        super().__init__(message, reason=reason)
        self.detail = detail


class ResourceExhausted(DomainError):  # noqa: N818 - named as the status it becomes
    """The caller asks for too much; the same call may succeed later."""


class PermissionDenied(DomainError):  # noqa: N818 - named as the status it becomes
    """No policy allows it."""


class NotFound(DomainError):  # noqa: N818 - named as the status it becomes
    """There is no such resource."""


class AlreadyExists(DomainError):  # noqa: N818 - named as the status it becomes
    """The name is taken by something else."""


class FailedPrecondition(DomainError):  # noqa: N818 - named as the status it becomes
    """The state of things does not allow it."""


class OutOfRange(DomainError):  # noqa: N818 - named as the status it becomes
    """Beyond the end."""


class Unavailable(DomainError):  # noqa: N818 - named as the status it becomes
    """Cannot be done now; the same call may succeed later."""


class KeysChangedError(Unavailable):
    """Keys or builds of the app changed between the choice of who signs and the commit."""

    def __init__(self) -> None:
        super().__init__("the app's keys changed; try again", reason="KEYS_CHANGING")


class CounterTakenError(Unavailable):
    """Another replica took the release counter; signing again takes the next."""

    def __init__(self) -> None:
        super().__init__(
            "another replica took the release counter; try again", reason="COUNTER_TAKEN"
        )


def explain(error: BaseException) -> str:
    """Return what went wrong, for the daemon's log.

    Of a fault of the daemon's own that is where it happened, and no value that it happened with:
    it could be a secret.
    """
    if isinstance(error, DomainError):
        return f"{error.reason}: {error.message}"
    places, frame = [], error.__traceback__
    while frame is not None:
        code = frame.tb_frame.f_code
        places.append(f"{PurePath(code.co_filename).name}:{frame.tb_lineno}")
        frame = frame.tb_next
    return " < ".join([type(error).__name__, *reversed(places[-_FRAMES:])])
