"""Artifacts for devices that want another form than the signed zip.

They are made of the bundle and its verified receipt, anywhere and at any time: the same
bundle and receipt give the same bytes.
"""

from __future__ import annotations

import base64
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cryptography.hazmat.primitives import padding
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from privyseal.errors import ClientError
from privyseal.verify import MANIFEST
from privyseal.verify import expo as expo_v1
from privyseal.verify.keys import load_public_key
from privyseal.verify.receipt import Receipt
from privyseal.verify.schemes import (
    capgo_session,
    capgo_text,
    codepush_ignores,
    codepush_text,
    minisign_text,
    sparkle_text,
)

_PIECE = 1 << 20
_TIME = (1980, 1, 1, 0, 0, 0)


def capgo(bundle: Path, receipt: Receipt, target: Path) -> tuple[str, str]:
    """Write the zip encrypted as Capgo's plugin wants it: AES-128-CBC with PKCS #7.

    Returns:
        `checksum` and `session_key` of the update.

    Raises:
        ClientError: If a file cannot be read or written.
        VerificationError: If the receipt has no capgo-v2 signature.
    """
    signature = receipt.newest("capgo-v2")
    session = capgo_session(receipt.statement.bundle_sha256)
    # The plugin's format, over bytes that anyone may read: what it proves is their origin.
    cipher = Cipher(algorithms.AES128(session.key), modes.CBC(session.iv))
    encryptor, padder = cipher.encryptor(), padding.PKCS7(128).padder()
    with _written(target) as out, _opened(bundle) as source:
        while chunk := source.read(_PIECE):
            out.write(encryptor.update(padder.update(chunk)))
        out.write(encryptor.update(padder.finalize()) + encryptor.finalize())
    return capgo_text(signature.signature, receipt.statement)


def codepush(bundle: Path, receipt: Receipt, target: Path) -> None:
    """Write a zip with a folder CodePush: the bundle's files and their signed hash.

    Raises:
        ClientError: If a file cannot be read or written.
        VerificationError: If the receipt has no codepush-v1 signature.
    """
    signature = receipt.newest("codepush-v1")
    token = codepush_text(signature.signature, receipt.statement)
    with (
        _opened(bundle) as source,
        zipfile.ZipFile(source) as old,
        _written(target) as out,
        zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for entry in old.infolist():
            if entry.filename == MANIFEST or codepush_ignores(entry.filename):
                continue
            with old.open(entry) as content, new.open(_entry(entry.filename), "w") as copy:
                shutil.copyfileobj(content, copy, _PIECE)
        new.writestr(_entry(".codepushrelease"), token)


def minisign(receipt: Receipt, target: Path, *, tauri: bool = False) -> None:
    """Write the .minisig file of the bundle; for Tauri's updater, all of it as base64.

    Raises:
        ClientError: If it cannot be written.
        VerificationError: If the receipt has no minisign signature.
    """
    signature = receipt.newest("minisign")
    key = load_public_key(signature.public_key)
    text = minisign_text(signature.signature, receipt.statement, key).encode()
    with _written(target) as out:
        out.write(base64.b64encode(text) if tauri else text)


def expo(receipt: Receipt, platform: str, key_id: str, target: Path) -> str:
    """Write the manifest of an Expo update.

    Args:
        receipt: Of the release.
        platform: android or ios.
        key_id: What the app's configuration calls its key.
        target: The file.

    Returns:
        The value of the header `expo-signature`.

    Raises:
        ClientError: If it cannot be written.
        VerificationError: If the receipt has no expo-v1 signature, or nothing for the platform.
    """
    # Of others the certificate may have ended.
    signature = receipt.newest("expo-v1")
    manifest = expo_v1.manifest(receipt.statement, platform)
    each = expo_v1.signatures(receipt.statement, signature.signature)[platform]
    with _written(target) as out:
        out.write(manifest)
    return expo_v1.signature_header(each, key_id)


def sparkle(receipt: Receipt, target: Path) -> str:
    """Write the attributes of an appcast's enclosure, and return them.

    Raises:
        ClientError: If the file cannot be written.
        VerificationError: If the receipt has no sparkle-ed25519 signature.
    """
    text = sparkle_text(receipt.newest("sparkle-ed25519").signature, receipt.statement)
    with _written(target) as out:
        out.write(text.encode() + b"\n")
    return text


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(f"CodePush/{name}", _TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    try:
        with path.open("rb") as file:
            yield file
    except (OSError, zipfile.BadZipFile) as error:
        why = getattr(error, "strerror", None) or "it is no zip"
        raise ClientError(f"cannot read {path}: {why}") from None


@contextmanager
def _written(path: Path) -> Iterator[BinaryIO]:
    """Give a file that takes its name when it is whole."""
    scratch = path.with_name(f".{path.name}.part")
    try:
        with scratch.open("wb") as file:
            yield file
        scratch.replace(path)
    except OSError as error:
        raise ClientError(f"cannot write {path}: {error.strerror}") from None
    finally:
        scratch.unlink(missing_ok=True)
