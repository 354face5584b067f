"""Where keys are: in software, and in a token if there is one, behind one face."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from privyseald.keyholder.keystore import TOKEN, KeyUnusableError, Signer, SoftwareKeystore
from privyseald.model.schemes import GeneratedKey, KeyIdentity, WrappedKey

REFUSED = "hsm-pin-refused"
"""The file that says that the token refused the PIN; a person removes it."""


class HsmDownError(Exception):
    """The token cannot be used now; another process may be able to, later."""


class PinRefusedError(HsmDownError):
    """The token refused the PIN; nobody tries again before a person has looked."""


@dataclass(frozen=True)
class HsmSettings:
    """Which token, and where its PIN is.

    Attributes:
        module: Path of the PKCS #11 module.
        token: Its label.
        serial: Its serial number, where labels repeat; any if empty.
        pin_file, pin_env, pin_credential, pin_prompt: One of them: a file, an environment
            variable, a systemd credential, or whoever unseals the daemon.
        state: The folder where a refused PIN is noted.
    """

    module: str
    token: str
    state: str
    serial: str = ""
    pin_file: str = ""
    pin_env: str = ""
    pin_credential: str = ""
    pin_prompt: bool = False
    typed: str = field(default="", repr=False)
    """The PIN that somebody typed; never on a command line."""
    custodian: str = ""
    """What tells the custodian that this comes from, if any, from those before it."""

    @property
    def pin_path(self) -> Path | None:
        """The file with the PIN; None if it is in none."""
        if self.pin_prompt or self.pin_env:
            return None
        folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
        return Path(self.pin_file or Path(folder) / self.pin_credential)

    def read_pin(self) -> str:
        """Return the PIN. Raises HsmDownError if there is none."""
        path = self.pin_path
        if path is None:
            pin = self.typed if self.pin_prompt else os.environ.get(self.pin_env, "")
        else:
            try:
                pin = path.read_text().rstrip("\r\n")
            except OSError:
                raise HsmDownError("the token's PIN cannot be read") from None
        if not pin:
            raise HsmDownError("the token's PIN is empty")
        return pin


class TokenKeystore(Protocol):
    """Keys in a token. Each method raises HsmDownError, KeyUnusableError."""

    @property
    def connected(self) -> bool:
        """Whether there is a session."""
        ...

    def connect(self) -> None:
        """Open the session and log in."""
        ...

    def probe(self) -> None:
        """Look whether the token is still there."""
        ...

    def expect_keys(self) -> None:
        """Look whether the token shows the keys that it has."""
        ...

    def generate(self, identity: KeyIdentity) -> GeneratedKey:
        """Make a key pair in the token."""
        ...

    def adopt(self, identity: KeyIdentity, uri: str) -> GeneratedKey:
        """Take a key that is in the token already."""
        ...

    def add(self, identity: KeyIdentity, pkcs8: bytes) -> GeneratedKey:
        """Put a private key into the token."""
        ...

    def open(self, key: WrappedKey) -> Signer:
        """Return a key."""
        ...

    def destroy(self, key: WrappedKey) -> None:
        """Destroy a key in the token; one that is gone already is destroyed."""
        ...

    def forget(self, key: WrappedKey) -> None:
        """Forget a key that was opened."""
        ...


@dataclass
class Keystores:
    """Software keys, and keys in a token if there is one."""

    software: SoftwareKeystore
    hsm: TokenKeystore | None = None
    token_error: str = ""
    state: str = ""

    @classmethod
    def make(cls, software: SoftwareKeystore, settings: HsmSettings | None) -> Keystores:
        """Return the keystores, connected as far as they can be."""
        if settings is None:
            return cls(software)
        # Here, so that a daemon without a token needs no PKCS #11 library.
        from privyseald.keyholder.hsm import HsmKeystore

        hsm = HsmKeystore(settings, software)
        made = cls(software, hsm, state=settings.state)
        try:
            hsm.connect()
        except HsmDownError as error:
            made.token_error = str(error)
        return made

    def open(self, key: WrappedKey) -> Signer:
        """Return a key's signer."""
        if key.blob[:1] != TOKEN:
            return self.software.open(key)
        return self.token().open(key)

    def destroy(self, key: WrappedKey) -> None:
        """Forget an opened key, and destroy one in the token."""
        if key.blob[:1] != TOKEN:
            self.software.forget(key)
            return
        self.token().destroy(key)

    def forget(self, key: WrappedKey) -> None:
        """Forget an opened key."""
        if key.blob[:1] != TOKEN:
            self.software.forget(key)
        elif self.hsm is not None:
            self.hsm.forget(key)

    def token(self) -> TokenKeystore:
        """Return the token's keystore. Raises KeyUnusableError, HsmDownError."""
        if self.hsm is None:
            raise KeyUnusableError("the key is in a token, and the daemon has no [hsm] settings")
        if not self.hsm.connected:
            error = PinRefusedError if (Path(self.state) / REFUSED).exists() else HsmDownError
            raise error(self.token_error)
        return self.hsm

    def probe(self) -> None:
        """Look whether the token that was there still is. Raises HsmDownError."""
        if self.hsm is not None and self.hsm.connected and not self.token_error:
            self.hsm.probe()

    def wants_restart(self) -> bool:
        """Say whether a fresh process may find the token working."""
        return self.hsm is not None and not (Path(self.state) / REFUSED).exists()
