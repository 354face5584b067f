"""Work that needs code of others, done in a process that ends with it.

The custodian has the key-encryption key for as long as it lives. A token's module or a cloud's
library would be in its memory for as long, and whatever keyholders it starts would inherit that.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
from collections.abc import Callable, Iterator

from privyseald.keyholder import process
from privyseald.keyholder.confine import confine
from privyseald.keyholder.kek import KekError
from privyseald.keyholder.keystores import HsmDownError, PinRefusedError

_SECONDS = 60.0
"""Seconds for what a token or a cloud is asked."""
_MAX_ANSWER = 4096
_ERRORS = {error.__name__: error for error in (KekError, HsmDownError, PinRefusedError, OSError)}


def apart(who: str, work: Callable[[], bytes]) -> bytes:
    """Return what some work returns that is done in a process of its own.

    Args:
        who: Who is asked, for people.
        work: The work; what it returns is at most 1,024 bytes.

    Raises:
        KekError, HsmDownError, PinRefusedError: As the work does.
        HsmDownError: If it does not end.
        OSError: If anything else is wrong.
    """
    read, write = os.pipe2(os.O_CLOEXEC)

    def run() -> int:
        confine(network=True)
        try:
            told = {"done": work().hex()}
        except (KekError, HsmDownError) as error:
            told = {"error": type(error).__name__, "text": str(error)}
        with os.fdopen(write, "wb") as pipe:
            pipe.write(json.dumps(told).encode())
        return 0

    child = process.fork(run, keep=write, env=dict(os.environ))
    os.close(write)
    with os.fdopen(read, "rb") as pipe, _handle(child) as handle:
        try:
            if not select.select([pipe], [], [], _SECONDS)[0]:
                raise HsmDownError(f"{who} did not answer")
            # All of it at once, or nothing: who has a module need not end to have answered.
            told = json.loads(os.read(pipe.fileno(), _MAX_ANSWER) or b"{}")
        except ValueError:
            raise OSError("it failed") from None
        finally:
            if handle is not None:
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(handle, signal.SIGKILL)
    if "done" not in told:
        raise _ERRORS.get(told.get("error", ""), OSError)(told.get("text", "it failed"))
    return bytes.fromhex(told["done"])


@contextlib.contextmanager
def _handle(child: int) -> Iterator[int | None]:
    """Give a handle of a process; none of one that has ended, which the kernel has reaped."""
    try:
        handle = os.pidfd_open(child)
    except ProcessLookupError:
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)
