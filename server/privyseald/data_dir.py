"""The data directory: which process has it, and whose its files are."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


class TakenError(Exception):
    """Another process has the data directory."""


def take(data: Path) -> int:
    """Take the data directory for this process, until it ends or the handle is closed.

    It is the directory itself that is locked: a file for that would be the one's who came first,
    and an operator who is root must not keep the daemon out.

    Returns:
        The handle.

    Raises:
        TakenError: If another process has it.
        OSError: If it is no directory, or cannot be read.
    """
    handle = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise TakenError(f"a daemon has {data}; stop it first") from None
    return handle


def hand_over(path: Path) -> None:
    """Make a file its directory's owner's: what root writes, the daemon must read.

    Raises:
        OSError: If this process may not.
    """
    owner, has = path.parent.stat(), path.stat()
    if (owner.st_uid, owner.st_gid) != (has.st_uid, has.st_gid) and os.geteuid() == 0:
        os.chown(path, owner.st_uid, owner.st_gid)
