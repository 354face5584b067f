"""Reads private keys that people have: PEM, in any of its forms, encrypted or not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from privyseal.errors import ClientError
from privyseal.verify.keys import public_key_sha256

MAX_FILE = 64 * 1024
"""Bytes of a file with a private key."""


@dataclass(frozen=True, repr=False)
class PrivateKey:
    """A private key on its way to the keyholder; never printed.

    Attributes:
        pkcs8: PKCS #8 DER.
        algorithm: As the daemon calls it.
        public_key_sha256: Of the public key's SubjectPublicKeyInfo DER, 32 bytes.
    """

    pkcs8: bytes
    algorithm: str
    public_key_sha256: bytes


def load(data: bytes, passphrase: Callable[[], str]) -> PrivateKey:
    """Load a private key.

    Args:
        data: PEM: PKCS #8, PKCS #1 or SEC 1.
        passphrase: Asked for it if the key is encrypted.

    Raises:
        ClientError: If it is none, or of a kind that no scheme uses.
    """
    if len(data) > MAX_FILE:
        raise ClientError(f"the file is longer than {MAX_FILE:,} bytes: it holds no private key")
    encrypted = b"ENCRYPTED" in data
    if b"PRIVATE KEY-----" not in data:
        raise ClientError(
            "the file holds no PEM private key; it must have a line -----BEGIN ... PRIVATE KEY-----"
        )
    secret = passphrase().encode() if encrypted else None
    try:
        key = serialization.load_pem_private_key(data, secret)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        why = "; is the passphrase right?" if encrypted else ""
        raise ClientError(f"the private key cannot be read{why}") from None
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size not in {2048, 3072, 4096}:
            raise ClientError(f"RSA keys have 2048, 3072 or 4096 bits, this one {key.key_size}")
        algorithm = f"rsa-{key.key_size}"
    elif isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        algorithm = "p256"
    elif isinstance(key, ed25519.Ed25519PrivateKey):
        algorithm = "ed25519"
    else:
        raise ClientError("the private key is not RSA, P-256 or Ed25519")
    pkcs8 = key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return PrivateKey(pkcs8, algorithm, public_key_sha256(key.public_key()))
