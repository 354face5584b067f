"""Signed notes and checkpoints: C2SP signed-note v1.0.0 and tlog-checkpoint v1.0.0.

A checkpoint is a note whose text is three lines::

    privyseal.example/log
    42
    CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=

    — privyseal.example/log Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5...

The last line is a signature: base64 of a 4-byte key id and the Ed25519 signature.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from dataclasses import dataclass

from privyseal.verify.errors import VerificationError

ED25519_TYPE = b"\x01"
MAX_SIGNATURES = 32
MAX_NOTE = 64 * 1024


@dataclass(frozen=True)
class Checkpoint:
    """The state of a log: its name, its size in leaves, its root (32 bytes)."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the note's text, ending in a newline."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


@dataclass(frozen=True)
class NoteVerifier:
    """A named Ed25519 public key, C2SP vkey."""

    name: str
    public_key: bytes

    @property
    def key_id(self) -> bytes:
        """Four bytes: SHA-256(name || LF || type || key)[:4]."""
        return key_id(self.name, self.public_key)

    def vkey(self) -> str:
        """Return `name+hex(key id)+base64(type || key)`."""
        encoded = base64.b64encode(ED25519_TYPE + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{encoded}"

    @classmethod
    def parse(cls, vkey: str) -> NoteVerifier:
        """Parse a vkey. Raises VerificationError if it is not a well-formed Ed25519 one."""
        try:
            name, given_id, encoded = vkey.strip().split("+", 2)
            data = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error) as error:
            raise VerificationError("log verifier key is not of the form name+id+key") from error
        if data[:1] != ED25519_TYPE or len(data) != 33:
            raise VerificationError("log verifier key is not Ed25519")
        verifier = cls(name, data[1:])
        if verifier.key_id.hex() != given_id:
            raise VerificationError("log verifier key and its key id do not match")
        return verifier


def key_id(name: str, public_key: bytes) -> bytes:
    """Return the 4-byte key id of a named Ed25519 key."""
    return hashlib.sha256(name.encode() + b"\n" + ED25519_TYPE + public_key).digest()[:4]


def format_note(text: str, name: str, public_key: bytes, signature: bytes) -> str:
    """Return the note with one Ed25519 signature line."""
    line = base64.b64encode(key_id(name, public_key) + signature).decode()
    return f"{text}\n\u2014 {name} {line}\n"


def parse_checkpoint(text: str) -> Checkpoint:
    """Parse the text of a checkpoint strictly: what is parsed formats to the same text.

    Raises:
        VerificationError: If it is not three lines of the right form.
    """
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise VerificationError("checkpoint text is not three lines")
    try:
        root = base64.b64decode(lines[2], validate=True)
    except (ValueError, binascii.Error) as error:
        raise VerificationError("checkpoint root is not base64") from error
    if not (lines[1].isascii() and lines[1].isdigit() and len(lines[1]) <= 20) or len(root) != 32:
        raise VerificationError("checkpoint size or root is malformed")
    checkpoint = Checkpoint(lines[0], int(lines[1]), root)
    if not checkpoint.origin or checkpoint.text() != text:
        raise VerificationError("checkpoint is not in its one valid form")
    return checkpoint


def open_note(note: str, verifier: NoteVerifier) -> str:
    """Verify a signed note and return its text.

    Signatures by unknown keys are ignored; one by the given key that fails refuses the
    whole note.

    Raises:
        VerificationError: If the note is malformed or not signed by the key.
    """
    from privyseal.verify.keys import verify_ed25519

    if len(note) > MAX_NOTE or any(c < " " and c != "\n" for c in note):
        raise VerificationError("signed note is too long or has control characters")
    if any("\ud800" <= c <= "\udfff" for c in note):
        raise VerificationError("signed note is no text in UTF-8")
    text, separator, block = note.rpartition("\n\n")
    lines = block.split("\n")
    if not separator or lines.pop() or not 0 < len(lines) <= MAX_SIGNATURES:
        raise VerificationError("signed note has no signature block")
    text += "\n"
    verified, names = False, set()
    for line in lines:
        try:
            dash, name, encoded = line.split(" ")
            data = base64.b64decode(encoded, validate=True)
        except (ValueError, binascii.Error) as error:
            raise VerificationError("a signature line of the note is malformed") from error
        if dash != "\u2014" or not name or len(data) < 5:
            raise VerificationError("a signature line of the note is malformed")
        names.add(name)
        if name == verifier.name and data[:4] == verifier.key_id:
            verify_ed25519(verifier.public_key, data[4:], text.encode())
            verified = True
    if not verified and verifier.name in names:
        raise VerificationError(
            f"checkpoint is signed by another {verifier.name} than the one whose key was given"
        )
    if not verified:
        raise VerificationError(f"checkpoint is not signed by {verifier.name}")
    return text


def open_checkpoint(note: str, verifier: NoteVerifier) -> Checkpoint:
    """Verify a signed checkpoint of the verifier's own log and return it.

    Raises:
        VerificationError: If the signature or the form is wrong, or the log another one.
    """
    checkpoint = parse_checkpoint(open_note(note, verifier))
    if checkpoint.origin != verifier.name:
        raise VerificationError("checkpoint is of another log")
    return checkpoint
