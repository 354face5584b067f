"""Schemes: what each signs, how it is verified, and how its device protocol writes it.

Signatures are carried raw. `*_text` functions give them the form that the device wants.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.utils import Buffer

from privyseal.verify import expo
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import (
    PublicKey,
    spki_der,
    verify_rsa_bare,
    verify_rsa_digest,
    verify_signature,
)
from privyseal.verify.statement import PAYLOAD_TYPE, Statement, pae

STATEMENTS = ("statement-v1", "statement-ml-dsa-v1")
"""Schemes that sign the statement, and so are in its envelope."""
ARCHIVES = ("sparkle-ed25519",)
"""Schemes that sign the archive itself: only who has it verifies them, with `verify_archive`."""
_ED25519 = 64


@dataclass(frozen=True)
class CapgoSession:
    """With what a bundle is encrypted for Capgo: AES-128-CBC, key and IV of 16 bytes.

    Nothing is secret about it, since whoever has the app has the key that opens it. It is
    derived from the bundle, so that the same bundle gives the same artifact.
    """

    key: bytes
    iv: bytes


def capgo_session(bundle_sha256: bytes) -> CapgoSession:
    """Return the session key of a bundle, by its SHA-256 of 32 bytes."""
    derived = hashlib.sha256(b"privyseal capgo-v2 session\n" + bundle_sha256).digest()
    return CapgoSession(key=derived[:16], iv=derived[16:])


def capgo_text(signature: bytes, statement: Statement) -> tuple[str, str]:
    """Return `checksum` (hexadecimal) and `session_key` ({iv}:{key}, base64) of an update."""
    half = len(signature) // 2
    iv = capgo_session(statement.bundle_sha256).iv
    return signature[:half].hex(), f"{_b64(iv)}:{_b64(signature[half:])}"


def codepush_input(statement: Statement) -> bytes:
    """Return what is signed for CodePush: header and claims of the web token (RFC 7515)."""
    claims = {
        "claimVersion": "1.0.0",
        "contentHash": statement.codepush_sha256.hex(),
        "iat": statement.signed_at,
    }
    parts = ({"alg": "RS256", "typ": "JWT"}, claims)
    return b".".join(_b64url(json.dumps(p, separators=(",", ":")).encode()) for p in parts)


def codepush_text(signature: bytes, statement: Statement) -> str:
    """Return the content of CodePush/.codepushrelease: a JSON web token, compact."""
    return (codepush_input(statement) + b"." + _b64url(signature)).decode()


def codepush_ignores(name: str) -> bool:
    """Whether CodePush's own hash leaves a file out, by its name in the build."""
    return name.rpartition("/")[2] in {".codepushrelease", ".DS_Store"}


def codepush_package_sha256(files: dict[str, bytes]) -> bytes:
    """Return the package hash of files in a folder CodePush, 32 bytes.

    Args:
        files: Name in the build -> SHA-256 of the content. What `codepush_ignores` counts not.
    """
    lines = sorted(
        (
            f"CodePush/{name}:{digest.hex()}"
            for name, digest in files.items()
            if not codepush_ignores(name)
        ),
        key=lambda line: line.encode("utf-16-be"),
    )
    text = json.dumps(lines, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).digest()


def minisign_comment(statement: Statement) -> bytes:
    """Return the trusted comment, without its prefix."""
    return (
        f"timestamp:{statement.signed_at}\tfile:{statement.app}-{statement.version}.zip\thashed"
    ).encode()


def minisign_text(signature: bytes, statement: Statement, key: PublicKey) -> str:
    """Return the four lines of a .minisig file."""
    first, last = signature[:_ED25519], signature[_ED25519:]
    return (
        "untrusted comment: signed by privyseal\n"
        f"{_b64(b'ED' + minisign_key_id(key) + first)}\n"
        f"trusted comment: {minisign_comment(statement).decode()}\n"
        f"{_b64(last)}\n"
    )


def minisign_key_id(key: PublicKey) -> bytes:
    """Return the id, 8 bytes, that binds a minisign signature file to its public key file."""
    return hashlib.sha256(_raw(key)).digest()[:8]


def sparkle_text(signature: bytes, statement: Statement) -> str:
    """Return the attributes of an appcast's enclosure."""
    return f'sparkle:edSignature="{_b64(signature)}" length="{statement.bundle_length}"'


