"""Where keyholder processes get the key-encryption key from.

The daemon's own process never has it. It hands each keyholder an open file to read it from:
the end of a pipe that the custodian writes to, or, when a data directory is made, the file
that holds it.
"""

from __future__ import annotations

import array
import base64
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import structlog

from privyseald.keyholder.backup import SealedKek
from privyseald.keyholder.keystores import HsmSettings
from privyseald.model.errors import Unavailable

START_LIMIT = 30.0
_RESTART = 0.5
MODULES = ("SOFTHSM2_", "PKCS11", "P11_", "TPM2_", "YUBIHSM_", "OCK_", "CLOUDHSM_")
"""Variables by which PKCS #11 modules find their configuration."""


def _environment() -> list[str]:
    """Return the variables that a custodian may see: those of its code, credentials, modules."""
    wanted = ["PATH", "PYTHONPATH", "VIRTUAL_ENV", "HOME", "CREDENTIALS_DIRECTORY"]
    return wanted + [name for name in os.environ if name.startswith((*MODULES, "AWS_"))]


class KekSource(Protocol):
    """Gives the key-encryption key to keyholders, not to who calls it."""

    def give(self) -> int:
        """Return a file descriptor to read it from; the caller passes it on and closes it.

        Raises:
            OSError: If there is none.
            Unavailable: If the daemon is sealed.
        """
        ...


@dataclass(frozen=True)
class KekFile:
    """The key in a file as it is.

    Args:
        path: The file, which only its owner may read.
    """

    path: Path

    def give(self) -> int:
        """Return the file, open; see `KekSource`."""
        return os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)


@dataclass(frozen=True)
class CustodySettings:
    """What the custodian needs to know; nothing in it is secret.

    Attributes:
        data: The folder with kek.json, where it listens for who unseals it.
        passphrase_file: A file with the passphrase, for a start without people.
        passphrase_credential: A systemd credential with it.
        token: The token, if there is one.
    """

    data: str
    passphrase_file: str = ""
    passphrase_credential: str = ""
    token: HsmSettings | None = None


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

    def give(self) -> int:
        """Return the end of a pipe that the custodian writes to; see `KekSource`."""
        return self._ask(b"give")

    def seal_backup(self, backup: str, threshold: int, recipients: list[bytes]) -> SealedKek:
        """Have the key sealed for a quorum of recipients.

        Args:
            backup: The backup's id.
            threshold: How many open it together.
            recipients: Public keys (X25519), 32 bytes each.

        Raises:
            Unavailable: If the daemon is sealed, or the custodian fails.
        """
        asked = {
            "id": backup,
            "threshold": threshold,
            "recipients": [base64.b64encode(key).decode() for key in recipients],
        }
        try:
            with os.fdopen(self._ask(json.dumps(asked).encode()), "rb") as pipe:
                return SealedKek.from_json(pipe.read())
        except (OSError, ValueError):
            raise Unavailable(
                "the key-encryption key cannot be sealed for a backup now", reason="KEYHOLDER_DOWN"
            ) from None

    def _ask(self, message: bytes) -> int:
        """Send a request and return the pipe that its answer comes in."""
        link = self._link
        if link is None or not self.opened:
            raise Unavailable("the daemon is sealed", reason="SEALED")
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        try:
            handles = array.array("i", [theirs])
            link.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, handles)])
        except OSError:
            os.close(ours)
            raise
        finally:
            os.close(theirs)
        return ours

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
                        *(sys.executable, "-m", "privyseald.keyholder.custodian"),
                        *(str(theirs.fileno()), json.dumps(asdict(self._settings))),
                    ],
                    pass_fds=(theirs.fileno(),),
                    env={n: os.environ[n] for n in _environment() if n in os.environ},
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
