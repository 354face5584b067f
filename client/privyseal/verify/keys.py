"""Public keys and signatures, over pyca/cryptography."""

from __future__ import annotations

import hashlib

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa, padding, rsa, utils

from privyseal.verify.errors import VerificationError

PublicKey = (
    rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey
)
_SHA256 = hashes.SHA256()
_PREHASHED = utils.Prehashed(_SHA256)


def load_public_key(data: bytes) -> PublicKey:
    """Load a SubjectPublicKeyInfo, PEM or DER.

    Raises:
        VerificationError: If it is not an RSA (2048 bits and more), P-256, Ed25519 or ML-DSA-65
            key.
    """
    try:
        if data.lstrip().startswith(b"-----"):
            key = serialization.load_pem_public_key(data)
        else:
            key = serialization.load_der_public_key(data)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise VerificationError("public key is not a SubjectPublicKeyInfo PEM or DER") from error
    if isinstance(key, rsa.RSAPublicKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    if isinstance(key, ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey):
        return key
    raise VerificationError(
        "public key is not RSA of 2048 bits or more, P-256, Ed25519 or ML-DSA-65"
    )


def spki_der(key: PublicKey) -> bytes:
    """Return the key's SubjectPublicKeyInfo, DER."""
    return key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def spki_pem(der: bytes) -> str:
    """Return a SubjectPublicKeyInfo DER as PEM."""
    return (
        load_public_key(der)
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )


def public_key_sha256(key: PublicKey) -> bytes:
    """Return the SHA-256 of the key's SubjectPublicKeyInfo DER, 32 bytes."""
    return hashlib.sha256(spki_der(key)).digest()


def verify_signature(key: PublicKey, signature: bytes, message: bytes) -> None:
    """Verify a signature over a message.

    RSA means RSASSA-PKCS1-v1_5 with SHA-256, P-256 means ECDSA with SHA-256 in DER.

    Raises:
        VerificationError: If the signature does not verify.
    """
    try:
        if isinstance(key, ed25519.Ed25519PublicKey | mldsa.MLDSA65PublicKey):
            key.verify(signature, message)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), _SHA256)
        else:
            key.verify(signature, message, ec.ECDSA(_SHA256))
    except InvalidSignature as error:
        raise VerificationError("signature does not verify") from error


def verify_rsa_digest(key: PublicKey, signature: bytes, digest: bytes) -> None:
    """Verify RSASSA-PKCS1-v1_5 with SHA-256 over a digest of 32 bytes.

    Raises:
        VerificationError: If the key is not RSA or the signature does not verify.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        raise VerificationError("this scheme needs an RSA key")
    try:
        key.verify(signature, digest, padding.PKCS1v15(), _PREHASHED)
    except InvalidSignature as error:
        raise VerificationError("signature over the bundle's digest does not verify") from error


def verify_rsa_bare(key: PublicKey, signature: bytes, payload: bytes) -> None:
    """Verify PKCS #1 v1.5 type 1 padding over a payload as it is, without DigestInfo.

    Raises:
        VerificationError: If the key is not RSA or the signature does not verify.
    """
    if not isinstance(key, rsa.RSAPublicKey):
        raise VerificationError("this scheme needs an RSA key")
    try:
        signed = key.recover_data_from_signature(signature, padding.PKCS1v15(), None)
    except InvalidSignature as error:
        raise VerificationError("signature without DigestInfo does not verify") from error
    if signed != payload:
        raise VerificationError("signature without DigestInfo is over something else")


def verify_ed25519(public_key: bytes, signature: bytes, message: bytes) -> None:
    """Verify an Ed25519 signature with a raw public key of 32 bytes (RFC 8032).

    Raises:
        VerificationError: If it does not verify.
    """
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(public_key).verify(signature, message)
    except (ValueError, InvalidSignature) as error:
        raise VerificationError("Ed25519 signature does not verify") from error
