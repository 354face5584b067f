"""How an existing private key reaches the keyholder: HPKE (RFC 9180), and who vouches for it.

The suite is DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM in base mode; a sealed key
is the encapsulated key (32 bytes), then the ciphertext of its PKCS #8 DER. `info` binds it to
the one key that it becomes.

The keyholder's import key comes in a signed note (C2SP signed-note) by the log's key, whose
text is three lines: a title that no checkpoint begins with, the log's name, and the public
key (32 bytes), base64.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from privyseal.verify.canonical import canonical
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import NoteVerifier, open_note

TITLE = "privyseal import key v1"
MAX_SEALED = 8192
"""Bytes; an RSA key of 4,096 bits takes 2,400."""
_KEY = 32


@dataclass(frozen=True)
class ImportTarget:
    """The key that a private key becomes, and which one it is."""

    app: str
    key: str
    scheme: str
    algorithm: str
    public_key_sha256: bytes

    def info(self) -> bytes:
        """Return HPKE's `info`: canonical JSON."""
        return canonical(
            {
                "purpose": TITLE,
                "app": self.app,
                "key": self.key,
                "scheme": self.scheme,
                "algorithm": self.algorithm,
                "publicKeySha256": self.public_key_sha256.hex(),
            }
        )


def import_key_text(origin: str, public_key: bytes) -> str:
    """Return the text of the note that vouches for an import key of 32 bytes."""
    return f"{TITLE}\n{origin}\n{base64.b64encode(public_key).decode()}\n"


def open_import_key(note: str, verifier: NoteVerifier) -> bytes:
    """Verify the note of an import key and return that key, 32 bytes.

    Raises:
        VerificationError: If it is not signed by the log's key, or is another note of it.
    """
    lines = open_note(note, verifier).split("\n")
    try:
        key = base64.b64decode(lines[2], validate=True)
    except (IndexError, binascii.Error, ValueError):
        key = b""
    if lines[0] != TITLE or len(key) != _KEY:
        raise VerificationError("the daemon's note does not name an import key")
    if "\n".join(lines) != import_key_text(verifier.name, key):
        raise VerificationError("the daemon's note is of another log")
    return key


def seal(private_key: bytes, target: ImportTarget, import_key: bytes) -> bytes:
    """Seal a private key, PKCS #8 DER, for the keyholder that has an import key."""
    public = x25519.X25519PublicKey.from_public_bytes(import_key)
    return _suite().encrypt(private_key, public, target.info())


def unseal(sealed: bytes, target: ImportTarget, private: x25519.X25519PrivateKey) -> bytes:
    """Return the private key that was sealed, PKCS #8 DER.

    Raises:
        VerificationError: If it was sealed for another key, another keyholder, or changed.
    """
    try:
        return _suite().decrypt(sealed, private, target.info())
    except (InvalidTag, ValueError):
        raise VerificationError(
            "the private key was sealed for another key or another keyholder"
        ) from None


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
