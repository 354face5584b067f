"""The key-encryption key in a backup: sealed for a quorum, and opened by one."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from privyseal.verify.backup import Header, derive, seal_share

from privyseald.keyholder.kek import KekError, check_of
from privyseald.keyholder.keystore import KEK_SIZE

_NONCE = 12


@dataclass(frozen=True)
class SealedKek:
    """What a backup's header needs, and the secret of its body.

    Attributes:
        shares: Sealed to each recipient, in their order.
        kek: The key-encryption key, sealed.
        check: See `kek.check_of`.
        body: 32 bytes; `privyseal.verify.backup.Header.body_key` makes the body's key of it.
    """

    shares: tuple[bytes, ...]
    kek: bytes
    check: str
    body: bytes

    def to_json(self) -> bytes:
        """Return it as JSON."""
        value = {
            "shares": [base64.b64encode(share).decode() for share in self.shares],
            "kek": base64.b64encode(self.kek).decode(),
            "check": self.check,
            "body": base64.b64encode(self.body).decode(),
        }
        return json.dumps(value).encode()

    @classmethod
    def from_json(cls, data: bytes) -> SealedKek:
        """Return what JSON says. Raises ValueError."""
        value = json.loads(data)
        return cls(
            tuple(base64.b64decode(share) for share in value["shares"]),
            base64.b64decode(value["kek"]),
            str(value["check"]),
            base64.b64decode(value["body"]),
        )


def seal_for(kek: bytes, backup: str, threshold: int, recipients: list[bytes]) -> SealedKek:
    """Seal the key for recipients, of whom `threshold` open it together.

    Args:
        kek: 32 bytes.
        backup: The backup's id.
        threshold: At least 1.
        recipients: Public keys (X25519), 32 bytes each.

    Raises:
        KekError: If the numbers make no sense.
    """
    from shamir_mnemonic import generate_mnemonics

    if not 1 <= threshold <= len(recipients):
        raise KekError("a backup's threshold must be 1 to the number of recipients")
    secret = secrets.token_bytes(KEK_SIZE)
    # SLIP-39 has no 1 of many: then each has the same share.
    groups = [(1, 1)] if threshold == 1 else [(threshold, len(recipients))]
    words = generate_mnemonics(1, groups, secret)[0]
    if threshold == 1:
        words = words * len(recipients)
    shares = tuple(
        seal_share(share, backup, key) for share, key in zip(words, recipients, strict=True)
    )
    nonce = secrets.token_bytes(_NONCE)
    sealed = AESGCM(derive(secret, b"kek")).encrypt(nonce, kek, backup.encode())
    return SealedKek(shares, nonce + sealed, check_of(kek), derive(secret, b"body"))


def open_with_shares(header: Header, shares: list[str]) -> tuple[bytes, bytes]:
    """Return the key-encryption key and the key of the backup's body, 32 bytes each.

    Raises:
        KekError: If the shares are too few, or of another backup.
    """
    from shamir_mnemonic import MnemonicError, combine_mnemonics

    unique = sorted({" ".join(share.split()) for share in shares})
    if len(unique) < header.threshold:
        raise KekError(f"{len(unique)} shares were given, and it takes {header.threshold}")
    try:
        secret = combine_mnemonics(unique[: header.threshold])
        kek = AESGCM(derive(secret, b"kek")).decrypt(
            header.sealed_kek[:_NONCE], header.sealed_kek[_NONCE:], header.id.encode()
        )
    except (MnemonicError, InvalidTag, ValueError):
        raise KekError("the shares are not of this backup") from None
    if check_of(kek) != header.kek_check:
        raise KekError("the backup's key-encryption key is not the one that it names")
    return kek, header.body_key(derive(secret, b"body"))
