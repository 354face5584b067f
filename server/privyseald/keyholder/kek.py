"""The key-encryption key at rest: who or what can open it.

The key itself (32 random bytes) never changes with its provider: to go over to another one
is to seal the same key anew, and a running daemon does not notice. `kek.json` says how it is
sealed; without it, `kek` holds the key as it is.

Passphrase and shares both lead to a wrapping key of 32 bytes, under which the key is sealed
with AES-256-GCM, bound to the rest of the record. Old shares open old records alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import secrets
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from privyseal.verify.canonical import canonical

from privyseald.keyholder.keystore import KEK_SIZE

RAW, RECORD = "kek", "kek.json"
MAX_RECORD = 16_384
_NUMBER = re.compile(r"^\s*share [0-9]+ of [0-9]+:", re.IGNORECASE)
MIN_PASSPHRASE = 12
_NONCE = 12
# RFC 9106 section 4, the second recommended option: 64 MiB, three passes, four lanes.
_ARGON2 = {"iterations": 3, "lanes": 4, "memory_cost": 65_536}
_MOST = {"iterations": 64, "lanes": 64, "memory_cost": 1 << 22}
_MOST_SHARES = 16
_MALFORMED = "kek.json is malformed; restore it from a backup"


class KekError(Exception):
    """The key-encryption key cannot be had; the message says why, in words."""


@dataclass(frozen=True)
class KekRecord:
    """A sealed key-encryption key.

    Attributes:
        provider: passphrase, shares, token, credential or aws-kms.
        check: SHA-256 that tells whether what was opened is the key, hexadecimal.
        params: What the provider needs; nothing in it is secret.
        sealed: The key, sealed.
    """

    provider: str
    check: str
    params: dict[str, Any] = field(default_factory=dict)
    sealed: bytes = b""

    def text(self) -> str:
        """Return the content of kek.json."""
        return (
            json.dumps(
                {
                    "version": 1,
                    "provider": self.provider,
                    "check": self.check,
                    "params": self.params,
                    "sealed": base64.b64encode(self.sealed).decode(),
                },
                indent=2,
            )
            + "\n"
        )

    @classmethod
    def parse(cls, text: str) -> KekRecord:
        """Parse the content of kek.json. Raises KekError."""
        try:
            value = json.loads(text)
            record = cls(
                str(value["provider"]),
                str(value["check"]),
                dict(value["params"]),
                base64.b64decode(value["sealed"], validate=True),
            )
            version = value["version"]
        except (ValueError, KeyError, TypeError, binascii.Error, RecursionError):
            raise KekError(_MALFORMED) from None
        if version != 1:
            raise KekError("kek.json is of a newer version of Privyseal")
        if record.provider == "shares" and record.threshold not in range(2, _MOST_SHARES + 1):
            raise KekError(_MALFORMED)
        return record

    @property
    def threshold(self) -> int:
        """How many shares open it; 1 if it is not in shares."""
        value = self.params.get("threshold") if self.provider == "shares" else 1
        return value if isinstance(value, int) else 0

    def checked(self, kek: bytes) -> bytes:
        """Return a key that is the right one. Raises KekError."""
        if len(kek) != KEK_SIZE or not secrets.compare_digest(check_of(kek), self.check):
            raise KekError("what was opened is not this daemon's key-encryption key")
        return kek

    def open_with(self, wrapping: bytes) -> bytes:
        """Return the key, by its wrapping key. Raises KekError."""
        nonce, sealed = self.sealed[:_NONCE], self.sealed[_NONCE:]
        try:
            kek = AESGCM(wrapping).decrypt(nonce, sealed, _aad(self.provider, self.params))
        except (InvalidTag, ValueError):
            raise KekError("it does not open the key-encryption key") from None
        return self.checked(kek)


def check_of(kek: bytes) -> str:
    """Return a digest that tells one key from another, and nothing of the key."""
    return hashlib.sha256(b"privyseal kek check\n" + kek).hexdigest()


def seal_with(provider: str, params: dict[str, Any], wrapping: bytes, kek: bytes) -> KekRecord:
    """Seal the key under a wrapping key of 32 bytes."""
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(wrapping).encrypt(nonce, kek, _aad(provider, params))
    return KekRecord(provider, check_of(kek), params, nonce + sealed)


def _aad(provider: str, params: dict[str, Any]) -> bytes:
    return canonical({"provider": provider, "params": params})


def seal_with_passphrase(kek: bytes, passphrase: str) -> KekRecord:
    """Seal the key under a passphrase. Raises KekError if it is too short."""
    if len(passphrase) < MIN_PASSPHRASE:
        raise KekError(f"the passphrase has fewer than {MIN_PASSPHRASE} characters")
    params = {"kdf": "argon2id", "salt": secrets.token_hex(16), **_ARGON2}
    return seal_with("passphrase", params, _from_passphrase(params, passphrase), kek)


def open_with_passphrase(record: KekRecord, passphrase: str) -> bytes:
    """Return the key. Raises KekError if the passphrase is wrong."""
    return record.open_with(_from_passphrase(record.params, passphrase))


def _from_passphrase(params: dict[str, Any], passphrase: str) -> bytes:
    try:
        cost = {name: int(params[name]) for name in _ARGON2}
        if params["kdf"] != "argon2id" or any(not 1 <= cost[n] <= _MOST[n] for n in cost):
            raise ValueError
        argon2 = Argon2id(
            salt=bytes.fromhex(params["salt"]),
            length=KEK_SIZE,
            iterations=cost["iterations"],
            lanes=cost["lanes"],
            memory_cost=cost["memory_cost"],
        )
        return argon2.derive(passphrase.encode())
    except (KeyError, ValueError, TypeError, OverflowError):
        raise KekError(_MALFORMED) from None


def split(kek: bytes, threshold: int, shares: int) -> tuple[KekRecord, list[str]]:
    """Seal the key so that some of many people can open it together.

    Returns:
        The record, and a share for each person: words, as SLIP-39 has them, with a checksum.

    Raises:
        KekError: If the numbers make no sense.
    """
    from shamir_mnemonic import generate_mnemonics

    if not 2 <= threshold <= shares <= _MOST_SHARES:
        numbers = f"2 <= threshold <= shares <= {_MOST_SHARES}"
        raise KekError(f"threshold and shares must be {numbers}")
    wrapping = secrets.token_bytes(KEK_SIZE)
    words = generate_mnemonics(1, [(threshold, shares)], wrapping)[0]
    params = {"threshold": threshold, "shares": shares, "id": share_id(words[0])}
    return seal_with("shares", params, wrapping, kek), words


def share_words(text: str) -> str:
    """Return the words of a share, also of one as it was printed, with its number before it."""
    return " ".join(_NUMBER.sub("", text).lower().split())


def is_share(text: str) -> bool:
    """Whether a text is a share, and no other secret."""
    try:
        share_id(share_words(text))
    except KekError:
        return False
    return True


def share_id(words: str) -> int:
    """Return which set of shares a share is of. Raises KekError if it is none."""
    from shamir_mnemonic import MnemonicError
    from shamir_mnemonic.share import Share

    try:
        return int(Share.from_mnemonic(words).identifier)
    except MnemonicError as error:
        raise KekError(f"that is no share: {error}") from None


def join(record: KekRecord, shares: list[str]) -> bytes:
    """Return the key, by enough shares. Raises KekError."""
    from shamir_mnemonic import MnemonicError, combine_mnemonics

    try:
        wrapping = combine_mnemonics(shares)
    except MnemonicError:
        raise KekError("these shares do not fit together") from None
    return record.open_with(wrapping)


def open_credential(record: KekRecord) -> bytes:
    """Return the key in a systemd credential. Raises KekError."""
    folder, name = os.environ.get("CREDENTIALS_DIRECTORY", ""), str(record.params.get("name"))
    try:
        return record.checked(read_kek_file(Path(folder) / Path(name).name))
    except OSError:
        raise KekError(f"there is no systemd credential {name}; see LoadCredential=") from None


def read_kek_file(path: Path) -> bytes:
    """Read a key as it is, from a file that only its owner can read. Raises OSError, KekError."""
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return read_kek(handle)
    except ValueError as error:
        raise KekError(str(error)) from None
    finally:
        os.close(handle)


def read_kek(handle: int) -> bytes:
    """Read a key from an open file, up to its end.

    Raises:
        PermissionError: If others can read the file.
        ValueError: If it is not 32 bytes.
    """
    status = os.fstat(handle)
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise PermissionError("the key-encryption key's file can be read by others")
    read = b""
    while len(read) <= KEK_SIZE and (chunk := os.read(handle, KEK_SIZE + 1 - len(read))):
        read += chunk
    if len(read) != KEK_SIZE:
        raise ValueError("the key-encryption key is not 32 bytes")
    return read


def read_record(folder: Path) -> KekRecord | None:
    """Return how the key is sealed, None if it is in a file as it is. Raises KekError."""
    try:
        with (folder / RECORD).open() as file:
            return KekRecord.parse(file.read(MAX_RECORD))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise KekError("kek.json cannot be read") from None
