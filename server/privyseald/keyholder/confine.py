"""Takes from the keyholder process what it does not need: dumps, network, privileges."""

from __future__ import annotations

import ctypes
import os
import resource
import signal

_PR_SET_PDEATHSIG = 1
_PR_GET_DUMPABLE = 3
_PR_SET_DUMPABLE = 4
_PR_SET_NAME = 15
_PR_SET_NO_NEW_PRIVS = 38
_MCL_CURRENT_AND_FUTURE = 3
_CLONE_NEWNET = 0x40000000


def confine(*, network: bool = False) -> list[str]:
    """Confine this process and return what could not be done, for the log.

    No core dumps and no ptrace by its own user; dies with its parent; gains no privileges.
    Where it may, it also locks its memory against swapping and leaves the network
    namespace; both need a privilege and are best effort.

    Args:
        network: Keep the network: a token's module may reach its device over it.

    Raises:
        OSError: If dumps cannot be turned off.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    for option, value in (
        (_PR_SET_DUMPABLE, 0),
        (_PR_SET_NO_NEW_PRIVS, 1),
        (_PR_SET_PDEATHSIG, int(signal.SIGKILL)),
    ):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option} failed")
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    missed = []
    if network or libc.unshare(_CLONE_NEWNET) != 0:
        missed.append("own network namespace")
    if libc.mlockall(_MCL_CURRENT_AND_FUTURE) != 0:
        missed.append("locked memory")
    os.umask(0o077)
    return missed


def is_confined() -> bool:
    """Say whether other processes of its user are kept from reading this one."""
    return int(ctypes.CDLL(None).prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 0


def name_process(name: str) -> None:
    """Give this process the name that people see, of at most 15 bytes."""
    ctypes.CDLL(None).prctl(_PR_SET_NAME, name.encode(), 0, 0, 0)
