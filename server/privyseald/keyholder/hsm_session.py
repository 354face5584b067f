"""Sessions with a token: the one try of its PIN, and what its errors mean."""

from __future__ import annotations

import contextlib
import fcntl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pkcs11
from pkcs11.exceptions import (
    PinIncorrect,
    PinInvalid,
    PinLenRange,
    PinLocked,
    PKCS11Error,
)

from privyseald.keyholder.keystores import REFUSED, HsmDownError, HsmSettings, PinRefusedError


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
        try:
            return token.open(user_pin=settings.read_pin(), rw=True)
        except (PinIncorrect, PinInvalid, PinLenRange, PinLocked) as error:
            refused.write_text(type(error).__name__ + "\n")
            raise PinRefusedError("the token refused the PIN") from None


@contextlib.contextmanager
def token_errors() -> Iterator[None]:
    """Turn what a token says into what the keyholder says; a session is not used on."""
    try:
        yield
    except (PKCS11Error, OSError) as error:
        raise HsmDownError(f"the token cannot be used: {type(error).__name__}") from None
    except RuntimeError as error:
        raise HsmDownError(f"the module cannot be loaded: {type(error).__name__}") from None
