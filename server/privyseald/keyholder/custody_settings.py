"""What the custodian is told when it starts; on both sides of its socket."""

from __future__ import annotations

import os
from dataclasses import dataclass

from privyseald.keyholder.keystores import HsmSettings

MODULES = ("SOFTHSM2_", "PKCS11", "P11_", "TPM2_", "YUBIHSM_", "OCK_", "CLOUDHSM_")
"""Variables by which PKCS #11 modules find their configuration."""


def environment(token: HsmSettings | None, *, away: bool = False) -> dict[str, str]:
    """Return the environment of a keyholder or custodian: what finding its code takes.

    Args:
        token: With one, also what its module may need, and where its PIN is.
        away: Also what reaching credentials and a KMS takes.
    """
    wanted = ["PATH", "PYTHONPATH", "VIRTUAL_ENV"]
    if token is not None or away:
        wanted += ["HOME", "CREDENTIALS_DIRECTORY"]
        wanted += [name for name in os.environ if name.startswith(MODULES)]
    if token is not None:
        wanted.append(token.pin_env)
    if away:
        wanted += [name for name in os.environ if name.startswith("AWS_")]
    return {name: os.environ[name] for name in wanted if name in os.environ}


@dataclass(frozen=True)
class CustodySettings:
    """What the custodian needs to know; nothing in it is secret.

    Attributes:
        data: The folder with kek.json, where it listens for who unseals it.
        passphrase_file: A file with the passphrase, for a start without people.
        passphrase_credential: A systemd credential with it.
        token: The token, if there is one.
        recipients: Public keys (X25519, hexadecimal) that backups are sealed for. They are fixed
            when the custodian starts: who takes over the daemon's process later cannot have the
            key sealed for himself.
        threshold: How many of them open a backup together.
    """

    data: str
    passphrase_file: str = ""
    passphrase_credential: str = ""
    token: HsmSettings | None = None
    recipients: tuple[str, ...] = ()
    threshold: int = 0
