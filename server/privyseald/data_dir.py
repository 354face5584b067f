"""The data directory: whether daemons use it, and whose its files are."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class InUseError(Exception):
    """A daemon uses the data directory, or an operator changes it while none may."""


def hold(data: Path, *, alone: bool) -> int:
    """Hold the data directory, until this process ends or the handle is closed.

    It is the directory itself that is locked: a file for that would be the one's who came first,
    and an operator who is root must not keep the daemon out.

    Args:
        data: The directory.
        alone: Without any other; daemons hold it together.

    Returns:
        The handle.

    Raises:
        InUseError: If that cannot be.
        OSError: If it is no directory, or cannot be read.
    """
    handle = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if alone else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        who = "a daemon uses it; stop that first" if alone else "it is being changed; try again"
        raise InUseError(f"{data}: {who}") from None
    return handle


def hand_over(path: Path) -> None:
    """Make a file its directory's owner's: what root writes, the daemon must read.

    Raises:
        OSError: If this process may not.
    """
    owner, has = path.parent.stat(), path.stat()
    if (owner.st_uid, owner.st_gid) != (has.st_uid, has.st_gid) and os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
