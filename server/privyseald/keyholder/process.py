"""The keyholder process: reads requests from its socket, answers, and knows nothing else.

The custodian forks it, and it never runs another program: what is executed can be read by its
own user for a moment, before it confines itself, and whoever has its memory open by then keeps
reading. A fork of a confined process is confined from the first instruction.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from privyseald.keyholder import wire
from privyseald.keyholder.confine import confine, is_confined, name_process
from privyseald.keyholder.keystore import SoftwareKeystore
from privyseald.keyholder.keystores import HsmSettings, Keystores
from privyseald.keyholder.v1 import keyholder_pb2 as pb
from privyseald.keyholder.worker import Worker

TOKEN_WAIT = 1.0
"""Seconds after which a process without its token ends, so that a fresh one tries."""
TOKEN_FAILED = 75
_LOOK = 1.0
"""Seconds between looks at a token that nobody asks anything of."""
ANSWER_WAIT = 0.001
"""Seconds for which an answer waits for others that are made at once."""
_STANDARD = 3


@dataclass(frozen=True)
class Secrets:
    """What a keyholder is born with.

    Attributes:
        kek: The key-encryption key, 32 bytes.
        pin: The token's PIN, if people typed it.
    """

    kek: bytes = field(repr=False)
    pin: str = field(default="", repr=False)


def fork(work: Callable[[], int], *, keep: int, env: dict[str, str]) -> int:
    """Fork a process that does some work and ends with what that returns.

    Args:
        work: What it does.
        keep: The one file that it keeps open, besides the standard ones.
        env: Its environment.

    Returns:
        Its process id.
    """
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        os.closerange(_STANDARD, keep)
        os.closerange(keep + 1, os.sysconf("SC_OPEN_MAX"))
        os.environ.clear()
        os.environ.update(env)
        code = work()
    except BaseException as error:  # noqa: BLE001 - whatever it is, it must not go on as its parent
        say(f"a process of the custodian failed: {type(error).__name__}\n")
    finally:
        os._exit(code)


def say(text: str) -> None:
    """Write a line to standard error, if somebody listens."""
    # Past Python's own buffer, which is not flushed; and nobody may be listening.
    with contextlib.suppress(OSError):
        os.write(2, text.encode())


def serve(handle: int, secrets: Secrets, settings: HsmSettings | None, parent: int) -> int:
    """Be a keyholder: serve a socket until it closes, or the token fails.

    Args:
        handle: The socket.
        secrets: What opens the keys.
        settings: The token, if this process has one.
        parent: The id of the custodian's process.
    """
    # The terminal's signals are for the daemon, which closes the socket when it is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Searches in a token that went away complain when they are collected, with a trace.
    sys.unraisablehook = lambda _: None
    try:
        if not is_confined():
            raise OSError("its user can read it")
        name_process("keyholder-token" if settings is not None else "keyholder")
        missed = confine(network=settings is not None)
        if os.getppid() != parent:
            raise OSError("the custodian has gone")
        if settings is not None and secrets.pin:
            settings = replace(settings, typed=secrets.pin)
        keystores = Keystores.make(SoftwareKeystore(secrets.kek), settings)
    except (OSError, ValueError) as error:
        say(f"keyholder cannot start: {type(error).__name__}: {error.args[-1]}\n")
        return 1
    ready = pb.Ready(missed=missed, token_error=keystores.token_error)
    with socket.socket(fileno=handle) as link:
        link.sendall(wire.frame(pb.Response(id=0, ready=ready).SerializeToString()))
        return _answer(link, Worker(keystores), keystores)


def _answer(link: socket.socket, worker: Worker, keystores: Keystores) -> int:
    buffer = bytearray()
    # Processes that wait for the same token do not all end at once.
    end = time.monotonic() + TOKEN_WAIT * (0.5 + os.getpid() % 8 / 16)
    looked = time.monotonic()
    while True:
        failed = worker.token_failed or keystores.token_error
        if failed and time.monotonic() > end and keystores.wants_restart():
            return TOKEN_FAILED
        if not select.select([link], [], [], TOKEN_WAIT / 4 if keystores.hsm else None)[0]:
            if time.monotonic() - looked > _LOOK:
                worker.look()
                looked = time.monotonic()
            continue
        chunk = link.recv(262144)
        if not chunk:
            return 0
        buffer += chunk
        answers, since = bytearray(), time.monotonic()
        for message in wire.unframe(buffer):
            response = worker.answer(pb.Request.FromString(message))
            answers += wire.frame(response.SerializeToString())
            # Fast answers go together, since each message wakes the daemon.
            if (now := time.monotonic()) - since > ANSWER_WAIT:
                link.sendall(answers)
                answers, since = bytearray(), now
        link.sendall(answers)
