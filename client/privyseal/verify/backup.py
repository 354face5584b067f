"""The backup: one file that only a quorum of its recipients can open, and everybody can check.

In order:

1. The line `privyseal-backup v1`.
2. The header, one line of canonical JSON: id, log, time, checkpoint, threshold, and for each
   recipient a public key (X25519) with its share, sealed to it with HPKE (RFC 9180).
3. The body: a tar archive in chunks of 64 KiB, each AES-256-GCM under a key that only this
   backup has. A chunk's length in bytes comes before it (4 bytes, big-endian); its nonce is a
   counter (11 bytes), then 1 for the last chunk and 0 for the others, as age's STREAM has it:
   chunks cannot be dropped, moved or cut off.
4. A length of zero, then a note signed by the log's key over the SHA-256 of all before it.

The shares are SLIP-39 words of a secret of 32 bytes. HKDF-SHA256 makes of it the key of the
key-encryption key, and with the header's digest the key of the body, so that a header of
another backup opens nothing.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from privyseal.verify.canonical import Json, canonical, parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.note import NoteVerifier, open_note

MAGIC = b"privyseal-backup v1\n"
TITLE = "privyseal backup v1"
RECIPIENT = "privyseal-recipient-v1:"
MAX_HEADER = 64 * 1024
MAX_RECIPIENTS = 16
CHUNK = 64 * 1024
_TAG = 16
_LENGTH = struct.Struct(">I")
_NOTE = 4096


@dataclass(frozen=True)
class Recipient:
    """One who has a share: a public key (32 bytes), and the share sealed to it."""

    public_key: bytes
    sealed_share: bytes


@dataclass(frozen=True)
class Header:
    """What a backup says of itself.

    Attributes:
        id: Of this backup, 16 bytes, hexadecimal.
        origin: The log's name.
        created_at: Seconds since 1970, UTC.
        checkpoint: The log's newest checkpoint in it, a signed note.
        threshold: How many recipients open it together.
        recipients: Who they are.
        sealed_kek: The key-encryption key, sealed.
        kek_check: Tells whether what was opened is that key, hexadecimal.
    """

    id: str
    origin: str
    created_at: int
    checkpoint: str
    threshold: int
    recipients: tuple[Recipient, ...]
    sealed_kek: bytes
    kek_check: str

    def line(self) -> bytes:
        """Return the header's line."""
        people: list[Json] = [
            {"publicKey": _b64(r.public_key), "share": _b64(r.sealed_share)}
            for r in self.recipients
        ]
        return (
            canonical(
                {
                    "id": self.id,
                    "origin": self.origin,
                    "createdAt": self.created_at,
                    "checkpoint": self.checkpoint,
                    "threshold": self.threshold,
                    "recipients": people,
                    "kek": _b64(self.sealed_kek),
                    "kekCheck": self.kek_check,
                }
            )
            + b"\n"
        )

    @classmethod
    def parse(cls, line: bytes) -> Header:
        """Parse a header's line strictly. Raises VerificationError."""
        value = parse_object(line.removesuffix(b"\n"), "backup header")
        try:
            header = cls(
                id=str(value["id"]),
                origin=str(value["origin"]),
                created_at=int(value["createdAt"]),
                checkpoint=str(value["checkpoint"]),
                threshold=int(value["threshold"]),
                recipients=tuple(
                    Recipient(_unb64(r["publicKey"]), _unb64(r["share"]))
                    for r in value["recipients"]
                ),
                sealed_kek=_unb64(value["kek"]),
                kek_check=str(value["kekCheck"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise VerificationError("the backup's header lacks a field") from error
        if header.line() != line or not 1 <= header.threshold <= len(header.recipients):
            raise VerificationError("the backup's header is not in its one valid form")
        return header

    def open_share(self, private: x25519.X25519PrivateKey) -> str:
        """Return the share of whom a private key belongs to, as words.

        Raises:
            VerificationError: If that is no recipient, or the share was changed.
        """
        public = private.public_key().public_bytes_raw()
        for recipient in self.recipients:
            if recipient.public_key == public:
                try:
                    share = _suite().decrypt(recipient.sealed_share, private, _info(self.id))
                except (InvalidTag, ValueError):
                    break
                return share.decode()
        raise VerificationError("this key is of no recipient of the backup")

    def body_key(self, secret: bytes) -> bytes:
        """Return the key of the body, 32 bytes, from the secret that the shares make."""
        return derive(secret, b"body " + hashlib.sha256(self.line()).digest())


def new_recipient(public_key: bytes) -> str:
    """Return a public key of 32 bytes as the text that the daemon's settings want."""
    return RECIPIENT + _b64(public_key)


def parse_recipient(text: str) -> bytes:
    """Return the public key, 32 bytes. Raises VerificationError."""
    try:
        key = _unb64(text.strip().removeprefix(RECIPIENT))
    except (binascii.Error, ValueError):
        key = b""
    if not text.strip().startswith(RECIPIENT) or len(key) != 32:
        raise VerificationError(f"a recipient is {RECIPIENT} and a public key of 32 bytes, base64")
    return key


def seal_share(share: str, backup: str, public_key: bytes) -> bytes:
    """Seal a share to a recipient's public key of 32 bytes."""
    to = x25519.X25519PublicKey.from_public_bytes(public_key)
    return _suite().encrypt(share.encode(), to, _info(backup))


def derive(secret: bytes, purpose: bytes) -> bytes:
    """Return a key of 32 bytes for one purpose."""
    return HKDF(SHA256(), 32, None, b"privyseal backup v1 " + purpose).derive(secret)


def note_text(origin: str, digest: bytes) -> str:
    """Return the text that the log's key signs."""
    return f"{TITLE}\n{origin}\n{digest.hex()}\n"


class BodyWriter:
    """Encrypts what is written to it into a file, chunk by chunk.

    Args:
        to: The file.
        key: 32 bytes, of this backup alone.
    """

    def __init__(self, to: IO[bytes], key: bytes) -> None:
        self._to = to
        self._cipher = AESGCM(key)
        self._buffer = bytearray()
        self._number = 0

    def write(self, data: bytes) -> int:
        """Take more of the body."""
        self._buffer += data
        while len(self._buffer) > CHUNK:
            self._chunk(bytes(self._buffer[:CHUNK]), last=False)
            del self._buffer[:CHUNK]
        return len(data)

    def finish(self) -> None:
        """Write the last chunk and the length of zero."""
        self._chunk(bytes(self._buffer), last=True)
        self._to.write(_LENGTH.pack(0))

    def _chunk(self, data: bytes, *, last: bool) -> None:
        sealed = self._cipher.encrypt(_nonce(self._number, last=last), data, None)
        self._number += 1
        self._to.write(_LENGTH.pack(len(sealed)) + sealed)


def read_header(file: IO[bytes]) -> Header:
    """Read up to the body. Raises VerificationError if it is no backup."""
    if file.read(len(MAGIC)) != MAGIC:
        raise VerificationError("the file is not a Privyseal backup of version 1")
    line = file.readline(MAX_HEADER)
    if not line.endswith(b"\n"):
        raise VerificationError("the backup's header is too long, or cut off")
    return Header.parse(line)


def read_body(file: IO[bytes], key: bytes) -> Iterator[bytes]:
    """Decrypt the chunks of the body, which `read_header` has come to.

    Yields:
        Bytes that are the right ones; only with the end of all is it known to be whole.

    Raises:
        VerificationError: If a chunk was changed, or the body ends too early.
    """
    cipher, number, before = AESGCM(key), 0, b""
    while True:
        sealed = _read_chunk(file)
        if before:
            try:
                yield cipher.decrypt(_nonce(number, last=not sealed), before, None)
            except InvalidTag:
                raise VerificationError(f"chunk {number} of the backup was changed") from None
            number += 1
        if not sealed:
            if not before:
                raise VerificationError("the backup has no body")
            return
        before = sealed


def verify(file: IO[bytes], verifier: NoteVerifier) -> Header:
    """Verify, without opening it, that a backup is what the daemon wrote.

    Args:
        file: The backup, from its beginning.
        verifier: The log's public key.

    Returns:
        Its header.

    Raises:
        VerificationError: If it was changed, cut off, or is of another log.
    """
    header = read_header(file)
    digest = hashlib.sha256(MAGIC + header.line())
    while chunk := _read_chunk(file):
        digest.update(_LENGTH.pack(len(chunk)) + chunk)
    digest.update(_LENGTH.pack(0))
    try:
        note = file.read(_NOTE).decode()
    except UnicodeDecodeError:
        raise VerificationError("the backup's note is malformed") from None
    if header.origin != verifier.name:
        raise VerificationError("the backup is of another log")
    if open_note(note, verifier) != note_text(verifier.name, digest.digest()):
        raise VerificationError("the backup was changed since it was made")
    return header


def _read_chunk(file: IO[bytes]) -> bytes:
    prefix = file.read(_LENGTH.size)
    if len(prefix) != _LENGTH.size:
        raise VerificationError("the backup is cut off")
    (length,) = _LENGTH.unpack(prefix)
    if length == 0:
        return b""
    if not _TAG <= length <= CHUNK + _TAG:
        raise VerificationError("a chunk of the backup has a length out of bounds")
    chunk = file.read(length)
    if len(chunk) != length:
        raise VerificationError("the backup is cut off")
    return chunk


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + (b"\x01" if last else b"\x00")


def _info(backup: str) -> bytes:
    return canonical({"purpose": "privyseal backup share v1", "id": backup})


def _b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _unb64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _suite() -> Suite:
    return Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)
