"""Sessions with a token: whose turn it is, the one try of its PIN, what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import secrets
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Concatenate, ParamSpec, Protocol, TypeVar

import pkcs11
from pkcs11 import TokenFlag
from pkcs11.exceptions import (
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
)

from privyseald.keyholder.keystores import REFUSED, HsmDownError, HsmSettings, PinRefusedError

UNANSWERED = "hsm-pin-unanswered"
"""The file that says that the PIN was tried, and that the token has not answered yet."""
ACCEPTED = "hsm-pin-accepted"
"""The file that says where the PIN was from that the token took last; nothing of the PIN."""
TURN_WAIT, _TURN_LOOK = 2.0, 0.005
"""Seconds to wait for one's turn, less than any call may take; and between looks for it."""
_COUNTED = TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED


class Turns:
    """Takes turns at a token with the other processes of the same daemon.

    Modules that several processes use show each of them the token as others leave it half
    written: SoftHSM a token that is empty while somebody logs in, or without the key that was
    just made. Signatures need no turn. Nor does whoever waited for long: a token that takes
    its time to make a key is none that is a few files.

    Args:
        settings: The token.
    """

    def __init__(self, settings: HsmSettings) -> None:
        self._settings = settings
        self._taken = False

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Have the token to oneself; whoever has it already goes on.

        A process that dies gives its turn up.

        Raises:
            OSError: If the state's folder cannot be written to.
        """
        if self._taken:
            yield
            return
        with (Path(self._settings.state) / "hsm-turn.lock").open("wb") as lock:
            _wait_for(lock)
            self._taken = True
            try:
                yield
            finally:
                self._taken = False


def _wait_for(lock: BinaryIO) -> None:
    end = time.monotonic() + TURN_WAIT
    while time.monotonic() < end:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        time.sleep(_TURN_LOOK)


class _TakesTurns(Protocol):
    turns: Turns


_Self = TypeVar("_Self", bound=_TakesTurns)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def in_turn(
    method: Callable[Concatenate[_Self, _P], _R],
) -> Callable[Concatenate[_Self, _P], _R]:
    """Have the token to oneself while a method runs; see `Turns`. Raises HsmDownError."""

    @functools.wraps(method)
    def taken(self: _Self, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        with token_errors(), self.turns.turn():
            return method(self, *args, **kwargs)

    return taken


def log_in(settings: HsmSettings, *, again: bool = False) -> Any:
    """Return a session that is logged in; a PIN that is wrong is tried once, by one process.

    Args:
        settings: The token.
        again: Because a person says so, whatever came of the last time.

    Raises:
        HsmDownError: If that is not possible now; PinRefusedError if a person must look.
    """
    with (Path(settings.state) / "hsm-login.lock").open("wb") as lock:
        # One process at a time: the PIN is tried by one, and the others learn of it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        return _log_in(settings, again=again)


def _log_in(settings: HsmSettings, *, again: bool) -> Any:
    state = Path(settings.state)
    refused = state / REFUSED
    if refused.exists() and not again:
        raise PinRefusedError("the token refused the PIN before")
    serial = settings.serial.encode() or None
    token = pkcs11.lib(settings.module).get_token(token_label=settings.token, token_serial=serial)
    unanswered = state / UNANSWERED
    source, accepted = _source(settings), state / ACCEPTED
    if unanswered.exists() and not again:
        # That try was of a wrong PIN, though nobody lived to hear it. Not every token tells
        # that it counted one: then only a PIN that it took before is tried again.
        known = accepted.exists() and accepted.read_text() == source
        if token.flags & _COUNTED or not known:
            refused.write_text("PinIncorrect\n")
            unanswered.unlink()
            raise PinRefusedError(
                "the token counted a wrong PIN in a login that never returned"
                if token.flags & _COUNTED
                else "a login never returned, and this PIN never worked before"
            )
    pin = settings.read_pin()
    unanswered.touch()
    try:
        session = token.open(user_pin=pin, rw=True)
    except (PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
        refused.write_text(type(error).__name__ + "\n")
        unanswered.unlink()
        raise PinRefusedError("the token refused the PIN") from None
    unanswered.unlink()
    if not (accepted.exists() and accepted.read_text() == source):
        accepted.write_text(source)
    return session


def _source(settings: HsmSettings) -> str:
    """Return where the PIN is from, so that another one is from elsewhere: no digest of it.

    That of a file has its time; any other comes with the custodian, and does not change while
    that lives.
    """
    path = settings.pin_path
    if path is None:
        return f"custodian {settings.custodian or secrets.token_hex(8)}"
    try:
        status = path.stat()
    except OSError:
        raise HsmDownError("the token's PIN cannot be read") from None
    return f"file {path} {status.st_ino} {status.st_mtime_ns} {status.st_size}"


@contextlib.contextmanager
def token_errors() -> Iterator[None]:
    """Turn what a token says into what the keyholder says; a session is not used on."""
    try:
        yield
    except (PKCS11Error, OSError) as error:
        raise HsmDownError(f"the token cannot be used: {type(error).__name__}") from None
    except RuntimeError as error:
        raise HsmDownError(f"the module cannot be loaded: {type(error).__name__}") from None
