"""Successor records: an old version of a key says which one comes after it.

A record is a DSSE v1.0.2 envelope whose payload is canonical JSON (RFC 8785), signed with the
old version's private key, or, where that was compromised, unsigned: then the record only
tells, and a chain is broken there. Whoever trusts an old public key finds the way to the
newest one along the records of a key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from privyseal.verify.canonical import canonical, parse_object
from privyseal.verify.errors import VerificationError
from privyseal.verify.keys import PublicKey, load_public_key, public_key_sha256, verify_signature
from privyseal.verify.merkle import leaf_hash, verify_inclusion
from privyseal.verify.note import NoteVerifier, open_checkpoint
from privyseal.verify.statement import pae

SUCCESSOR_TYPE = "application/vnd.privyseal.successor.v1+json"
PROMOTE_ACT = "key.promote"
MAX_RECORD = 32 * 1024
MAX_CHAIN = 1000


@dataclass(frozen=True)
class Successor:
    """What a record says.

    Attributes:
        app, key: Of what.
        old, new: The numbers of the versions.
        old_sha256: SHA-256 of the old public key (SubjectPublicKeyInfo DER), 32 bytes.
        new_public_key: SubjectPublicKeyInfo DER.
        at: When the new version was promoted, seconds since 1970, UTC.
    """

    app: str
    key: str
    old: int
    new: int
    old_sha256: bytes
    new_public_key: bytes
    at: int

    def payload(self) -> bytes:
        """Return what is signed."""
        return canonical(
            {
                "app": self.app,
                "key": self.key,
                "from": self.old,
                "to": self.new,
                "fromPublicKeySha256": self.old_sha256.hex(),
                "toPublicKey": base64.b64encode(self.new_public_key).decode(),
                "toPublicKeySha256": hashlib.sha256(self.new_public_key).hexdigest(),
                "time": self.at,
            }
        )

    @classmethod
    def parse(cls, payload: bytes) -> Successor:
        """Parse a payload strictly. Raises VerificationError."""
        value = parse_object(payload, "successor record")
        try:
            record = cls(
                app=str(value["app"]),
                key=str(value["key"]),
                old=int(value["from"]),
                new=int(value["to"]),
                old_sha256=bytes.fromhex(value["fromPublicKeySha256"]),
                new_public_key=base64.b64decode(value["toPublicKey"], validate=True),
                at=int(value["time"]),
            )
        except (KeyError, TypeError, ValueError, binascii.Error) as error:
            raise VerificationError("successor record lacks a field") from error
        if record.payload() != payload:
            raise VerificationError("successor record is not in its one valid form")
        return record


def signing_input(record: Successor) -> bytes:
    """Return the bytes that the old version signs."""
    return pae(SUCCESSOR_TYPE, record.payload())


def envelope(record: Successor, signature: bytes) -> bytes:
    """Return a record as it is kept; without a signature if that is empty."""
    signatures = [{"sig": base64.b64encode(signature).decode()}] if signature else []
    return canonical(
        {
            "payload": base64.b64encode(record.payload()).decode(),
            "payloadType": SUCCESSOR_TYPE,
            "signatures": signatures,
        }
    )


def open_record(data: bytes, trusted: PublicKey) -> Successor:
    """Verify a record with the old public key and return what it says.

    Raises:
        VerificationError: If it is of another key, unsigned, or the signature fails.
    """
    record, signature = _parts(data)
    if record.old_sha256 != public_key_sha256(trusted):
        raise VerificationError(
            "successor record is of another old key than the one that is trusted"
        )
    if not signature:
        raise VerificationError(
            f"version {record.old} did not sign for version {record.new}: it was compromised, and "
            "trust cannot be handed on from it"
        )
    verify_signature(trusted, signature, signing_input(record))
    return record


def read_record(data: bytes) -> tuple[Successor, bool]:
    """Return what a record says and whether it is signed, without verifying it."""
    record, signature = _parts(data)
    return record, bool(signature)


@dataclass(frozen=True)
class Logged:
    """Where the log tells of a promotion: the leaf, and its proof.

    Attributes:
        leaf: The leaf as it is in the log.
        index: Its place.
        proof: Hashes of 32 bytes, its sibling first.
        checkpoint: The signed note of a tree that has it.
    """

    leaf: bytes
    index: int
    proof: tuple[bytes, ...]
    checkpoint: str

    @classmethod
    def parse(cls, value: Any) -> Logged:
        """Parse what `json` returns. Raises VerificationError."""
        try:
            leaf = base64.b64decode(value["leaf"], validate=True)
            proof = tuple(base64.b64decode(h, validate=True) for h in value["proof"])
            index, note = value["index"], value["checkpoint"]
            if not (type(index) is int and isinstance(note, str)):
                raise TypeError
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError("the chain's proof from the log is malformed") from error
        return cls(leaf, index, proof, note)

    def json(self) -> dict[str, Any]:
        """Return it for `json`."""
        return {
            "leaf": base64.b64encode(self.leaf).decode(),
            "index": self.index,
            "proof": [base64.b64encode(h).decode() for h in self.proof],
            "checkpoint": self.checkpoint,
        }


def verify_logged(data: bytes, logged: Logged, log: NoteVerifier) -> None:
    """Verify that the log tells of a promotion with this very record.

    A signature alone does not prove one: keys of some schemes sign digests that callers name.

    Args:
        data: The record.
        logged: Where the log has it.
        log: The log's key.

    Raises:
        VerificationError: If it does not.
    """
    record = _parts(data)[0]
    checkpoint = open_checkpoint(logged.checkpoint, log)
    verify_inclusion(
        index=logged.index,
        size=checkpoint.size,
        leaf=leaf_hash(logged.leaf),
        proof=logged.proof,
        root=checkpoint.root,
    )
    act = parse_object(logged.leaf, "log leaf")
    promoted = f"apps/{record.app}/keys/{record.key}/versions/{record.new}"
    told = act.get("act"), act.get("keyVersion"), act.get("successor")
    if told != (PROMOTE_ACT, promoted, data.decode()):
        raise VerificationError(
            f"the log does not tell that version {record.new} was promoted by this record"
        )


def follow(records: Sequence[bytes], trusted: PublicKey) -> list[Successor]:
    """Walk from a trusted public key along the records of a key.

    Args:
        records: In their order; those before the trusted key are left out.
        trusted: The public key in some old binary.

    Returns:
        The steps; the last one has the newest public key. Empty if the trusted key is it.

    Raises:
        VerificationError: If a step is missing, of another key, or not signed rightly.
    """
    if len(records) > MAX_CHAIN:
        raise VerificationError("the chain has too many records")
    parsed = [_parts(data)[0] for data in records]
    if len({(r.app, r.key) for r in parsed}) > 1:
        raise VerificationError("the chain has records of several keys")
    for before, after in itertools.pairwise(parsed):
        if hashlib.sha256(before.new_public_key).digest() != after.old_sha256:
            raise VerificationError("the chain lacks a record, or its records are out of order")
    steps: list[Successor] = []
    key = trusted
    at = next(
        (n for n, r in enumerate(parsed) if r.old_sha256 == public_key_sha256(trusted)),
        len(parsed),
    )
    if at == len(parsed) and not any(
        hashlib.sha256(r.new_public_key).digest() == public_key_sha256(trusted) for r in parsed
    ):
        raise VerificationError("the chain does not tell of the trusted key")
    for data in records[at:]:
        step = open_record(data, key)
        steps.append(step)
        key = load_public_key(step.new_public_key)
    return steps


def _parts(data: bytes) -> tuple[Successor, bytes]:
    if len(data) > MAX_RECORD:
        raise VerificationError("successor record is too long")
    value: dict[str, Any] = parse_object(data, "successor record")
    try:
        payload = base64.b64decode(value["payload"], validate=True)
        signatures = [base64.b64decode(s["sig"], validate=True) for s in value["signatures"]]
    except (KeyError, TypeError, ValueError, binascii.Error) as error:
        raise VerificationError("successor record lacks a field") from error
    if value.get("payloadType") != SUCCESSOR_TYPE or len(signatures) > 1:
        raise VerificationError("file is not a successor record of version 1")
    return Successor.parse(payload), signatures[0] if signatures else b""
