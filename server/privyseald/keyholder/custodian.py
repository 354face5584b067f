"""The custodian process: has the key-encryption key, and starts keyholders with it.

Run as `python -m privyseald.keyholder.custodian FD SETTINGS`. Until it is open it listens on
`unseal.sock` in the data directory, which only the daemon's user can reach; shares and
passphrases come in there and pass through no other process of the daemon. Then it starts
keyholders for the daemon, each on a socket that the daemon sends: forks of itself, which have
the key, and the token's PIN if people typed it, from their first moment, and which nobody else
can read from then on. So it loads no code of others: what needs a token's module or a library
of a cloud's is done in a process that ends with it. How the key is sealed may change
meanwhile: what is open stays open. When it ends, its keyholders end.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from privyseald.keyholder import kek as keks
from privyseald.keyholder import process, unseal_socket
from privyseald.keyholder.apart import apart
from privyseald.keyholder.backup import seal_for
from privyseald.keyholder.confine import confine, name_process
from privyseald.keyholder.custody_settings import CustodySettings, environment
from privyseald.keyholder.kek import RAW, KekError, KekRecord
from privyseald.keyholder.keystores import REFUSED, HsmDownError, HsmSettings, PinRefusedError

MAX_LINE = 4096
MAX_REQUEST = 65_536
_LINE_SECONDS = 5.0
_WANTS = {"shares": "share"}


class Custodian:
    """What is known of the key.

    Args:
        record: How it is sealed; None if it is in a file as it is.
        settings: Where help may be had without people.
    """

    def __init__(self, record: KekRecord | None, settings: CustodySettings) -> None:
        self._record = record
        self._settings = settings
        self._shares: dict[str, None] = {}
        self.kek: bytes | None = None
        self.pin = ""

    @property
    def provider(self) -> str:
        """How the key is sealed, in a word."""
        return "file" if self._record is None else self._record.provider

    @property
    def wants(self) -> str:
        """What somebody must give next: passphrase, share or pin; empty if it is open."""
        token = self._settings.token
        if token is not None and token.pin_prompt and not self.pin:
            return "pin"
        return _WANTS.get(self.provider, self.provider) if self.kek is None else ""

    def try_alone(self) -> str:
        """Open the key without people, where the provider can; return why not, in words."""
        record, settings = self._record, self._settings
        try:
            if record is None:
                self.kek = keks.read_kek_file(Path(settings.data) / RAW)
            elif record.provider == "credential":
                self.kek = keks.open_credential(record)
            elif record.provider == "token" and self.wants != "pin":
                self.kek = self._from_token(record)
            elif record.provider == "aws-kms":
                self.kek = apart("the KMS", lambda: _from_aws(record))
            elif record.provider == "passphrase":
                passphrase = _passphrase(settings)
                if passphrase:
                    self.kek = keks.open_with_passphrase(record, passphrase)
        except (KekError, HsmDownError) as error:
            return str(error)
        except OSError as error:
            return f"the key-encryption key cannot be read: {error.strerror or error}"
        return ""

    def _from_token(self, record: KekRecord) -> bytes:
        if self._settings.token is None:
            raise KekError("the key-encryption key needs a token, and there is no [hsm]")
        token = replace(self._settings.token, typed=self.pin)

        def opened() -> bytes:
            # Here, so that a daemon without a token needs no PKCS #11 library.
            from privyseald.keyholder.token_kek import open_with_token

            return open_with_token(record, token)

        return apart("the token", opened)

    def look_again(self) -> None:
        """Notice that the key was sealed anew meanwhile: what opened it before does so no more."""
        with contextlib.suppress(KekError):
            record = keks.read_record(Path(self._settings.data))
            if record != self._record:
                self._record = record
                self._shares.clear()
                self.try_alone()

    def offer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Take what somebody offers, and return how far it is."""
        error, given = "", request.get(self.wants)
        try:
            if isinstance(given, str) and given:
                self._take(given)
        except KekError as refused:
            error = str(refused)
        return {
            "state": "sealed" if self.wants else "open",
            "wants": self.wants,
            "have": len(self._shares),
            "need": 1 if self._record is None else self._record.threshold,
            "error": error,
        }

    def _take(self, given: str) -> None:
        if self.wants == "pin" and keks.is_share(given):
            # Tokens lock after a few wrong PINs, and officers are a few.
            raise KekError("that is a share; the token's PIN comes first, and then the shares")
        if self.wants == "pin":
            self._try_pin(given)
        elif self._record is not None and self.wants == "passphrase":
            self.kek = keks.open_with_passphrase(self._record, given)
        elif self._record is not None and self.wants == "share":
            self._add(self._record, keks.share_words(given))

    def _try_pin(self, given: str) -> None:
        """Try a PIN that somebody typed, once: a wrong one is typed again, and not tried again."""
        token = self._settings.token
        if token is None:
            return
        # Whoever types it has looked.
        (Path(token.state) / REFUSED).unlink(missing_ok=True)
        self.pin, why = given, ""
        if self.provider == "token":
            why = self.try_alone()
        else:
            try:
                apart("the token", lambda: _log_in(replace(token, typed=given)))
            except PinRefusedError as error:
                why = str(error)
            except HsmDownError:
                # The token is away, and may come back: its keyholders will see.
                return
            except OSError:
                why = "the token's module failed"
        if why:
            self.pin = ""
            (Path(token.state) / REFUSED).unlink(missing_ok=True)
            raise KekError(f"{why}; type it again, and mind that tokens lock after a few")

    def _add(self, record: KekRecord, share: str) -> None:
        if keks.share_id(share) != record.params.get("id"):
            raise KekError("that is a share of another set; was the key sealed anew since?")
        self._shares[share] = None
        if len(self._shares) >= record.threshold:
            try:
                self.kek = keks.join(record, list(self._shares))
            except KekError:
                # One of them is wrong, and nobody can say which but by trying others.
                self._shares.clear()
                raise
            self._shares.clear()


