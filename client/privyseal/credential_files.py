"""Reads what a connection proves itself with, and says what is wrong before TLS would.

What TLS says of a file that is none, or of a key that is another's, is the same as of a server
that hangs up: it helps nobody.
"""

from __future__ import annotations

from pathlib import Path

from privyseal.errors import ClientError


def read(path: Path | None, what: str) -> bytes:
    """Return what is in a file. Raises ClientError."""
    if path is None:
        raise ClientError(f"no {what} file is set")
    try:
        return path.read_bytes()
    except OSError as error:
        raise ClientError(f"cannot read the {what} file {path}: {error.strerror}") from None


def authorities(path: Path) -> bytes:
    """Return the certificates of the CA in a file, PEM. Raises ClientError."""
    from cryptography import x509

    data = read(path, "CA")
    try:
        x509.load_pem_x509_certificates(data)
    except ValueError:
        raise ClientError(f"the CA file {path} holds no certificate in PEM") from None
    return data


def pair(certificate: Path, key: Path | None) -> tuple[bytes, bytes]:
    """Return a private key and the certificate for it, both PEM.

    Raises:
        ClientError: If one is malformed, the certificate has expired, or is another key's.
    """
    from datetime import UTC, datetime

    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    shown, held = read(certificate, "certificate"), read(key, "key")
    try:
        leaf = x509.load_pem_x509_certificate(shown)
    except ValueError:
        raise ClientError(f"{certificate} is not a certificate in PEM") from None
    if leaf.not_valid_after_utc < datetime.now(UTC):
        raise ClientError(
            f"the client certificate {certificate} expired on {leaf.not_valid_after_utc:%Y-%m-%d}; "
            "have a new one issued"
        )
    try:
        private = load_pem_private_key(held, None)
    except (ValueError, TypeError):
        raise ClientError(f"{key} is not a private key in PEM without a passphrase") from None
    if private.public_key() != leaf.public_key():
        raise ClientError(f"{key} is not the private key of the client certificate {certificate}")
    return held, shown


def checked_token(token: str) -> str:
    """Return a token that a call can carry. Raises ClientError."""
    if not (token.isascii() and token.isprintable()):
        raise ClientError("the token has characters that no token has; copy it anew")
    return token
