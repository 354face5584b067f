"""What a command ends with when it does not succeed.

Exit codes: 0 done, 1 refused or failed, 2 usage, 3 cannot reach, 4 verification failed.
"""

from __future__ import annotations


class ClientError(Exception):
    """The command failed; the message is one line with the remedy.

    Args:
        message: The line.
        exit_code: Another than the class has.
        reason: The daemon's word for it (google.rpc.ErrorInfo.reason), if it refused.
    """

    exit_code = 1

    def __init__(self, message: str, exit_code: int = 0, *, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason
        if exit_code:
            self.exit_code = exit_code


class UnreachableError(ClientError):
    """The server or the storage cannot be reached."""

    exit_code = 3


class BuildError(ClientError):
    """The build directory cannot be bundled."""