def _from_aws(record: KekRecord) -> bytes:
    # Here, so that a daemon without it needs no library of AWS.
    from privyseald.keyholder.aws_kek import open_with_aws

    return open_with_aws(record)


def _log_in(token: HsmSettings) -> bytes:
    # Here, so that a daemon without a token needs no PKCS #11 library.
    from privyseald.keyholder.hsm_session import log_in, token_errors

    with token_errors():
        log_in(token).close()
    return b""


def _passphrase(settings: CustodySettings) -> str:
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    path = settings.passphrase_file
    if settings.passphrase_credential:
        path = str(Path(folder) / Path(settings.passphrase_credential).name)
    if not path:
        return ""
    try:
        return Path(path).read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError):
        raise KekError("the file with the passphrase cannot be read") from None


def _unseal(custodian: Custodian, listener: socket.socket) -> None:
    """Answer who unseals it, one after the other, until it is open."""
    while custodian.wants:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.settimeout(_LINE_SECONDS)
            line = b""
            while not line.endswith(b"\n") and len(line) < MAX_LINE:
                chunk = connection.recv(MAX_LINE)
                if not chunk:
                    break
                line += chunk
            try:
                request = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(request, dict):
                custodian.look_again()
                answer = custodian.offer(request)
                connection.sendall(json.dumps(answer).encode() + b"\n")


def _serve(link: socket.socket, custodian: Custodian, settings: CustodySettings) -> None:
    """Do what the daemon asks for, until it goes."""
    while True:
        message, handles, _, _ = socket.recv_fds(link, MAX_REQUEST, 2)
        if not message:
            return
        try:
            asked = json.loads(message)
            if asked.get("op") == "spawn" and len(handles) == 2:
                _start(custodian, settings if asked["token"] else None, *handles)
            elif asked.get("op") == "backup" and custodian.kek is not None and handles:
                with os.fdopen(os.dup(handles[0]), "wb") as pipe:
                    pipe.write(_backup(custodian.kek, str(asked["id"]), settings))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            process.say(f"custodian could not answer: {type(error).__name__}\n")
        finally:
            for handle in handles:
                os.close(handle)


def _start(custodian: Custodian, settings: CustodySettings | None, link: int, reply: int) -> None:
    """Start a keyholder on a socket, and reply with a handle of the process."""
    token = settings.token if settings is not None else None
    secrets = process.Secrets(custodian.kek or b"", custodian.pin)
    parent = os.getpid()
    child = process.fork(
        lambda: process.serve(link, secrets, token, parent), keep=link, env=environment(token)
    )
    # Nobody waits for it here: the kernel reaps it (SIGCHLD is ignored).
    handle = os.pidfd_open(child)
    try:
        with socket.socket(fileno=os.dup(reply)) as to:
            socket.send_fds(to, [str(child).encode()], [handle])
    finally:
        os.close(handle)


def _backup(kek: bytes, backup: str, settings: CustodySettings) -> bytes:
    """Seal the key for the recipients that this process was started with; nothing for none."""
    recipients = [bytes.fromhex(key) for key in settings.recipients]
    try:
        return seal_for(kek, backup, settings.threshold, recipients).to_json()
    except (ValueError, KekError):
        return b""


def _of_this_one(token: dict[str, Any]) -> HsmSettings:
    return replace(HsmSettings(**token), custodian=secrets.token_hex(8))


def main() -> int:
    """Open the key, give it to who asks, end with the daemon."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    given = json.loads(sys.argv[2])
    token = given.pop("token")
    settings = CustodySettings(**given, token=_of_this_one(token) if token else None)
    folder = Path(settings.data)
    try:
        record = keks.read_record(folder)
        away = record is not None and record.provider == "aws-kms"
        # A token's module, in keyholders that inherit this, may reach its device over it.
        confine(network=away or token is not None)
        name_process("custodian")
    except (OSError, KekError) as error:
        process.say(f"custodian cannot start: {error}\n")
        return 1
    custodian = Custodian(record, settings)
    with socket.socket(fileno=int(sys.argv[1])) as link:
        why = custodian.try_alone()
        if custodian.wants:
            link.send(f"sealed {custodian.provider} {why}".strip().encode()[:1000])
            if custodian.wants not in {"passphrase", "share", "pin"}:
                # Nobody can help but who mends what is missing; another process tries again.
                threading.Event().wait(2)
                return 1
            try:
                listener = unseal_socket.listen(folder)
            except FileExistsError:
                # Its officers are at work on it: their way in is not taken from them.
                process.say("another sealed daemon has this data directory\n")
                threading.Event().wait(2)
                return 1
            except OSError as error:
                process.say(f"nobody can unseal it: unseal.sock: {error.strerror}\n")
                threading.Event().wait(2)
                return 1
            with listener:
                _unseal(custodian, listener)
            (folder / unseal_socket.NAME).unlink(missing_ok=True)
        if custodian.kek is None:
            return 1
        link.send(b"open")
        _serve(link, custodian, settings)
    return 0


if __name__ == "__main__":
    sys.exit(main())
