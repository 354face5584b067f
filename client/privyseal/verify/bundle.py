"""Verifies that a bundle is what its statement says of it, member by member.

The daemon signs digests that its callers name, and never sees the bundle. Whoever verifies has
it: the manifest that differential updates are served from, CodePush's package hash, Expo's files
and minisign's digest must be those of the very files in the zip, or devices of one protocol
would get other content than those of another.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import struct
import zipfile
import zlib
from collections.abc import Mapping
from typing import BinaryIO

from privyseal.verify import MANIFEST
from privyseal.verify.errors import VerificationError
from privyseal.verify.schemes import codepush_package_sha256
from privyseal.verify.statement import Statement

MAX_MANIFEST = 32 << 20
_PIECE = 1 << 20
_LOCAL = struct.Struct("<4s5H3I2H")
_HASHES = ("sha256", "sha384", "sha512")


def verify_bundle(file: BinaryIO, statement: Statement) -> None:
    """Verify all that a statement says of a bundle.

    Args:
        file: The bundle, open for reading; read from its beginning, twice.
        statement: What was signed; its own signature was verified.

    Raises:
        VerificationError: With the first thing that is otherwise.
        OSError: If it cannot be read.
    """
    whole, blake2b, length = hashlib.sha256(), hashlib.blake2b(), 0
    file.seek(0)
    while piece := file.read(_PIECE):
        whole.update(piece)
        blake2b.update(piece)
        length += len(piece)
    if (whole.digest(), length) != (statement.bundle_sha256, statement.bundle_length):
        raise VerificationError("it is not the bundle that the receipt speaks of")
    if statement.bundle_blake2b not in {b"", blake2b.digest()}:
        raise VerificationError("the statement has the BLAKE2b digest of another bundle")
    try:
        with zipfile.ZipFile(file) as archive:
            _require_plain(file, archive)
            digests = _verify_files(archive, statement.manifest_sha256)
    except VerificationError:
        raise
    except (
        *(zipfile.BadZipFile, zlib.error, struct.error, EOFError),
        *(NotImplementedError, RuntimeError, ValueError, OverflowError),
    ) as error:
        # All that the library says of a zip that is damaged, or made to be.
        raise VerificationError("the bundle is no zip that can be read") from error
    if statement.codepush_sha256 not in {b"", codepush_package_sha256(digests)}:
        raise VerificationError("the statement has the package hash of other files (CodePush)")
    _verify_expo(statement, digests)


def _require_plain(file: BinaryIO, archive: zipfile.ZipFile) -> None:
    """Refuse a zip in which who reads it from the front finds other files than who does not.

    Raises:
        VerificationError: If entries do not follow each other, from the first byte on.
    """
    at = 0
    for entry in archive.infolist():
        file.seek(at)
        header = _LOCAL.unpack(file.read(_LOCAL.size))
        if entry.header_offset != at or header[7] != entry.compress_size:
            raise VerificationError("the bundle has more in it than its directory lists")
        at += _LOCAL.size + header[9] + header[10] + entry.compress_size
    if at != archive.start_dir:
        raise VerificationError("the bundle has more in it than its directory lists")


def _verify_files(archive: zipfile.ZipFile, manifest_sha256: bytes) -> dict[str, bytes]:
    """Return the SHA-256 of each file, by name. Raises VerificationError."""
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) != len(archive.infolist()):
        raise VerificationError("the bundle has two files of one name")
    listed = entries.pop(MANIFEST, None)
    if listed is None or listed.file_size > MAX_MANIFEST:
        raise VerificationError(f"the bundle has no {MANIFEST}, or one that is too large")
    manifest = archive.read(listed)
    if hashlib.sha256(manifest).digest() != manifest_sha256:
        raise VerificationError("the statement has the digest of another manifest")
    wanted = _parsed(manifest)
    if wanted.keys() != entries.keys():
        other = min(wanted.keys() ^ entries.keys())
        raise VerificationError(f"the manifest lists other files than the bundle has: {other!r}")
    digests = {}
    for name, entry in entries.items():
        size, integrity = wanted[name]
        hashers = {algorithm: hashlib.new(algorithm) for algorithm in _HASHES}
        read = 0
        with archive.open(entry) as content:
            while piece := content.read(_PIECE):
                read += len(piece)
                if read > size:
                    break
                for hasher in hashers.values():
                    hasher.update(piece)
        found = {algorithm: hasher.digest() for algorithm, hasher in hashers.items()}
        if read != size or any(found[algorithm] != integrity[algorithm] for algorithm in integrity):
            raise VerificationError(f"{name!r} is not the file that the manifest lists")
        digests[name] = found["sha256"]
    return digests


def _parsed(manifest: bytes) -> dict[str, tuple[int, dict[str, bytes]]]:
    """Return size and digests of each file that a manifest lists. Raises VerificationError."""
    wanted: dict[str, tuple[int, dict[str, bytes]]] = {}
    try:
        listed = json.loads(manifest)
        for entry in listed:
            integrity = {}
            for text in entry["integrity"].split():
                algorithm, _, digest = text.partition("-")
                integrity[algorithm] = base64.b64decode(digest, validate=True)
            if not integrity or not integrity.keys() <= set(_HASHES):
                raise ValueError(entry["href"])
            wanted[entry["href"]] = (int(entry["size"]), integrity)
        if len(wanted) != len(listed):
            raise ValueError(MANIFEST)
    except (
        *(KeyError, TypeError, ValueError, AttributeError, RecursionError, binascii.Error),
    ) as error:
        raise VerificationError("the manifest is malformed") from error
    return wanted


def _verify_expo(statement: Statement, digests: Mapping[str, bytes]) -> None:
    """Verify that what Expo's devices are told to fetch is there. Raises VerificationError."""
    for update in statement.expo.updates if statement.expo is not None else ():
        files = [(update.launch_path, update.launch_sha256)]
        files += [(asset.path, asset.sha256) for asset in update.assets]
        for path, sha256 in files:
            if digests.get(path) != sha256:
                raise VerificationError(f"the statement has another file for Expo: {path!r}")
