"""The daemon's end of the custodian, which has the key-encryption key and starts keyholders.

The daemon's own process never has the key, nor an end of a pipe that it passes through: it
asks the custodian for a keyholder on a socket, and gets a handle of the process.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Protocol

import structlog

from privyseald.keyholder.backup import SealedKek
from privyseald.keyholder.custody_settings import CustodySettings, environment
from privyseald.model.errors import Unavailable

START_LIMIT = 30.0
_RESTART = 0.5


class Spawned:
    """A keyholder process that the custodian started.

    Args:
        pid: Its process id, for people.
        handle: A pidfd, which is of this process and no later one; taken over.
    """

    def __init__(self, pid: int, handle: int) -> None:
        self.pid = pid
        self._handle = handle

    def kill(self) -> None:
        """Kill it, if it lives."""
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(self._handle, signal.SIGKILL)

    def wait(self) -> None:
        """Return when it has gone; once."""
        gone = select.poll()
        gone.register(self._handle, select.POLLIN)
        with contextlib.suppress(OSError):
            gone.poll()
            os.close(self._handle)


class KeyholderSource(Protocol):
    """Starts keyholders."""

    def spawn(self, link: socket.socket, *, token: bool) -> Spawned:
        """Start a keyholder process on the far end of a socket, which the caller closes.

        Args:
            link: The far end.
            token: Whether it also uses the token.

        Raises:
            OSError: If it cannot be started.
            Unavailable: If the daemon is sealed.
        """
        ...


class Custody:
    """The custodian process: it alone has the key, once somebody or something opened it."""

    def __init__(self, settings: CustodySettings) -> None:
        self._settings = settings
        self._link: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping = False
        self._log = structlog.get_logger("custodian")
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._watch, daemon=True, name="custodian")
        self.opened = False
        self.told = ""
        self.on_open: Callable[[], None] = lambda: None
        """Called from another thread, each time the key was opened."""

    def start(self) -> None:
        """Start the process, and return when it has said whether it is sealed.

        Raises:
            Unavailable: If it does not start.
        """
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self.told, START_LIMIT):
                raise Unavailable("the custodian could not start", reason="KEYHOLDER_DOWN")

    def spawn(self, link: socket.socket, *, token: bool) -> Spawned:
        """Start a keyholder process; see `KeyholderSource`."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._ask({"op": "spawn", "token": token}, link.fileno(), theirs.fileno())
            ours.settimeout(START_LIMIT)
            told, handles, _, _ = socket.recv_fds(ours, 64, 1)
        if not handles:
            raise OSError("the custodian could not start a keyholder")
        return Spawned(int(told), handles[0])

    def seal_backup(self, backup: str) -> SealedKek:
        """Have the key sealed for the quorum of recipients in the settings.

        Args:
            backup: The backup's id.

        Raises:
            Unavailable: If the daemon is sealed, or the custodian fails.
        """
        asked: dict[str, object] = {"op": "backup", "id": backup}
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            with os.fdopen(ours, "rb") as pipe:
                try:
                    self._ask(asked, theirs)
                finally:
                    os.close(theirs)
                return SealedKek.from_json(pipe.read())
        except (OSError, ValueError):
            raise Unavailable(
                "the key-encryption key cannot be sealed for a backup now", reason="KEYHOLDER_DOWN"
            ) from None

    def _ask(self, request: dict[str, object], *handles: int) -> None:
        """Send a request with open files. Raises Unavailable, OSError."""
        link = self._link
        if link is None or not self.opened:
            raise Unavailable("the daemon is sealed", reason="SEALED")
        socket.send_fds(link, [json.dumps(request).encode()], handles)

    def stop(self) -> None:
        """End the process."""
        self._stopping = True
        if self._process is not None:
            self._process.kill()

    def _watch(self) -> None:
        while not self._stopping:
            try:
                self._run()
            except OSError as error:
                self._log.error("custodian failed", error=type(error).__name__)
            self.opened = False
            if not self._stopping:
                self._log.warning("custodian ended; restarting")
                time.sleep(_RESTART)

    def _run(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with ours:
            with theirs:
                self._process = subprocess.Popen(  # noqa: S603 - a fixed command, no shell
                    [
                        # -P: what lies in the working directory is none of its modules.
                        *(sys.executable, "-P", "-m", "privyseald.keyholder.custodian"),
                        *(str(theirs.fileno()), json.dumps(asdict(self._settings))),
                    ],
                    pass_fds=(theirs.fileno(),),
                    env=environment(self._settings.token, away=True),
                    stdin=subprocess.DEVNULL,
                )
            self._link = ours
            try:
                while message := ours.recv(1024):
                    self._hear(message.decode())
            finally:
                self._link = None
                self._process.kill()
                self._process.wait()

    def _hear(self, told: str) -> None:
        self._log.info("custodian", state=told)
        with self._changed:
            self.opened = told == "open"
            self.told = told
            self._changed.notify_all()
        if self.opened:
            self.on_open()