def public_key_text(scheme: str, key: PublicKey) -> str:
    """Return a public key in the form that the scheme's devices embed."""
    if scheme == "capgo-v2" and isinstance(key, rsa.RSAPublicKey):
        # The plugin reads PKCS #1 only.
        pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.PKCS1)
        return pem.decode()
    if scheme == "minisign":
        name = minisign_key_id(key)
        comment = f"untrusted comment: minisign public key {name[::-1].hex().upper()}"
        return f"{comment}\n{_b64(b'Ed' + name + _raw(key))}\n"
    if scheme == "sparkle-ed25519":
        return _b64(_raw(key)) + "\n"
    spki = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, spki).decode()


def verify(
    scheme: str, key: PublicKey, signature: bytes, statement: Statement, payload: bytes
) -> None:
    """Verify what a key of a scheme signed of a release.

    Args:
        scheme: Its name.
        key: The public key.
        signature: As receipts carry it.
        statement: What `payload` says.
        payload: The statement's bytes.

    Raises:
        VerificationError: If the scheme is unknown or the signature does not verify.
    """
    check = _VERIFY.get(scheme)
    if check is None:
        raise VerificationError(f"receipt has a signature of unknown scheme {scheme}")
    check(key, signature, statement, payload)


def _statement(key: PublicKey, signature: bytes, _: Statement, payload: bytes) -> None:
    verify_signature(key, signature, pae(PAYLOAD_TYPE, payload))


def _capawesome(key: PublicKey, signature: bytes, statement: Statement, _: bytes) -> None:
    verify_rsa_digest(key, signature, statement.bundle_sha256)


def _capgo(key: PublicKey, signature: bytes, statement: Statement, _: bytes) -> None:
    half = len(signature) // 2
    verify_rsa_bare(key, signature[:half], statement.bundle_sha256)
    verify_rsa_bare(key, signature[half:], capgo_session(statement.bundle_sha256).key)


def _codepush(key: PublicKey, signature: bytes, statement: Statement, _: bytes) -> None:
    if not (statement.codepush_sha256 and isinstance(key, rsa.RSAPublicKey)):
        raise VerificationError("statement has no package hash, or the key is not RSA")
    verify_signature(key, signature, codepush_input(statement))


def _minisign(key: PublicKey, signature: bytes, statement: Statement, _: bytes) -> None:
    if not (statement.bundle_blake2b and isinstance(key, ed25519.Ed25519PublicKey)):
        raise VerificationError("statement has no BLAKE2b digest, or the key is not Ed25519")
    first, last = signature[:_ED25519], signature[_ED25519:]
    verify_signature(key, first, statement.bundle_blake2b)
    verify_signature(key, last, first + minisign_comment(statement))


def _expo(key: PublicKey, signature: bytes, statement: Statement, _: bytes) -> None:
    if not isinstance(key, rsa.RSAPublicKey):
        raise VerificationError("the key of an Expo update is not RSA")
    for platform, each in expo.signatures(statement, signature).items():
        verify_signature(key, each, expo.manifest(statement, platform))


def _sparkle(key: PublicKey, signature: bytes, *_: object) -> None:
    if not isinstance(key, ed25519.Ed25519PublicKey) or len(signature) != _ED25519:
        raise VerificationError("a signature of the archive is not Ed25519")


def verify_archive(scheme: str, key: PublicKey, signature: bytes, archive: Buffer) -> None:
    """Verify a signature over the archive itself, which receipts alone do not prove.

    Args:
        scheme: One of `ARCHIVES`.
        key: The public key.
        signature: 64 bytes.
        archive: All of it.

    Raises:
        VerificationError: If it does not verify.
    """
    if scheme not in ARCHIVES or not isinstance(key, ed25519.Ed25519PublicKey):
        raise VerificationError(f"{scheme} signs no archive, or the key is not Ed25519")
    try:
        key.verify(signature, archive)
    except InvalidSignature as error:
        raise VerificationError(f"the archive's {scheme} signature does not verify") from error


_Verify = Callable[[PublicKey, bytes, Statement, bytes], None]
_VERIFY: dict[str, _Verify] = {
    "statement-v1": _statement,
    "statement-ml-dsa-v1": _statement,
    "capawesome-v1": _capawesome,
    "capgo-v2": _capgo,
    "codepush-v1": _codepush,
    "minisign": _minisign,
    "expo-v1": _expo,
    # Its bytes are not here: see verify_archive.
    "sparkle-ed25519": _sparkle,
}


def _raw(key: PublicKey) -> bytes:
    return spki_der(key)[-32:]


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _b64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
