"""Sessions with a token: the one try of its PIN, and what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
_COUNTED = TokenFlag.USER_PIN_COUNT_LOW | TokenFlag.USER_PIN_FINAL_TRY | TokenFlag.USER_PIN_LOCKED


def log_in(settings: HsmSettings) -> Any:
    """Return a session that is logged in; a PIN that is wrong is tried once, by one process.

    Raises:
        HsmDownError: If that is not possible now; PinRefusedError if a person must look.
    """
    state = Path(settings.state)
    refused = state / REFUSED
    with (state / "hsm-login.lock").open("wb") as lock:
        # One process at a time: the PIN is tried by one, and the others learn of it.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if refused.exists():
            raise PinRefusedError("the token refused the PIN before")
        serial = settings.serial.encode() or None
        token = pkcs11.lib(settings.module).get_token(
            token_label=settings.token, token_serial=serial
        )
        unanswered = state / UNANSWERED
        if unanswered.exists() and token.flags & _COUNTED:
            # That try was of a wrong PIN, though nobody lived to hear it.
            refused.write_text("PinIncorrect\n")
            unanswered.unlink()
            raise PinRefusedError("the token counted a wrong PIN in a login that never returned")
        pin = settings.read_pin()
        unanswered.touch()
        try:
            session = token.open(user_pin=pin, rw=True)
        except (PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
            refused.write_text(type(error).__name__ + "\n")
            unanswered.unlink()
            raise PinRefusedError("the token refused the PIN") from None
        unanswered.unlink()
        return session


@contextlib.contextmanager
def token_errors() -> Iterator[None]:
    """Turn what a token says into what the keyholder says; a session is not used on."""
    try:
        yield
    except (PKCS11Error, OSError) as error:
        raise HsmDownError(f"the token cannot be used: {type(error).__name__}") from None
    except RuntimeError as error:
        raise HsmDownError(f"the module cannot be loaded: {type(error).__name__}") from None
